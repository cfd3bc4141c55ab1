"""The daemon under test: its configuration, its start, and where it says that it listens."""

import re

import tokens
from process import Failure, wait_until

STYLE = re.compile(r"\x1b\[[0-9;]*m")
LISTENING = re.compile(r'\baddress"?[=:] ?"?(?P<address>127\.0\.0\.1:[0-9]+)')


def listening(log):
    """The addresses that the daemon's log announces: lines with `listening` and `address=127.0.0.1:PORT`."""
    lines = (STYLE.sub("", line) for line in log.splitlines())
    return {found["address"] for line in lines if "listening" in line for found in LISTENING.finditer(line)}


class Daemon:
    """`wharfinger serve` with a main door and a mirror door."""

    def __init__(self, work, binary, ports):
        self.work, self.binary = work, binary
        self.port, self.mirror_port = ports
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self.mirror_url = f"http://127.0.0.1:{self.mirror_port}"
        self.process = None

    options = ()  # of serve
    rights = 'anonymous = ["pull", "push", "delete", "list"]'

    def upstreams(self):
        """The tables of its upstreams."""
        raise NotImplementedError

    def configuration(self, tag_ttl):
        return f"""
[server]
listen = "{self.address}"
mirror_listen = "127.0.0.1:{self.mirror_port}"

[storage]
data_dir = "{self.work.root / "data"}"

[cache]
tag_ttl = "{tag_ttl}"

[log]
format = "text"

# What the clients push.
[[hosted.template]]
pattern = "pushed/*"

[auth]
{self.rights}

{self.upstreams()}
"""

    def start(self, tag_ttl="1h", empty=False):
        """Starts it on its ports; `empty` begins with a new data folder."""
        if empty:
            self.work.fresh("data")
        config = self.work.root / "wharfinger.toml"
        config.write_text(self.configuration(tag_ttl))
        log = self.work.log("daemon")
        before = len(log.read_text(errors="replace")) if log.exists() else 0
        self.process = self.work.start("daemon", [self.binary, "serve", "--config", config, *self.options])
        wanted = {self.address, self.mirror_url.removeprefix("http://")}
        said = lambda: listening(log.read_text(errors="replace")[before:])  # noqa: E731
        wait_until("the daemon says where it listens", lambda: wanted <= said(), 30, self.process)

    def stop(self):
        """Ends it by SIGTERM, which must be a clean end."""
        if self.process:
            process, self.process = self.process, None
            status = self.work.stop(process)
            if status != 0:
                raise Failure(f"the daemon ended with status {status} on SIGTERM")

    def add_user(self, name, password):
        """Makes a login."""
        config = self.work.root / "wharfinger.toml"
        self.work.run("daemon", [self.binary, "user", "add", name, "--password-stdin", "--config", config], said=password)

    def restart(self, tag_ttl="1h", empty=False):
        self.stop()
        self.start(tag_ttl, empty)


class SuiteDaemon(Daemon):
    """The daemon of the suite: upstreams with and without credentials, over TLS and without."""

    def __init__(self, work, binary, ports, plain, tokened, secured, certificate):
        super().__init__(work, binary, ports)
        self.plain, self.tokened, self.secured, self.certificate = plain, tokened, secured, certificate
        self.password = work.root / "password"
        self.password.write_text(f"{tokens.PASSWORD}\n")
        self.password.chmod(0o600)

    checks_callers = False  # then clients are asked for a login at the door

    def upstreams(self):
        checked = f"""
# For those whom it lets read it by a login of their own.
[upstream.checked]
url = "{self.tokened.url}"
hosts = ["checked.example"]
username = "{tokens.USER}"
password_file = "{self.password}"
caller_check = true
"""
        return f"""
{checked if self.checks_callers else ""}
[upstream.docker-hub]
url = "{self.plain.url}"

# With our credentials, and what they can read is for everybody who asks.
[upstream.tokened]
url = "{self.tokened.url}"
hosts = ["tokened.example"]
username = "{tokens.USER}"
password_file = "{self.password}"
share_private = true

# The same registry without credentials.
[upstream.anonymous]
url = "{self.tokened.url}"
hosts = ["anonymous.example"]

# Over TLS: with the certificate that vouches for it, without, and without asking for one.
[upstream.secured]
url = "{self.secured.url}"
hosts = ["secured.example"]
ca_file = "{self.certificate.certificate}"

[upstream.untrusted]
url = "{self.secured.url}"
hosts = ["untrusted.example"]

[upstream.insecure]
url = "{self.secured.url}"
hosts = ["insecure.example"]
insecure = true
"""
