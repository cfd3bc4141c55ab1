"""The images that the suite pulls, made on the spot: bytes, digests, and what a right pull must show.

Images are plain data; `registry.Upstream.push` brings them to a registry.
"""

import dataclasses
import gzip
import hashlib
import io
import json
import os
import pathlib
import platform
import random
import stat
import tarfile

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"

DOCKER_TYPES = (
    DOCKER_MANIFEST,
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)
OCI_TYPES = (
    OCI_MANIFEST,
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar+gzip",
)

# What this machine runs, in the words of image indexes.
HOST_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

# Folders of a Debian system that hold real files of all kinds, and how much of each becomes a layer.
TREE_FOLDERS = ("/usr/share/doc", "/usr/lib/python3", "/usr/share", "/usr/lib")
TREE_LAYERS = 3
TREE_LAYER_BYTES = 16 << 20


def digest(data):
    """The content's name."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def platform_of(architecture, variant=None):
    """A platform in the words of an index and of a configuration, which must agree."""
    return {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}


@dataclasses.dataclass
class Manifest:
    """One manifest as pushed."""

    data: bytes
    media_type: str
    config: str = ""
    layers: list = dataclasses.field(default_factory=list)
    architecture: str = ""

    @property
    def digest(self):
        return digest(self.data)


@dataclasses.dataclass
class Image:
    """A repository with one tag: its manifests (the tagged one last) and blobs by digest."""

    repository: str
    tag: str = "1"
    manifests: list = dataclasses.field(default_factory=list)
    blobs: dict = dataclasses.field(default_factory=dict)
    probe: tuple = ("", b"")  # a file in the image, and what is in it

    @property
    def top(self):
        return self.manifests[-1]

    @property
    def host(self):
        """The manifest that a client on this machine chooses."""
        if not self.is_index:
            return self.top
        return next(each for each in self.manifests if each.architecture == HOST_ARCHITECTURE)

    @property
    def is_index(self):
        return self.top.media_type == OCI_INDEX

    @property
    def name(self):
        return self.repository.rsplit("/", 1)[-1]

    def contents(self):
        """digest -> bytes of all that belongs to the image."""
        return {**self.blobs, **{each.digest: each.data for each in self.manifests}}

    def add(self, layers, types, architecture=HOST_ARCHITECTURE, variant=None):
        """Adds a manifest of these (tar, gzip) layers."""
        manifest_type, config_type, layer_type = types
        config = json.dumps({
            **platform_of(architecture, variant),
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/true"], "Env": ["PATH=/bin"], "Labels": {"repository": self.repository}},
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar, _ in layers]},
            "history": [{"created": "2024-01-01T00:00:00Z", "created_by": f"layer {n}"} for n in range(len(layers))],
        }).encode()
        self.blobs[digest(config)] = config
        self.blobs.update({digest(packed): packed for _, packed in layers})
        body = {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": {"mediaType": config_type, "digest": digest(config), "size": len(config)},
            "layers": [
                {"mediaType": layer_type, "digest": digest(packed), "size": len(packed)} for _, packed in layers
            ],
        }
        # Indented, as registries really hold them: whoever re-encodes changes the digest.
        manifest = Manifest(
            json.dumps(body, indent=3).encode(),
            manifest_type,
            digest(config),
            [digest(packed) for _, packed in layers],
            architecture,
        )
        self.manifests.append(manifest)
        return manifest


def layer(files):
    """(tar, gzip) of a mapping path -> bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(data))
    return packed(buffer.getvalue())


def packed(tar):
    return tar, gzip.compress(tar, compresslevel=1, mtime=0)


def small_image(repository, layers, seed):
    """An image of `layers` layers of some kilobytes that do not compress."""
    image = Image(repository)
    random_bytes = random.Random(seed).randbytes
    files = {f"layer-{n}/data": random_bytes(5000 + 997 * n) for n in range(layers)}
    image.add([layer({path: data}) for path, data in files.items()], DOCKER_TYPES)
    image.probe = list(files.items())[-1]
    return image


def index_image(repository, seed=""):
    """An OCI index of three platforms; another seed makes other contents."""
    image = Image(repository)
    entries = []
    for architecture, variant in (("amd64", None), ("arm64", None), ("arm", "v7")):
        data = random.Random(architecture + seed).randbytes(300_000)
        layers = [layer({"platform": architecture.encode(), "seed": seed.encode()}), layer({"data": data})]
        manifest = image.add(layers, OCI_TYPES, architecture, variant)
        entries.append({
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": len(manifest.data),
            "platform": platform_of(architecture, variant),
        })
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    image.manifests.append(Manifest(json.dumps(body, indent=2).encode(), OCI_INDEX))
    image.probe = ("platform", HOST_ARCHITECTURE.encode())
    return image


def tree_image(repository):
    """Real files of the Debian system that the suite runs on, with links and permissions, in three layers."""
    image = Image(repository)
    layers = []
    taken = set()
    for folder in TREE_FOLDERS:
        if len(layers) < TREE_LAYERS and os.path.isdir(folder):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                add_tree(archive, buffer, folder, taken, image)
            layers.append(packed(buffer.getvalue()))
    image.add(layers, DOCKER_TYPES)
    return image


def add_tree(archive, buffer, folder, taken, image):
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files) + [each for each in folders if os.path.islink(os.path.join(place, each))]:
            path = os.path.join(place, name)
            mode = os.lstat(path).st_mode
            if path in taken or not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)) or not os.access(path, os.R_OK):
                continue
            if os.lstat(path).st_size > TREE_LAYER_BYTES // 4:
                continue
            taken.add(path)
            archive.add(path, recursive=False)
            if stat.S_ISREG(mode) and not image.probe[0] and os.lstat(path).st_size > 1000:
                image.probe = (path.lstrip("/"), pathlib.Path(path).read_bytes())
            if buffer.tell() > TREE_LAYER_BYTES:
                return


def artifact_image(repository):
    """An artifact that is no container image: a media type of its own, a zero-byte blob, a larger one."""
    image = Image(repository)
    parts = {
        "application/vnd.wharf.config.v1+json": json.dumps({"made": repository}).encode(),
        "application/vnd.wharf.nothing": b"",
        "application/vnd.wharf.data": random.Random(repository).randbytes(3 << 20),
    }
    entries = [{"mediaType": kind, "digest": digest(data), "size": len(data)} for kind, data in parts.items()]
    image.blobs = {digest(data): data for data in parts.values()}
    body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entries[0], "layers": entries[1:]}
    manifest = Manifest(json.dumps(body).encode(), OCI_MANIFEST, entries[0]["digest"])
    manifest.layers = [each["digest"] for each in entries[1:]]
    image.manifests = [manifest]
    return image


@dataclasses.dataclass
class Contents:
    """All images of a run."""

    layers: Image
    platforms: Image
    tree: Image
    artifact: Image
    paged: Image  # has the tags 1 to 5
    public: Image
    private: Image


def make():
    """Makes all images: some seconds of work, mostly the tree's compression."""
    return Contents(
        layers=small_image("library/wharf-layers", 40, "layers"),
        platforms=index_image("library/wharf-platforms"),
        tree=tree_image("library/wharf-tree"),
        artifact=artifact_image("acme/manifests/wharf-artifact"),
        paged=small_image("library/wharf-paged", 1, "paged"),
        public=small_image("public/wharf-open", 3, "open"),
        private=small_image("private/wharf-app", 3, "app"),
    )
