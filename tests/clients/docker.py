"""dockerd with the cache as its registry mirror, on the main door and on the mirror door.

A dockerd of our own, with its containerd, in the run's folder; it touches no network settings.
"""

import io
import json
import os
import pathlib
import signal
import tarfile

from client import Client, Route, by_digest, by_tag
from process import Failure, equal, expect, wait_until


class Docker(Client):
    """dockerd whose mirror is the main door; it can name everything else by prefix."""

    name = "dockerd"
    tools = ("dockerd", "docker", "containerd")
    needs_root = True

    def mirror(self):
        return self.daemon.url

    def start(self):
        self.place = self.work.fresh(self.name)
        self.socket = self.place / "docker.sock"
        self.exec_root = self.place / "exec"
        (self.place / "daemon.json").write_text("{}")
        self.process = self.work.start(self.name, [
            "dockerd",
            "--config-file", self.place / "daemon.json",
            "--registry-mirror", self.mirror(),
            "--host", f"unix://{self.socket}",
            "--data-root", self.place / "data",
            "--exec-root", self.exec_root,
            "--pidfile", self.place / "docker.pid",
            "--storage-driver", "overlay2" if self.work.overlay else "vfs",
            "--iptables=false", "--ip6tables=false", "--bridge=none",
        ], env=self.work.client_env)

        def answers():
            try:
                return bool(self.docker("version", "--format", "{{.Server.Version}}", seconds=20))
            except Failure:
                return False

        wait_until("dockerd answers", answers, 60, self.process)

    def stop(self):
        self.work.stop(self.process)
        # dockerd ends its containerd itself, unless it was killed.
        try:
            pid = int((self.exec_root / "containerd" / "containerd.pid").read_text())
            if "containerd" in pathlib.Path(f"/proc/{pid}/comm").read_text():
                os.kill(pid, signal.SIGKILL)
        except (OSError, ValueError):
            pass

    def docker(self, *command, **options):
        return self.run("docker", "--host", f"unix://{self.socket}", *command, **options)

    def routes(self, contents):
        prefix = self.daemon.address
        return [
            Route("many layers, by tag", by_tag("wharf-layers", contents.layers), contents.layers),
            Route("three platforms, by tag", by_tag("wharf-platforms", contents.platforms), contents.platforms),
            Route("file tree, by tag", by_tag("wharf-tree", contents.tree), contents.tree),
            Route("three platforms, by digest", by_digest("wharf-platforms", contents.platforms), contents.platforms),
            Route(
                "many layers, by prefix",
                by_tag(f"{prefix}/docker-hub/library/wharf-layers", contents.layers),
                contents.layers,
            ),
            Route(
                "behind tokens, with credentials",
                by_tag(f"{prefix}/tokened/private/wharf-app", contents.private),
                contents.private,
            ),
            Route(
                "behind tokens, anonymously",
                by_tag(f"{prefix}/anonymous/public/wharf-open", contents.public),
                contents.public,
            ),
        ]

    def pull(self, route):
        image, reference = route.image, route.reference
        self.docker("pull", reference)
        shown = json.loads(self.docker("image", "inspect", reference))[0]
        equal("image id", shown["Id"], image.host.config)
        digests = [each.rpartition("@")[2] for each in shown["RepoDigests"]]
        expect(image.top.digest in digests, f"{image.top.digest} is not among {digests}")
        container = self.docker("create", "--network", "none", reference).strip()
        path, wanted = image.probe
        with tarfile.open(fileobj=io.BytesIO(self.docker("cp", f"{container}:/{path}", "-", text=False))) as archive:
            found = archive.extractfile(archive.getmembers()[0]).read()
        equal(f"{path} in the container", found, wanted)
        self.docker("rm", container)
        self.docker("rmi", "--force", reference)
        equal("images left", self.docker("images", "--all", "--quiet").split(), [])


class DockerMirrorDoor(Docker):
    """dockerd whose mirror is the mirror door: names of Docker Hub alone."""

    name = "dockerd-mirror-door"

    def mirror(self):
        return self.daemon.mirror_url

    def routes(self, contents):
        return super().routes(contents)[:4]
