"""The upstream: Debian's docker-registry on a loopback port, with or without a token service before it.

Its access log is the suite's witness: what it does not list, the cache did not ask for.
"""

import dataclasses
import http.client
import json
import re
import urllib.parse

import tokens
from process import accepts, expect, wait_until

ACCESS = re.compile(r'"(?P<method>[A-Z]+) (?P<path>/\S*) HTTP/[0-9.]+" (?P<status>[0-9]{3}) ')


@dataclasses.dataclass(frozen=True)
class Seen:
    """One request in the access log."""

    method: str
    path: str
    status: int

    def __str__(self):
        return f"{self.method} {self.path} -> {self.status}"


class Certificate:
    """A certificate of 127.0.0.1 that only its own holder vouches for."""

    def __init__(self, work):
        folder = work.folder("tls")
        self.key, self.certificate = folder / "key.pem", folder / "certificate.pem"
        work.run("tls", [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=wharf-tls",
            "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
            "-keyout", self.key, "-out", self.certificate,
        ])


class Upstream:
    """A docker-registry that can be stopped and started again on its port and folder."""

    def __init__(self, work, name, port, service=None, secured_by=None, content_of=None):
        self.work, self.name, self.port, self.service = work, name, port, service
        self.url = f"{'https' if secured_by else 'http'}://127.0.0.1:{port}"
        self.markers = 0
        self.process = None
        config = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(work.folder(content_of or name))}},
            "http": {"addr": f"127.0.0.1:{port}", "secret": "of one run"},
        }
        if service:
            config["auth"] = {"token": {
                "realm": service.realm, "service": tokens.SERVICE, "issuer": tokens.ISSUER,
                "rootcertbundle": str(service.certificate),
            }}
        if secured_by:
            config["http"]["tls"] = {"certificate": str(secured_by.certificate), "key": str(secured_by.key)}
        self.config = work.root / f"{name}.yml"
        self.config.write_text(json.dumps(config))  # JSON is YAML
        self.start()

    def start(self):
        self.process = self.work.start(self.name, ["docker-registry", "serve", self.config])
        wait_until(f"{self.name} listens", lambda: accepts(self.port), 30, self.process)

    def stop(self):
        if self.process:
            self.work.stop(self.process)
        self.process = None

    def push(self, image, tags=()):
        """Pushes all blobs and manifests of an image as they are, under its tag and these."""
        headers = {}
        if self.service:
            access = [{"type": "repository", "name": image.repository, "actions": ["pull", "push"]}]
            headers["Authorization"] = f"Bearer {self.service.sign(access)}"
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

        def send(method, path, wanted, body=None, kind="application/octet-stream"):
            line.request(method, path, body, {**headers, "Content-Type": kind})
            answer = line.getresponse()
            text = answer.read()
            expect(answer.status == wanted, f"{method} {path}: {answer.status} {text[:300]!r}")
            return answer.headers

        base = f"/v2/{image.repository}"
        for digest, data in image.blobs.items():
            session = urllib.parse.urlsplit(send("POST", f"{base}/blobs/uploads/", 202)["Location"])
            send("PUT", f"{session.path}?{session.query}&digest={digest}", 201, data)
        for manifest in image.manifests:
            send("PUT", f"{base}/manifests/{manifest.digest}", 201, manifest.data, manifest.media_type)
        for tag in {image.tag, *tags}:
            send("PUT", f"{base}/manifests/{tag}", 201, image.top.data, image.top.media_type)
        line.close()

    def requests(self):
        """All requests for manifests and blobs so far, in order.

        The log is written when an answer has been sent, so a marker request tells when it is complete.
        """
        self.markers += 1
        marker = f"/v2/?marker={self.markers}"
        if self.process:
            line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            line.request("GET", marker)
            line.getresponse().read()
            line.close()
            wait_until(f"{self.name}'s access log", lambda: marker in self.log())
        return [
            Seen(found["method"], found["path"], int(found["status"]))
            for found in ACCESS.finditer(self.log())
            if "/manifests/" in found["path"] or "/blobs/" in found["path"]
        ]

    def log(self):
        return self.work.log(self.name).read_text(errors="replace")


class Witness:
    """Which manifests and blobs the upstreams were asked for since the witness was made."""

    def __init__(self, *upstreams):
        self.before = [(each, len(each.requests())) for each in upstreams]

    def seen(self):
        return [request for upstream, count in self.before for request in upstream.requests()[count:]]

    def expect_nothing(self):
        """The cache answered alone."""
        seen = self.seen()
        expect(not seen, f"the upstream was asked {len(seen)} times, first {', '.join(map(str, seen[:5]))}")

    def expect_once(self):
        """No content came from the upstream twice. (401 is the challenge before the token.)"""
        paths = [each.path for each in self.seen() if each.method == "GET" and each.status < 400]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        expect(not twice, f"the upstream sent {len(twice)} things more than once, first {', '.join(twice[:3])}")
        return paths
