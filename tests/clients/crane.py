"""crane, the client of go-containerregistry: strict about headers, digests and lengths."""

from client import Client, Route, by_digest, by_tag
from process import equal


class Crane(Client):
    """crane against the prefix and host names."""

    name = "crane"
    tools = ("crane",)

    def routes(self, contents):
        at = self.daemon.address
        hub = f"{at}/docker-hub"
        return [
            Route("many layers, by tag", by_tag(f"{hub}/library/wharf-layers", contents.layers), contents.layers),
            Route(
                "three platforms, by tag", by_tag(f"{hub}/library/wharf-platforms", contents.platforms),
                contents.platforms,
            ),
            Route("file tree, by tag", by_tag(f"{at}/docker.io/library/wharf-tree", contents.tree), contents.tree),
            Route("many layers, by digest", by_digest(f"{hub}/library/wharf-layers", contents.layers), contents.layers),
            Route(
                "artifact with a zero-byte blob", by_tag(f"{hub}/acme/manifests/wharf-artifact", contents.artifact),
                contents.artifact,
            ),
            Route(
                "behind tokens, with credentials",
                by_tag(f"{at}/tokened.example/private/wharf-app", contents.private), contents.private,
            ),
            Route(
                "behind tokens, anonymously", by_tag(f"{at}/anonymous/public/wharf-open", contents.public),
                contents.public,
            ),
        ]

    def crane(self, *command, **options):
        return self.run("crane", *command, "--insecure", **options)

    def pull(self, route):
        image, reference = route.image, route.reference
        equal("digest", self.crane("digest", reference).strip(), image.top.digest)
        equal("manifest", self.crane("manifest", reference, text=False), image.top.data)
        repository = reference.partition("@")[0].removesuffix(f":{image.tag}")
        for name in image.host.layers[-2:] if not image.is_index else image.host.layers:
            data = self.crane("blob", f"{repository}@{name}", text=False)
            equal(f"length of blob {name}", len(data), len(image.blobs[name]))
            equal(f"blob {name}", data == image.blobs[name], True)
        if image.name == "wharf-artifact":  # the next two want layers that are file systems
            return
        self.crane("validate", "--remote", reference)
        layout = self.work.fresh(self.name, "layout")
        self.crane("pull", "--format", "oci", reference, layout)
        kept = {f"sha256:{path.name}" for path in (layout / "blobs/sha256").iterdir()}
        equal("blobs of the layout", kept, set(image.contents()))

    def extras(self, contents):
        def tags():
            repository = f"{self.daemon.address}/docker-hub/library/wharf-layers"
            equal("tags", self.crane("ls", repository).split(), [contents.layers.tag])

        return [("lists tags", tags)]
