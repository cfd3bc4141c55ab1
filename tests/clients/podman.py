"""podman and buildah with `registries.conf`: a mirror with the host in its path, and a rewritten location."""

import json

from client import Client, Route, by_digest, by_tag
from process import equal, expect


class Podman(Client):
    """podman with a storage of its own."""

    name = "podman"
    tools = ("podman",)
    needs_root = True  # without it: inside a user namespace that many machines lack

    def start(self):
        self.place = self.work.fresh(self.name)
        address = self.daemon.address
        (self.place / "registries.conf").write_text(f"""
unqualified-search-registries = ["docker.io"]
short-name-mode = "disabled"

[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "{address}/docker.io"
insecure = true

[[registry]]
prefix = "tokened.example"
location = "{address}/tokened"
insecure = true

[[registry]]
prefix = "anonymous.example"
location = "{address}/anonymous.example"
insecure = true
""")
        with (self.place / "registries.conf").open("a") as file:
            for host in self.hosts_of_zoo:
                file.write(f"""
[[registry]]
prefix = "{host}"
location = "{address}/{host}"
insecure = true
""")
        (self.place / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        (self.place / "storage.conf").write_text(f"""
[storage]
driver = "{"overlay" if self.work.overlay else "vfs"}"
graphroot = "{self.place / "root"}"
runroot = "{self.place / "run"}"
""")
        self.env = {
            "CONTAINERS_REGISTRIES_CONF": str(self.place / "registries.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.place / "storage.conf"),
        }

    def tool(self, *command, **options):
        return self.run("podman", *command, env=self.env, **options)

    def fetch(self, reference):
        self.tool("pull", "--quiet", "--signature-policy", self.place / "policy.json", reference)

    def routes(self, contents):
        hub = "docker.io/library"
        return [
            Route("many layers, by tag", by_tag(f"{hub}/wharf-layers", contents.layers), contents.layers),
            Route("three platforms, by tag", by_tag("wharf-platforms", contents.platforms), contents.platforms),
            Route("file tree, by tag", by_tag(f"{hub}/wharf-tree", contents.tree), contents.tree),
            Route("many layers, by digest", by_digest(f"{hub}/wharf-layers", contents.layers), contents.layers),
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
        self.fetch(reference)
        shown = json.loads(self.tool("image", "inspect", reference))[0]
        equal("image id", f"sha256:{shown['Id']}", image.host.config)
        digests = [each.rpartition("@")[2] for each in shown["RepoDigests"]]
        expect(image.top.digest in digests, f"{image.top.digest} is not among {digests}")
        self.check_files(reference, image)
        self.remove(reference)

    def check_files(self, reference, image):
        """A file of the image, read from a mount of it."""
        path, wanted = image.probe
        root = self.tool("image", "mount", reference).strip()
        with open(f"{root}/{path}", "rb") as file:
            equal(f"{path} in the image", file.read(), wanted)
        self.tool("image", "unmount", reference)

    def remove(self, reference):
        self.tool("rmi", "--force", reference)
        equal("images left", self.tool("images", "--all", "--quiet").split(), [])


class Buildah(Podman):
    """buildah: the same library under another front."""

    name = "buildah"
    tools = ("buildah",)

    def tool(self, *command, **options):
        return self.run("buildah", *command, env=self.env, **options)

    def routes(self, contents):
        return super().routes(contents)[:2]

    def pull(self, route):
        image, reference = route.image, route.reference
        self.fetch(reference)
        shown = json.loads(self.tool("inspect", "--type", "image", reference))
        equal("image id", f"sha256:{shown['FromImageID']}", image.host.config)
        self.remove(reference)
