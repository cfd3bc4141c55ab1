"""curl: what the image clients do not show. Ranges, headers, all the ways to ask, errors, hang-ups, herds.

These checks go from cold to warm on one data folder, so their order matters.
"""

import json
import subprocess
import time

from content import DOCKER_MANIFEST, OCI_INDEX, digest
from process import equal, expect, wait_until
from registry import Witness


class Answer:
    """One HTTP answer as curl saw it."""

    def __init__(self, head, body):
        lines = head.replace("\r", "").strip().split("\n\n")[-1].splitlines()
        self.status = int(lines[0].split()[1])
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self.body = body

    def header(self, name):
        return self.headers.get(name.lower(), "")


class Plain:
    """All checks by curl."""

    name = "curl"
    tools = ("curl",)
    needs_root = False

    def __init__(self, work, daemon, upstream, contents):
        self.work, self.daemon, self.upstream, self.contents = work, daemon, upstream, contents

    def ask(self, path, *options, base=None):
        """Asks the main door (or `base`) for a path."""
        head, body = self.work.root / "head", self.work.root / "body"
        body.write_bytes(b"")
        url = f"{base or self.daemon.url}{path}"
        self.work.run("curl", ["curl", "-sS", "--max-time", "60", *options, "-D", head, "-o", body, url])
        return Answer(head.read_text(), body.read_bytes())

    def checks(self):
        """(name, callable) in the order in which they must run."""
        return [
            ("says hello without a challenge", self.hello),
            ("HEAD of a manifest never seen", self.head_manifest),
            ("HEAD of a blob never seen", self.head_blob),
            ("range of a blob never seen", self.cold_range),
            ("ranges of every form", self.ranges),
            ("range beyond the end", self.range_beyond),
            ("zero-byte blob", self.zero_bytes),
            ("same image by every way to ask", self.ways),
            ("prefix and ns together", self.prefix_and_ns),
            ("ns of a registry that is not configured", self.unknown_ns),
            ("mirror door knows no prefixes", self.mirror_door),
            ("a tag that is not there", self.unknown_tag),
            ("malformed names and digests", self.malformed),
            ("private content stays hidden from the anonymous upstream", self.private),
            ("an upstream over TLS, by its certificate alone", self.secured),
            ("push is refused", self.push),
            ("tags with pages", self.tags),
            ("referrers of an image without any", self.referrers),
            ("a hang-up does not end the download", self.hang_up),
            ("20 clients at once cost one download", self.herd),
            ("warm answers say hit", self.warm),
        ]

    def blob(self, image, name, prefix="docker-hub"):
        return f"/v2/{prefix}/{image.repository}/blobs/{name}"

    def manifest(self, image, prefix="docker-hub", reference=None):
        return f"/v2/{prefix}/{image.repository}/manifests/{reference or image.tag}"

    def hello(self):
        for base in (self.daemon.url, self.daemon.mirror_url):
            answer = self.ask("/v2/", base=base)
            equal("status", answer.status, 200)
            equal("challenge", answer.header("WWW-Authenticate"), "")

    def head_manifest(self):
        image = self.contents.platforms
        answer = self.ask(self.manifest(image), "--head")
        equal("status", answer.status, 200)
        equal("digest", answer.header("Docker-Content-Digest"), image.top.digest)
        equal("type", answer.header("Content-Type"), OCI_INDEX)
        equal("length", answer.header("Content-Length"), str(len(image.top.data)))

    def head_blob(self):
        image = self.contents.layers
        name = image.top.layers[7]
        answer = self.ask(self.blob(image, name), "--head")
        equal("status", answer.status, 200)
        equal("length", answer.header("Content-Length"), str(len(image.blobs[name])))

    def expect_part(self, path, data, wanted, first, last):
        answer = self.ask(path, "--range", wanted)
        equal(f"status for {wanted}", answer.status, 206)
        equal(f"Content-Range for {wanted}", answer.header("Content-Range"), f"bytes {first}-{last}/{len(data)}")
        expect(answer.body == data[first : last + 1], f"the bytes of {wanted} are not those of the blob")

    def cold_range(self):
        image = self.contents.artifact
        name = image.top.layers[1]
        self.expect_part(self.blob(image, name), image.blobs[name], "1000000-1000999", 1000000, 1000999)

    def ranges(self):
        image = self.contents.artifact
        name = image.top.layers[1]
        path, data = self.blob(image, name), image.blobs[name]
        end = len(data) - 1
        self.expect_part(path, data, "0-0", 0, 0)
        self.expect_part(path, data, "3000000-", 3000000, end)
        self.expect_part(path, data, "-500", end - 499, end)
        self.expect_part(path, data, f"{end - 9}-{end + 1}", end - 9, end)

    def range_beyond(self):
        image = self.contents.artifact
        name = image.top.layers[1]
        size = len(image.blobs[name])
        answer = self.ask(self.blob(image, name), "--range", f"{size}-{size + 10}")
        equal("status", answer.status, 416)
        equal("Content-Range", answer.header("Content-Range"), f"bytes */{size}")

    def zero_bytes(self):
        answer = self.ask(self.blob(self.contents.artifact, digest(b"")))
        equal("status", answer.status, 200)
        equal("length", answer.header("Content-Length"), "0")
        equal("body", answer.body, b"")

    def ways(self):
        image = self.contents.layers
        end = f"{image.repository}/manifests/{image.tag}"
        short = f"{image.name}/manifests/{image.tag}"
        for base, path in [
            (self.daemon.url, f"/v2/docker-hub/{end}"),
            (self.daemon.url, f"/v2/docker-hub/{short}"),
            (self.daemon.url, f"/v2/docker.io/{end}"),
            (self.daemon.url, f"/v2/index.docker.io/{end}"),
            (self.daemon.url, f"/v2/{end}?ns=docker.io"),
            (self.daemon.url, f"/v2/{end}"),
            (self.daemon.url, f"/docker.io/v2/{end}"),
            (self.daemon.url, f"/mirror/v2/{end}"),
            (self.daemon.mirror_url, f"/v2/{end}"),
            (self.daemon.mirror_url, f"/v2/{end}?ns=docker.io"),
        ]:
            answer = self.ask(path, base=base)
            equal(f"status of {path}", answer.status, 200)
            equal(f"type by {path}", answer.header("Content-Type"), DOCKER_MANIFEST)
            equal(f"manifest by {path}", answer.body, image.top.data)
            if "ns=" in path:
                equal(f"OCI-Namespace by {path}", answer.header("OCI-Namespace"), "docker.io")

    def prefix_and_ns(self):
        image = self.contents.layers
        answer = self.ask(self.manifest(image, "docker.io") + "?ns=docker.io")
        equal("status", answer.status, 200)
        equal("manifest", answer.body, image.top.data)

    def expect_error(self, answer, statuses, codes=()):
        expect(answer.status in statuses, f"expected status {statuses}, found {answer.status}")
        equal("challenge", answer.header("WWW-Authenticate"), "")
        code = json.loads(answer.body)["errors"][0]["code"]
        expect(not codes or code in codes, f"expected code {codes}, found {code}")

    def unknown_ns(self):
        image = self.contents.layers
        witness = Witness(self.upstream)
        for host in ("unknown.example", "127.0.0.1", f"127.0.0.1:{self.upstream.port}", "169.254.169.254"):
            answer = self.ask(f"/v2/{image.repository}/manifests/{image.tag}?ns={host}")
            self.expect_error(answer, (404,), ("NAME_UNKNOWN", "MANIFEST_UNKNOWN"))
        witness.expect_nothing()

    def mirror_door(self):
        image = self.contents.public
        path = f"/v2/anonymous/{image.repository}/manifests/{image.tag}"
        equal("status on the main door", self.ask(path).status, 200)
        self.expect_error(self.ask(path, base=self.daemon.mirror_url), (404,))
        self.expect_error(self.ask(f"/mirror{path}"), (404,))

    def unknown_tag(self):
        for path in ("/v2/docker-hub/library/wharf-layers/manifests/none", "/v2/library/wharf-none/manifests/1"):
            self.expect_error(self.ask(path), (404,), ("NAME_UNKNOWN", "MANIFEST_UNKNOWN"))

    def malformed(self):
        for path in (
            "/v2/docker-hub/library/UPPER/manifests/1",
            "/v2/docker-hub/library/wharf-layers/blobs/sha256:short",
            "/v2/docker-hub/library/wharf-layers/manifests/sha256:../../x",
            "/v2/docker-hub/../../etc/manifests/1",
            "/v2/docker-hub/library/wharf-layers/nothing/1",
        ):
            answer = self.ask(path, "--path-as-is")
            expect(400 <= answer.status < 500, f"{path}: {answer.status}")

    def private(self):
        image = self.contents.private
        answer = self.ask(self.manifest(image, "anonymous"))
        self.expect_error(answer, (404,), ("NAME_UNKNOWN", "MANIFEST_UNKNOWN"))
        equal("status by the upstream with credentials", self.ask(self.manifest(image, "tokened")).status, 200)
        # Now that the cache holds it, the way without credentials must still not lead to it.
        by_digest = self.manifest(image, "anonymous", image.top.digest)
        self.expect_error(self.ask(by_digest), (404,))
        self.expect_error(self.ask(self.blob(image, image.top.layers[0], "anonymous")), (404,))

    def secured(self):
        image = self.contents.artifact
        name = image.top.layers[1]
        for prefix in ("secured", "insecure"):
            answer = self.ask(self.manifest(image, prefix))
            equal(f"status by {prefix}", answer.status, 200)
            equal(f"manifest by {prefix}", answer.body, image.top.data)
            answer = self.ask(self.blob(image, name, prefix))
            expect(answer.body == image.blobs[name], f"the blob by {prefix} is not that of the upstream")
        self.expect_error(self.ask(self.manifest(image, "untrusted")), (502, 503))

    def push(self):
        name = f"docker-hub/{self.contents.layers.repository}"
        answer = self.ask(f"/v2/{name}/blobs/uploads/", "--request", "POST")
        self.expect_error(answer, (405,), ("UNSUPPORTED",))
        answer = self.ask(f"/v2/{name}/manifests/1", "--request", "PUT", "--data", "{}")
        self.expect_error(answer, (405,), ("UNSUPPORTED",))

    def tags(self):
        path = f"/v2/docker-hub/{self.contents.paged.repository}/tags/list?n=2"
        found = []
        for _ in range(10):
            answer = self.ask(path)
            equal("status", answer.status, 200)
            page = json.loads(answer.body)
            equal("name", page["name"], f"docker-hub/{self.contents.paged.repository}")
            found += page["tags"]
            link = answer.header("Link")
            if not link:
                break
            path = link.partition("<")[2].partition(">")[0].removeprefix(self.daemon.url)
            expect(path.startswith("/v2/docker-hub/"), f"the Link leads elsewhere: {link}")
        # Debian's registry knows neither pages nor order; the answer may be its own.
        equal("tags", sorted(found), ["1", "2", "3", "4", "5"])

    def referrers(self):
        image = self.contents.layers
        answer = self.ask(f"/v2/docker-hub/{image.repository}/referrers/{image.top.digest}")
        equal("status", answer.status, 200)
        equal("type", answer.header("Content-Type"), OCI_INDEX)
        equal("manifests", json.loads(answer.body)["manifests"], [])

    def hang_up(self):
        image = self.contents.tree
        name = max(image.top.layers, key=lambda each: len(image.blobs[each]))
        witness = Witness(self.upstream)
        url, target = self.daemon.url + self.blob(image, name), self.work.root / "part"
        process = self.work.start("curl", ["curl", "-sS", "--limit-rate", "200K", "-o", target, url])
        wait_until("the first bytes", lambda: target.exists() and target.stat().st_size > 0, 30, process)
        self.work.stop(process)
        answer = self.ask(self.blob(image, name))
        expect(answer.body == image.blobs[name], "the blob is not that of the upstream")
        equal("downloads", sum(request.method == "GET" for request in witness.seen()), 1)

    def herd(self):
        image = self.contents.tree
        name = min(image.top.layers, key=lambda each: len(image.blobs[each]))
        witness = Witness(self.upstream)
        targets = [self.work.folder("herd") / str(number) for number in range(20)]
        url = self.daemon.url + self.blob(image, name)
        processes = [self.work.start("curl", ["curl", "-sS", "--fail", "-o", target, url]) for target in targets]
        for process in processes:
            equal("curl's status", process.wait(120), 0)
            self.work.running.remove(process)
        for target in targets:
            expect(target.read_bytes() == image.blobs[name], "a client has other bytes than the upstream")
        equal("downloads", sum(request.method == "GET" for request in witness.seen()), 1)

    def warm(self):
        image = self.contents.tree
        self.ask(self.manifest(image))
        witness = Witness(self.upstream)
        for path in (self.manifest(image), self.manifest(image, reference=image.top.digest),
                     self.blob(image, image.top.layers[0])):
            answer = self.ask(path)
            equal("status", answer.status, 200)
            said = answer.header("Cache-Status")
            expect(said.startswith("wharfinger") and "hit" in said, f"Cache-Status of {path}: {said!r}")
        witness.expect_nothing()

    def stale(self):
        """After a restart with tags that expire at once, and without the upstream."""
        image = self.contents.tree
        time.sleep(1.1)  # the tag's time to live
        answer = self.ask(self.manifest(image))
        equal("status", answer.status, 200)
        equal("manifest", answer.body, image.top.data)
        said = answer.header("Cache-Status")
        expect("stale" in said, f"Cache-Status: {said!r}")
        answer = self.ask(self.blob(image, image.top.layers[0]))
        expect(answer.body == image.blobs[image.top.layers[0]], "the blob is not that of the upstream")
