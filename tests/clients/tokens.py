"""A token service after the Docker token specification, as Debian's docker-registry accepts it.

RS256, signed by the `openssl` command, with the certificate in `x5c`. Everybody may pull `public/...`; the user and
the friend may pull everything, the stranger no more than everybody. Tokens with fewer rights than asked for are no error, as the specification says.
"""

import base64
import http.server
import json
import subprocess
import threading
import time
import urllib.parse

ISSUER = "wharf-tokens"
SERVICE = "wharf-registry"
USER = "puller"
PASSWORD = "a secret, with: colon"
FRIEND = ("friend", "a friend's secret")
STRANGER = ("stranger", "a stranger's secret")
USERS = dict([(USER, PASSWORD), FRIEND, STRANGER])


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenService:
    """The service on a port of its own; `grants` records who was given what."""

    def __init__(self, work, port):
        self.port = port
        self.realm = f"http://127.0.0.1:{port}/token"
        folder = work.folder("tokens")
        self.key = folder / "key.pem"
        self.certificate = folder / "certificate.pem"
        work.run("tokens", [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=wharf-tokens",
            "-keyout", self.key, "-out", self.certificate,
        ])
        self.chain = ["".join(self.certificate.read_text().split("-----")[2].split())]
        self.grants = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                service.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def sign(self, access, user=""):
        """A token for these access entries, valid for five minutes."""
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": user, "aud": SERVICE, "jti": str(time.monotonic_ns()),
            "nbf": now - 10, "iat": now, "exp": now + 300, "access": access,
        }
        header = {"typ": "JWT", "alg": "RS256", "x5c": self.chain}
        text = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.key], input=text.encode(), capture_output=True, check=True
        )
        return f"{text}.{encoded(signed.stdout)}"

    def answer(self, request):
        """One GET of the realm."""
        url = urllib.parse.urlsplit(request.path)
        query = urllib.parse.parse_qs(url.query)
        kind, _, proof = request.headers.get("Authorization", "").partition(" ")
        user = ""
        if kind:
            user, _, password = base64.b64decode(proof).decode().partition(":") if kind.lower() == "basic" else ("", "", "")
            if not user or USERS.get(user) != password:
                return self.reply(request, 401, {"details": "incorrect username or password"})
        if url.path != "/token" or query.get("service") != [SERVICE]:
            return self.reply(request, 400, {"details": "unknown service"})
        access = []
        for scope in " ".join(query.get("scope", [])).split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            if kind == "repository" and "pull" in actions.split(",") and (name.startswith("public/") or user not in ("", STRANGER[0])):
                access.append({"type": kind, "name": name, "actions": ["pull"]})
        self.grants.append((user, [each["name"] for each in access]))
        return self.reply(request, 200, {"token": self.sign(access, user), "expires_in": 300})

    @staticmethod
    def reply(request, status, body):
        data = json.dumps(body).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
