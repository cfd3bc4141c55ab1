"""Real clients over TLS: they trust the certificate that the daemon made for itself, and pull by it."""

import json

from content import digest
from daemon import Daemon
from process import Failure, equal, expect


class SecuredDaemon(Daemon):
    """The daemon with a certificate of its own making, over the plain registry."""

    options = ("--tls-self-signed",)
    rights = 'anonymous = ["pull"]\nadmins = ["pusher"]'

    def __init__(self, work, binary, ports, plain):
        super().__init__(work, binary, ports)
        self.plain = plain
        self.url = f"https://{self.address}"
        self.certificate = work.root / "data" / "tls" / "self-signed.pem"

    def upstreams(self):
        return f'[upstream.docker-hub]\nurl = "{self.plain.url}"\n'


class MutualDaemon(SecuredDaemon):
    """The daemon with a certificate that it was given, which lets a client push by the client's."""

    options = ()
    rights = 'anonymous = ["pull"]\nadmins = ["certificate/machine"]'

    def __init__(self, work, binary, ports, plain, own):
        super().__init__(work, binary, ports, plain)
        self.certificate, self.key, self.clients = own.certificate, own.key, ClientCertificates(work)

    def upstreams(self):
        return f"""
[server.tls]
cert_file = "{self.certificate}"
key_file = "{self.key}"
client_ca_file = "{self.clients.authority}"
client_auth = "optional"

{super().upstreams()}
"""


class ClientCertificates:
    """An authority, and the certificate of a client that it signed."""

    def __init__(self, work):
        folder = work.folder("tls-clients")
        self.authority, self.certificate, self.key = (folder / name for name in ("ca.pem", "client.pem", "client.key"))
        request = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
        authority_key = folder / "ca.key"
        work.run("tls", [
            *request, "-x509", "-days", "2", "-subj", "/CN=wharf-clients", "-keyout", authority_key, "-out", self.authority,
        ])
        work.run("tls", [*request, "-subj", "/CN=machine", "-keyout", self.key, "-out", folder / "client.csr"])
        # Without an extension it would be of X.509's first version, which nobody takes any more.
        (folder / "extensions").write_text("extendedKeyUsage = clientAuth\n")
        work.run("tls", [
            "openssl", "x509", "-req", "-days", "2", "-in", folder / "client.csr", "-CA", self.authority,
            "-CAkey", authority_key, "-CAcreateserial", "-extfile", folder / "extensions", "-out", self.certificate,
        ])


