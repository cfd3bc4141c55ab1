"""Bundles between caches and real tools: skopeo reads what `wharfinger bundle export` writes, and pulls from an offline
daemon that imported it; and what skopeo writes is imported too."""

import json

from containerd import Containerd
from content import DOCKER_MANIFEST, digest
from process import equal, expect


class Bundle:
    """The archives, by way of skopeo."""

    name = "bundle"
    tools = ("skopeo",)
    needs_root = False

    def __init__(self, work, daemon, contents):
        self.work, self.daemon, self.contents = work, daemon, contents
        self.place = work.fresh(self.name)
        self.policy = self.place / "policy.json"
        self.policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        self.images = (contents.platforms, contents.layers, contents.tree)
        self.ours, self.theirs = self.place / "ours.tar", self.place / "theirs.tar"

    def wharfinger(self, *command):
        config = self.work.root / "wharfinger.toml"
        return self.work.run(self.name, [self.daemon.binary, *command, "--config", config])

    def skopeo(self, source, target):
        self.work.run(self.name, [
            "skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false", "--policy", self.policy, source, target,
        ])

    def at_daemon(self, image):
        return f"docker://{self.daemon.address}/docker-hub/{image.repository}:{image.tag}"

    def copied(self, source, image):
        """Copies an image out of somewhere, and compares every byte."""
        target = self.work.fresh(self.name, "copy")
        self.skopeo(source, f"dir:{target}")
        files = [path.read_bytes() for path in target.iterdir() if path.name != "version"]
        equal("what was copied", {digest(data) for data in files}, set(image.contents()))

    def export(self):
        for image in self.images:
            self.copied(self.at_daemon(image), image)
        self.wharfinger("drill", "--fill")
        self.wharfinger("bundle", "export", self.ours)
        for image in self.images:
            reference = f"{self.ours}:docker.io/{image.repository}:{image.tag}"
            if image.top.media_type == DOCKER_MANIFEST:
                # skopeo finds Docker's own types in no OCI layout; here it unpacks the layers, and keeps the configuration.
                target = self.work.fresh(self.name, "copy")
                self.skopeo(f"docker-archive:{reference}", f"dir:{target}")
                equal("the configuration", (target / image.top.config.removeprefix("sha256:")).read_bytes(),
                      image.blobs[image.top.config])
            else:
                self.copied(f"oci-archive:{reference}", image)

    def imported_by_containerd(self):
        """ctr takes all images of our bundle, by their whole names."""
        client = Containerd(self.work, self.daemon)
        client.start()
        try:
            client.ctr("images", "import", "--no-unpack", self.ours)
            names = client.ctr("images", "list", "--quiet").split()
            wanted = {f"docker.io/{image.repository}:{image.tag}" for image in self.images}
            expect(wanted <= set(names), f"expected {sorted(wanted)}, found {sorted(names)}")
        finally:
            client.stop()

    def written_by_skopeo(self):
        image = self.contents.platforms
        self.skopeo(self.at_daemon(image), f"oci-archive:{self.theirs}:docker.io/{image.repository}:{image.tag}")

    def offline(self):
        """An empty daemon, its upstream away, takes our bundle in."""
        self.wharfinger("offline", "on")
        self.wharfinger("bundle", "import", self.ours)
        for image in self.images:
            self.copied(self.at_daemon(image), image)
        said = self.wharfinger("drill")
        expect(f"{len(self.images)} of {len(self.images)} images would survive" in said, said)

    def offline_theirs(self):
        self.wharfinger("offline", "on")
        self.wharfinger("bundle", "import", self.theirs)
        self.copied(self.at_daemon(self.contents.platforms), self.contents.platforms)
