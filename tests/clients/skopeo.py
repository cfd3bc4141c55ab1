"""skopeo: copies whole images, all platforms of an index too, and every byte of them is compared."""

import json

from client import Client, Route, by_digest, by_tag
from content import digest
from process import equal


class Skopeo(Client):
    """skopeo against the prefix names."""

    name = "skopeo"
    tools = ("skopeo",)
    scheme = "docker://"

    def start(self):
        self.place = self.work.fresh(self.name)
        self.policy = self.place / "policy.json"
        self.policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))

    def routes(self, contents):
        at = f"docker://{self.daemon.address}"
        hub = f"{at}/docker-hub"
        return [
            Route("many layers, by tag", by_tag(f"{hub}/library/wharf-layers", contents.layers), contents.layers),
            Route(
                "three platforms, by tag", by_tag(f"{hub}/library/wharf-platforms", contents.platforms),
                contents.platforms,
            ),
            Route(
                "three platforms, by digest", by_digest(f"{hub}/library/wharf-platforms", contents.platforms),
                contents.platforms,
            ),
            Route(
                "file tree, by host", by_tag(f"{at}/docker.io/library/wharf-tree", contents.tree), contents.tree
            ),
            Route(
                "artifact with a zero-byte blob", by_tag(f"{hub}/acme/manifests/wharf-artifact", contents.artifact),
                contents.artifact,
            ),
            Route(
                "behind tokens, with credentials", by_tag(f"{at}/tokened/private/wharf-app", contents.private),
                contents.private,
            ),
            Route(
                "behind tokens, anonymously", by_tag(f"{at}/anonymous/public/wharf-open", contents.public),
                contents.public,
            ),
        ]

    def pull(self, route):
        image, reference = route.image, route.reference
        raw = self.run("skopeo", "inspect", "--raw", "--tls-verify=false", reference, text=False)
        equal("the manifest by inspect --raw", raw, image.top.data)
        if image.name != "wharf-artifact":  # inspect reads the configuration as an image's
            shown = json.loads(self.run("skopeo", "inspect", "--no-tags", "--tls-verify=false", reference))
            equal("layers by inspect", shown["Layers"], image.host.layers)
        target = self.work.fresh(self.name, "copy")
        self.run(
            "skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false", "--policy", self.policy,
            reference, f"dir:{target}",
        )
        files = [path.read_bytes() for path in target.iterdir() if path.name != "version"]
        equal("what was copied", {digest(data) for data in files}, set(image.contents()))
        if image.is_index:
            # An OCI layout names its blobs by digest.
            layout = self.work.fresh(self.name, "layout")
            self.run(
                "skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false", "--policy", self.policy,
                reference, f"oci:{layout}:1",
            )
            blobs = {f"sha256:{path.name}": digest(path.read_bytes()) for path in (layout / "blobs/sha256").iterdir()}
            equal("blobs of the layout", blobs, {name: name for name in image.contents()})

    def extras(self, contents):
        def tags():
            repository = f"docker://{self.daemon.address}/docker-hub/library/wharf-layers"
            shown = json.loads(self.run("skopeo", "list-tags", "--tls-verify=false", repository))
            equal("tags", shown["Tags"], [contents.layers.tag])

        return [("lists tags", tags)]
