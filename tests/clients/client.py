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
    scheme = ""  # before references

    def __init__(self, work, daemon, hosts=()):
        """`hosts`: of registries beside those of the suite, for clients that are configured by host."""
        self.work, self.daemon, self.hosts_of_zoo = work, daemon, hosts

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

    def visit(self, animals):
        """The ways to registries of the zoo: by prefix."""
        at = f"{self.scheme}{self.daemon.address}"
        return [Route(each.host, f"{at}/{each.prefix}/{each.tagged}", each.image) for each in animals]

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
