"""Real clients push to hosted repositories, and other ones pull: what arrives is what was sent, digest by digest."""

import base64
import http.client
import io
import json
import tarfile

from containerd import Containerd
from content import digest, layer
from docker import Docker
from podman import Buildah, Podman
from process import Failure, equal, expect

HEADER = {"schemaVersion": 2}


def write_layout(folder, image):
    """An OCI layout of an image, whose name in it is its tag."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    for name, data in image.contents().items():
        (blobs / name.removeprefix("sha256:")).write_bytes(data)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    top = image.top
    entry = {"mediaType": top.media_type, "digest": top.digest, "size": len(top.data),
             "annotations": {"org.opencontainers.image.ref.name": image.tag}}
    (folder / "index.json").write_text(json.dumps({**HEADER, "manifests": [entry]}))
    return folder


class Push:
    """All of them, each into a repository of its own."""

    name = "push"
    rights = 'anonymous = ["pull"]\nadmins = ["pusher"]'
    user = ("pusher", "a password of theirs")
    reader = ("reader", "another password")

    def __init__(self, work, daemon, contents):
        self.work, self.daemon, self.contents = work, daemon, contents
        self.place = work.fresh(self.name)
        self.at = f"{daemon.address}/pushed"
        self.policy = self.place / "policy.json"
        self.policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        self.index = write_layout(self.place / "index", contents.platforms)
        self.artifact = write_layout(self.place / "artifact", contents.artifact)
        self.note = self.place / "note.txt"
        self.note.write_text("what an artifact holds\n")

    def checks(self):
        """(tools, label, callable) in the order in which they must run."""
        return [
            (("crane",), "crane without a login may not push", self.denied),
            (("crane",), "crane with a wrong password may not even pull", self.wrong),
            (("crane",), "crane with a login that may only pull hears that", self.only_pulls),
            (("curl",), "curl pushes a blob with name and password", self.curl),
            (("skopeo", "crane"), "skopeo pushes three platforms, crane pulls", self.skopeo),
            (("skopeo",), "skopeo pushes an artifact with a zero-byte blob", self.skopeo_artifact),
            (("crane", "skopeo"), "crane pushes an image, skopeo pulls", self.crane),
            (("crane", "skopeo"), "crane copies between repositories", self.crane_copies),
            (("podman", "crane"), "podman pushes what it pulled, crane pulls", self.podman),
            (("buildah", "crane"), "buildah pushes what it built, crane pulls", self.buildah),
            (("dockerd", "docker", "crane"), "docker logs in and pushes what it pulled, crane pulls", self.docker),
            (("containerd", "ctr", "skopeo"), "ctr pushes three platforms that it pulled, skopeo pulls", self.containerd),
            (("regctl", "skopeo"), "regctl pushes in chunks, skopeo pulls", self.regctl),
            (("regctl", "oras-client"), "regctl attaches an artifact, oras lists it", self.regctl_attaches),
            (("regctl", "oras-client"), "oras attaches an artifact, regctl lists it", self.oras_attaches),
            (("oras-client",), "oras copies with all that refers", self.oras_copies),
            (("cosign", "crane"), "cosign signs and verifies", self.cosign),
            (("oras-client", "regctl"), "oras pushes a chart as helm does, regctl reads it", self.chart),
            (("skopeo", "crane"), "skopeo deletes, crane finds nothing", self.deleted),
        ]

    def log_in(self):
        """All clients find their login where `docker login` and `podman login` would have put it."""
        self.daemon.add_user(*self.user)
        self.daemon.add_user(*self.reader)
        self.work.log_in(**{self.daemon.address: self.user})

    def run(self, *command, **options):
        return self.work.run(self.name, command, **options)

    def skopeo_copy(self, source, target, *options):
        self.run(
            "skopeo", "copy", "--quiet", "--all", "--policy", self.policy, "--src-tls-verify=false",
            "--dest-tls-verify=false", *options, source, target,
        )

    def pulled_by_skopeo(self, reference, image):
        target = self.work.fresh(self.name, "copy")
        self.skopeo_copy(f"docker://{reference}", f"dir:{target}")
        files = [path.read_bytes() for path in target.iterdir() if path.name != "version"]
        equal("what was copied", {digest(data) for data in files}, set(image.contents()))

    def pulled_by_crane(self, reference, image):
        equal("digest", self.run("crane", "digest", reference).strip(), image.top.digest)
        equal("manifest", self.run("crane", "manifest", reference, text=False), image.top.data)
        self.run("crane", "validate", "--remote", reference)

    def of_same_config(self, reference, config):
        """All layers of it are what its configuration says, and that is this one."""
        self.run("crane", "validate", "--remote", reference)
        equal("configuration", digest(self.run("crane", "config", reference, text=False)), config)

    def denied(self):
        nobody = str(self.work.fresh(self.name, "nobody"))
        # crane looks at podman's logins, too.
        env = {"DOCKER_CONFIG": nobody, "REGISTRY_AUTH_FILE": f"{nobody}/auth.json"}
        self.fails("UNAUTHORIZED", env, "crane", "push", self.index, f"{self.at}/denied:1")

    def wrong(self):
        layers = self.contents.layers
        self.fails("UNAUTHORIZED", self.as_user("pusher", "not it"),
                   "crane", "digest", f"{self.daemon.address}/docker-hub/{layers.repository}:1")

    def only_pulls(self):
        env, layers = self.as_user(*self.reader), self.contents.layers
        found = self.run("crane", "digest", f"{self.daemon.address}/docker-hub/{layers.repository}:1", env=env)
        equal("digest", found.strip(), layers.top.digest)
        self.fails("DENIED", env, "crane", "push", self.index, f"{self.at}/only-pulls:1")

    def as_user(self, name, password):
        """What a client is told of its logins, if this is the only one."""
        place = self.work.fresh(self.name, "as-user")
        auth = base64.b64encode(f"{name}:{password}".encode()).decode()
        (place / "config.json").write_text(json.dumps({"auths": {self.daemon.address: {"auth": auth}}}))
        # crane looks at podman's logins, too.
        return {"DOCKER_CONFIG": str(place), "REGISTRY_AUTH_FILE": f"{place}/config.json"}

    def curl(self):
        place, said = self.work.fresh(self.name, "curl"), self.note.read_bytes()
        curl = ["curl", "-sS", "--fail-with-body", "--max-time", "60", "-u", ":".join(self.user), "-o", place / "body"]
        at = f"{self.daemon.url}/v2/pushed/curl/blobs"
        where = self.run(*curl, "-X", "POST", "-w", "%{http_code} %header{location}", f"{at}/uploads/").split()
        equal("status", where[0], "202")
        mark = "&" if "?" in where[1] else "?"
        status = self.run(
            *curl, "-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", f"@{self.note}",
            "-w", "%{http_code}", f"{self.daemon.url}{where[1]}{mark}digest={digest(said)}",
        )
        equal("status", status, "201")
        self.run(*curl, f"{at}/{digest(said)}")
        equal("the blob", (place / "body").read_bytes(), said)

    def fails(self, word, env, *command):
        try:
            self.run(*command, env=env)
        except Failure as failure:
            expect(word in str(failure), str(failure))
        else:
            raise Failure(f"`{command[1]}` went well")

    def skopeo(self):
        reference = f"{self.at}/skopeo:1"
        self.skopeo_copy(f"oci:{self.index}:1", f"docker://{reference}", "--preserve-digests")
        self.pulled_by_crane(reference, self.contents.platforms)

    def skopeo_artifact(self):
        reference = f"{self.at}/skopeo-artifact:1"
        self.skopeo_copy(f"oci:{self.artifact}:1", f"docker://{reference}", "--preserve-digests")
        self.pulled_by_skopeo(reference, self.contents.artifact)

    def crane(self):
        reference = f"{self.at}/crane:1"
        self.run("crane", "push", self.index, reference)
        self.run("crane", "tag", reference, "2")
        self.pulled_by_skopeo(f"{self.at}/crane:2", self.contents.platforms)
        equal("tags", sorted(self.run("crane", "ls", f"{self.at}/crane").split()), ["1", "2"])

    def crane_copies(self):
        self.run("crane", "copy", f"{self.at}/skopeo:1", f"{self.at}/copied:1")
        self.pulled_by_skopeo(f"{self.at}/copied:1", self.contents.platforms)
        # And out of the cache.
        layers = self.contents.layers
        self.run("crane", "copy", f"{self.daemon.address}/docker-hub/{layers.repository}:1", f"{self.at}/out-of-cache:1")
        self.pulled_by_skopeo(f"{self.at}/out-of-cache:1", layers)

    def podman(self):
        client = Podman(self.work, self.daemon)
        client.start()
        image, reference = self.contents.layers, f"{self.at}/podman:1"
        client.fetch(f"docker.io/{image.repository}:1")
        file = self.place / "digest"
        client.tool("push", "--tls-verify=false", "--digestfile", file, f"docker.io/{image.repository}:1", reference)
        equal("digest", self.run("crane", "digest", reference).strip(), file.read_text().strip())
        self.of_same_config(reference, image.top.config)
        # zstd, with frames that clients fetch one by one.
        reference = f"{self.at}/podman:zstd"
        client.tool(
            "push", "--tls-verify=false", "--compression-format", "zstd:chunked", f"docker.io/{image.repository}:1",
            reference,
        )
        client.tool("rmi", "--all", "--force")
        client.tool("pull", "--quiet", "--tls-verify=false", "--signature-policy", client.place / "policy.json", reference)
        root = client.tool("image", "mount", reference).strip()
        path, wanted = image.probe
        with open(f"{root}/{path}", "rb") as found:
            equal(f"{path} in the image", found.read(), wanted)
        client.tool("image", "unmount", reference)
        client.tool("rmi", "--all", "--force")

    def buildah(self):
        client = Buildah(self.work, self.daemon)
        client.start()
        container = client.tool("from", "scratch").strip()
        reference, file = f"{self.at}/buildah:1", self.place / "digest"
        try:
            client.tool("copy", container, self.note, "/note.txt")
            client.tool("commit", "--quiet", "--signature-policy", self.policy, container, "built")
            client.tool(
                "push", "--tls-verify=false", "--signature-policy", self.policy, "--digestfile", file, "built",
                f"docker://{reference}",
            )
        finally:
            client.tool("rm", container)
        equal("digest", self.run("crane", "digest", reference).strip(), file.read_text().strip())
        with tarfile.open(fileobj=io.BytesIO(self.run("crane", "export", reference, "-", text=False))) as archive:
            equal("the file in it", archive.extractfile("note.txt").read(), self.note.read_bytes())
        client.remove("built")

    def docker(self):
        client = Docker(self.work, self.daemon)
        client.start()
        try:
            image, reference = self.contents.layers, f"{self.at}/docker:1"
            # It keeps its login itself, in a place where there was none.
            place = self.work.fresh(self.name, "docker-login")
            env = {"DOCKER_CONFIG": str(place)}
            login = ["login", "--username", self.user[0], "--password-stdin", self.daemon.address]
            try:
                client.docker(*login, env=env, said="not it")
            except Failure as failure:
                expect("unauthorized" in str(failure).lower(), str(failure))
            else:
                raise Failure("it logs in with a wrong password")
            expect("Login Succeeded" in client.docker(*login, env=env, said=self.user[1]), "it does not say so")
            kept = json.loads((place / "config.json").read_text())["auths"]
            equal("logins kept", list(kept), [self.daemon.address])
            client.docker("pull", f"{image.name}:1")
            client.docker("tag", f"{image.name}:1", reference)
            said = client.docker("push", reference, env=env)
            top = self.run("crane", "digest", reference).strip()
            expect(top in said, f"{top} is not in what it said: {said[-300:]}")
            self.of_same_config(reference, image.top.config)
            # Once more to another repository: what is here is mounted.
            client.docker("tag", reference, f"{self.at}/docker-again:1")
            client.docker("push", f"{self.at}/docker-again:1", env=env)
            equal("digest", self.run("crane", "digest", f"{self.at}/docker-again:1").strip(), top)
            client.docker("rmi", "--force", reference, f"{self.at}/docker-again:1", f"{image.name}:1")
            client.docker("pull", reference)
            shown = json.loads(client.docker("image", "inspect", reference))[0]
            equal("image id", shown["Id"], image.host.config)
        finally:
            client.stop()

    def containerd(self):
        client = Containerd(self.work, self.daemon)
        client.start()
        try:
            image, reference = self.contents.platforms, f"{self.at}/containerd:1"
            name = f"docker.io/{image.repository}:1"
            client.ctr("images", "pull", "--hosts-dir", client.hosts["ns"], "--all-platforms", name)
            login = ["--plain-http", "--user", ":".join(self.user)]
            client.ctr("images", "push", *login, reference, name)
            self.pulled_by_skopeo(reference, image)
            client.ctr("images", "push", *login, f"{self.at}/containerd-again:1", name)
            self.pulled_by_skopeo(f"{self.at}/containerd-again:1", image)
        finally:
            client.stop()

    def regctl_run(self, *command):
        self.run("regctl", "registry", "set", "--tls", "disabled", self.daemon.address)
        # Small chunks, so that larger blobs take several.
        self.run("regctl", "registry", "set", "--blob-chunk", "100000", "--blob-max", "200000", self.daemon.address)
        return self.run("regctl", *command)

    def regctl(self):
        reference = f"{self.at}/regctl:1"
        self.regctl_run("image", "copy", f"ocidir://{self.artifact}:1", reference)
        self.pulled_by_skopeo(reference, self.contents.artifact)
        self.regctl_run("image", "copy", f"ocidir://{self.index}:1", reference)
        self.pulled_by_skopeo(reference, self.contents.platforms)

    def listed_by_regctl(self, reference):
        shown = json.loads(self.regctl_run("artifact", "list", "--format", "{{json .}}", reference))
        return {each["digest"]: each["artifactType"] for each in shown["descriptors"]}

    def listed_by_oras(self, reference, *options):
        lines = self.run("oras-client", "referrers", reference, *options).splitlines()
        return dict(line.split() for line in lines)

    def regctl_attaches(self):
        reference = f"{self.at}/regctl:1"
        self.regctl_run("artifact", "put", "--artifact-type", "a/one", "-f", self.note, "--subject", reference)
        self.regctl_run("artifact", "put", "--artifact-type", "a/two", "-f", self.note, "--subject", reference)
        found = self.listed_by_oras(reference)
        equal("types", sorted(found.values()), ["a/one", "a/two"])
        equal("what regctl lists", self.listed_by_regctl(reference), found)
        equal("of one type", set(self.listed_by_oras(reference, "a/two").values()), {"a/two"})

    def oras_attaches(self):
        reference = f"{self.at}/skopeo:1"
        name = self.run("oras-client", "attach", reference, "application/vnd.wharf.note+text", self.note).strip()
        equal("what regctl lists", self.listed_by_regctl(reference), {name: "application/vnd.wharf.note+text"})
        equal("what oras lists", self.listed_by_oras(reference, "application/vnd.wharf.note+text"),
              {name: "application/vnd.wharf.note+text"})
        target = self.work.fresh(self.name, "oras")
        self.run("oras-client", "pull", f"{self.at}/skopeo@{name}", target)
        equal("the file", (target / self.note.name).read_bytes(), self.note.read_bytes())

    def oras_copies(self):
        source, target = f"{self.at}/skopeo:1", f"{self.at}/oras:1"
        self.run("oras-client", "copy", source, target)
        self.pulled_by_skopeo(target, self.contents.platforms)
        equal("what refers to it", self.listed_by_oras(target), self.listed_by_oras(source))
        equal("tags", self.run("oras-client", "tags", target).split(), ["1"])

    def cosign(self):
        reference = f"{self.at}/skopeo@{self.contents.platforms.top.digest}"
        env = {"COSIGN_PASSWORD": "wharf"}
        place = self.work.fresh(self.name, "cosign")
        key = ["--key", place / "cosign.key"]
        plain = ["--allow-http-registry"]
        self.run("cosign", "generate-key-pair", "--output-key-prefix", place / "cosign", env=env)
        verify = ["cosign", "verify", "--key", place / "cosign.pub", "--insecure-ignore-tlog=true", *plain, reference]
        try:
            self.run(*verify, env=env)
        except Failure:
            pass
        else:
            raise Failure("it verifies what nobody signed")
        # Nothing of it goes to the world's transparency log.
        self.run("cosign", "sign", "--yes", *key, "--tlog-upload=false", *plain, reference, env=env, seconds=300)
        self.run(*verify, env=env)

    def chart(self):
        """A chart as helm pushes it; where helm is installed, it pulls that one, and pushes one itself."""
        place = self.work.fresh(self.name, "helm")
        about = {"apiVersion": "v2", "name": "wharf", "version": "1.2.3", "description": "a chart"}
        files = {"wharf/Chart.yaml": json.dumps(about).encode(), "wharf/values.yaml": b"answer: 42\n"}
        packed = place / "wharf-1.2.3.tgz"
        packed.write_bytes(layer(files)[1])
        reference = f"{self.at}/wharf:1.2.3"
        name = self.run("oras-client", "chart", reference, json.dumps(about), packed).strip()
        shown = self.regctl_run("manifest", "get", "--format", "raw-body", reference)
        equal("its digest", digest(shown.encode()), name)
        equal("its layer", json.loads(shown)["layers"][0]["digest"], digest(packed.read_bytes()))
        if not self.work.which("helm"):
            return
        for _ in range(2):
            target = self.work.fresh(self.name, "helm-pulled")
            self.run(
                "helm", "pull", f"oci://{self.at}/wharf", "--version", "1.2.3", "--plain-http", "--destination", target
            )
            equal("the chart", (target / packed.name).read_bytes(), packed.read_bytes())
            self.run("helm", "push", packed, f"oci://{self.at}", "--plain-http")

    def after_restart(self):
        self.pulled_by_skopeo(f"{self.at}/skopeo:1", self.contents.platforms)
        self.pulled_by_skopeo(f"{self.at}/out-of-cache:1", self.contents.layers)

    def deleted(self):
        reference = f"{self.at}/copied:1"
        self.run("skopeo", "delete", "--tls-verify=false", f"docker://{reference}")
        equal("tags", self.run("crane", "ls", f"{self.at}/copied").split(), [])
        line = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=60)
        line.request("GET", f"/v2/pushed/copied/manifests/{self.contents.platforms.top.digest}")
        equal("status", line.getresponse().status, 404)
        line.close()