class Secured:
    """curl, skopeo, crane and others against it."""

    name = "tls"

    def __init__(self, work, daemon, contents):
        self.work, self.daemon, self.contents = work, daemon, contents

    def run(self, *command, **options):
        return self.work.run(self.name, command, **options)

    def checks(self):
        """(tool, label, callable) in order."""
        return [
            ("curl", "gets a blob over HTTP/2", lambda: self.curl("--http2", "2")),
            ("curl", "gets a blob over HTTP/1.1", lambda: self.curl("--http1.1", "1.1")),
            ("curl", "does not trust it unasked", self.curl_distrusts),
            ("skopeo", "copies an index with --src-cert-dir", self.skopeo),
            ("crane", "pulls with SSL_CERT_FILE", self.crane),
            ("dxf", "logs in, pushes a blob and pulls it", self.dxf),
        ]

    def curl(self, option, version):
        image = self.contents.layers
        name = max(image.blobs, key=lambda name: len(image.blobs[name]))
        target = self.work.fresh(self.name, "curl") / "blob"
        said = self.run(
            "curl", "-sS", "--max-time", "60", option, "--cacert", self.daemon.certificate, "-o", target,
            "-w", "%{http_version} %{http_code}", f"{self.daemon.url}/v2/docker-hub/{image.repository}/blobs/{name}",
        )
        equal("protocol and status", said.split(), [version, "200"])
        equal("the blob", digest(target.read_bytes()), name)

    def curl_distrusts(self):
        try:
            self.run("curl", "-sS", "--max-time", "60", f"{self.daemon.url}/v2/")
        except Failure as failure:
            expect("status 60" in str(failure), str(failure))  # CURLE_PEER_FAILED_VERIFICATION
            return
        raise Failure("a certificate that nobody vouches for was trusted")

    def skopeo(self):
        folder = self.work.fresh(self.name, "certs")
        (folder / "ca.crt").write_bytes(self.daemon.certificate.read_bytes())
        policy = folder.parent / "policy.json"
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        target = self.work.fresh(self.name, "copy")
        image = self.contents.platforms
        self.run(
            "skopeo", "copy", "--quiet", "--all", "--src-cert-dir", folder, "--policy", policy,
            f"docker://{self.daemon.address}/docker-hub/{image.repository}:{image.tag}", f"dir:{target}",
        )
        files = [path.read_bytes() for path in target.iterdir() if path.name != "version"]
        equal("what was copied", {digest(data) for data in files}, set(image.contents()))

    def skopeo_pushes(self):
        folder = self.work.fresh(self.name, "certs")
        (folder / "ca.crt").write_bytes(self.daemon.certificate.read_bytes())
        policy = folder.parent / "policy.json"
        image = self.contents.platforms
        source = f"docker://{self.daemon.address}/docker-hub/{image.repository}:{image.tag}"
        target = f"docker://{self.daemon.address}/pushed/by-certificate:1"
        copy = [
            "skopeo", "copy", "--quiet", "--all", "--policy", policy, "--src-cert-dir", folder, "--dest-cert-dir", folder,
            source, target,
        ]
        try:
            self.run(*copy)
        except Failure as failure:
            expect("unauthorized" in str(failure) or "authentication required" in str(failure), str(failure))
        else:
            raise Failure("it pushes without a certificate")
        (folder / "client.cert").write_bytes(self.daemon.clients.certificate.read_bytes())
        (folder / "client.key").write_bytes(self.daemon.clients.key.read_bytes())
        self.run(*copy)
        raw = self.run("skopeo", "inspect", "--raw", "--cert-dir", folder, target, text=False)
        equal("the manifest", digest(raw), image.top.digest)

    def regctl_pushes(self):
        """By another library than skopeo's. (crane knows no certificates of clients, dockerd none for loopback addresses.)"""
        image, to = self.contents.platforms, f"{self.daemon.address}/pushed/by-certificate"
        source = f"{self.daemon.address}/docker-hub/{image.repository}:{image.tag}"
        # It takes texts, not files.
        trust = ["regctl", "registry", "set", "--skip-check", "--tls", "enabled", "--cacert",
                 self.daemon.certificate.read_text()]
        self.run(*trust, self.daemon.address)
        copy = ["regctl", "image", "copy", source]
        try:
            self.run(*copy, f"{to}:2")
        except Failure as failure:
            expect("unauthorized" in str(failure).lower(), str(failure))
        else:
            raise Failure("it pushes without a certificate")
        clients = self.daemon.clients
        self.run(*trust, "--client-cert", clients.certificate.read_text(), "--client-key", clients.key.read_text(),
                 self.daemon.address)
        self.run(*copy, f"{to}:2")
        found = self.run("regctl", "manifest", "head", f"{to}:2").strip()
        equal("digest", found, image.top.digest)

    def crane(self):
        # To loopback addresses it would speak plain http as well, but it tries https first.
        image = self.contents.tree
        reference = f"{self.daemon.address}/docker-hub/{image.repository}:{image.tag}"
        env = {"SSL_CERT_FILE": str(self.daemon.certificate)}
        equal("digest", self.run("crane", "digest", reference, env=env).strip(), image.top.digest)
        self.run("crane", "validate", "--remote", reference, env=env)

    def dxf(self):
        # It shows a password over TLS alone.
        user, password = "pusher", "a password of theirs"
        self.daemon.add_user(user, password)
        env = {
            "DXF_HOST": self.daemon.address, "DXF_TLSVERIFY": str(self.daemon.certificate),
            "DXF_USERNAME": user, "DXF_PASSWORD": password,
        }
        data = max(self.contents.artifact.blobs.values(), key=len)
        file = self.work.fresh(self.name, "dxf") / "data"
        file.write_bytes(data)
        name = self.run("dxf", "push-blob", "pushed/dxf", file, env=env).strip()
        equal("its name", name, digest(data))
        got = self.run(
            "curl", "-sS", "--fail", "--cacert", self.daemon.certificate, f"{self.daemon.url}/v2/pushed/dxf/blobs/{name}",
            text=False,
        )
        expect(got == data, "curl got other bytes")
        self.run("dxf", "set-alias", "pushed/dxf", "v1", name, env=env)
        equal("its alias", self.run("dxf", "get-alias", "pushed/dxf", "v1", env=env).split(), [name])
        equal("aliases", self.run("dxf", "list-aliases", "pushed/dxf", env=env).split(), ["v1"])
        expect(self.run("dxf", "pull-blob", "pushed/dxf", name, env=env, text=False) == data, "dxf got other bytes")
        env["DXF_PASSWORD"] = "another one"
        file.write_bytes(b"what is not there yet")
        try:
            self.run("dxf", "push-blob", "pushed/dxf", file, env=env)
        except Failure as failure:
            expect("401" in str(failure) or "nauthorized" in str(failure), str(failure))
        else:
            raise Failure("a wrong password pushes")
