"""What a real client is to the suite, and what every client pulls."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Route:
    """One way to one image: how this client names it, and what must arrive."""

    label: str
    reference: str
    image: object


class Client:
    """A real client. `pull` begins with nothing of the image on the client's side, and checks what arrived."""

    name = ""
    tools = ()
    needs_root = False

    def __init__(self, work, daemon):
        self.work, self.daemon = work, daemon

    def start(self):
        """Starts the client's own daemon, if it has one."""

    def stop(self):
        """Stops it."""

    def logs(self):
        """The logs that explain a failure."""
        return [self.name]

    def routes(self, contents):
        """The ways to be tried, in order."""
        raise NotImplementedError

    def pull(self, route):
        """Pulls by one route; Failure unless what arrived is what the upstream holds."""
        raise NotImplementedError

    def extras(self, contents):
        """Further checks, (label, callable), made once while the upstream is there."""
        return []

    def run(self, *command, **options):
        """Runs a command into this client's log."""
        return self.work.run(self.name, command, **options)


def by_tag(reference, image):
    return f"{reference}:{image.tag}"


def by_digest(reference, image):
    return f"{reference}@{image.top.digest}"
