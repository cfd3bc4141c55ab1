"""containerd with `hosts.toml`: it sends `ns`, and takes the host's name into the path where told so."""

from client import Client, Route, by_digest, by_tag
from process import equal, wait_until


class Containerd(Client):
    """A containerd of our own, driven by ctr."""

    name = "containerd"
    tools = ("containerd", "ctr")
    needs_root = True

    def start(self):
        self.place = self.work.fresh(self.name)
        self.socket = self.place / "c.sock"
        config = self.place / "config.toml"
        config.write_text(f"""
version = 2
root = "{self.place / "root"}"
state = "{self.place / "state"}"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{self.socket}"
[ttrpc]
address = "{self.place / "t.sock"}"
""")
        self.hosts = {}
        for label, mirror in {"ns": self.daemon.url, "path": f"{self.daemon.url}/docker.io"}.items():
            self.hosts[label] = self.place / label
            hosts = ("docker.io",)
            if label == "ns":
                hosts += ("tokened.example", "anonymous.example", *self.hosts_of_zoo)
            for host in hosts:
                folder = self.work.folder(self.name, label, host)
                # `server` is the last resort, else the real registry: the cache is the only source.
                (folder / "hosts.toml").write_text(f"""
server = "{mirror}"
[host."{mirror}"]
capabilities = ["pull", "resolve"]
""")
        self.process = self.work.start(
            self.name, ["containerd", "--config", config], env=self.work.client_env
        )
        wait_until("containerd's socket", self.socket.exists, 30, self.process)
        self.ctr("version")

    def stop(self):
        self.work.stop(self.process)

    def ctr(self, *command):
        return self.run("ctr", "--address", self.socket, *command)

    def routes(self, contents):
        hub = "docker.io/library"
        return [
            Route("many layers, by tag", by_tag(f"{hub}/wharf-layers", contents.layers), contents.layers),
            Route("three platforms, by tag", by_tag(f"{hub}/wharf-platforms", contents.platforms), contents.platforms),
            Route("file tree, by tag", by_tag(f"{hub}/wharf-tree", contents.tree), contents.tree),
            Route("many layers, by digest", by_digest(f"{hub}/wharf-layers", contents.layers), contents.layers),
            Route("many layers, by path", by_tag(f"{hub}/wharf-layers", contents.layers), contents.layers),
            Route(
                "behind tokens, with credentials",
                by_tag("tokened.example/private/wharf-app", contents.private),
                contents.private,
            ),
            Route(
                "behind tokens, anonymously",
                by_tag("anonymous.example/public/wharf-open", contents.public),
                contents.public,
            ),
        ]

    def visit(self, animals):
        return [Route(each.host, f"{each.host}/{each.tagged}", each.image) for each in animals]

    def pull(self, route):
        image, reference = route.image, route.reference
        hosts = self.hosts["path" if route.label.endswith("by path") else "ns"]
        platforms = ["--all-platforms"] if image.is_index else []
        snapshotter = "overlayfs" if self.work.overlay else "native"
        self.ctr("images", "pull", "--hosts-dir", hosts, "--snapshotter", snapshotter, *platforms, reference)
        listed = [line.split() for line in self.ctr("images", "ls").splitlines()[1:]]
        equal("images", [(line[0], line[2]) for line in listed], [(reference, image.top.digest)])
        kept = set(self.ctr("content", "ls", "--quiet").split())
        equal("content that is missing", set(image.contents()) - kept, set())
        equal("the manifest as kept", self.ctr("content", "get", image.top.digest).encode(), image.top.data)
        self.ctr("images", "rm", "--sync", reference)
        equal("content left", self.ctr("content", "ls", "--quiet").split(), [])
