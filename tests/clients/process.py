"""Processes, ports, folders and logs of one run of the suite, and their removal.

Everything that the suite starts goes through one `Workplace`: a temporary folder, the processes in it
(each in a process group of its own) and a log file per process. `close()` leaves nothing behind.
"""

import base64
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

# Clients fall back to the real registry when their mirror fails. Behind a proxy that nobody listens on,
# such a fallback fails at once, so that a check can only pass through the cache.
NOWHERE = "http://127.0.0.1:9"


class Failure(Exception):
    """A check did not hold; the text says what was expected and what came."""


def expect(condition, message):
    """Raises Failure(message) unless the condition holds."""
    if not condition:
        raise Failure(message)


def equal(what, found, wanted):
    """Raises Failure unless both values are equal."""
    expect(found == wanted, f"{what}: expected {wanted!r}, found {found!r}")


def free_ports(count):
    """`count` different loopback ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def tail(path, lines=15):
    """The last lines of a log, for a failure's report."""
    try:
        text = pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"    | {line[:300]}" for line in text.splitlines()[-lines:])


def wait_until(what, holds, seconds=60, process=None):
    """Polls until `holds()` is true; gives up after `seconds`, or at once when the process has ended."""
    deadline = time.monotonic() + seconds
    while not holds():
        if process is not None and process.poll() is not None:
            raise Failure(f"{what}: the process ended with status {process.returncode}")
        expect(time.monotonic() < deadline, f"{what}: not within {seconds} s")
        time.sleep(0.02)


def accepts(port):
    """Whether something listens on this loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Workplace:
    """The temporary folder of a run, and all that was started in it."""

    def __init__(self):
        # Unix socket paths end at 108 bytes: the folder's name is short.
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="whf-", dir=os.environ.get("TMPDIR", "/tmp")))
        self.logs = self.folder("logs")
        self.running = []
        home = self.folder("home")
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        # /usr/sbin: dockerd's place, not in every user's path.
        kept["PATH"] = kept.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"
        self.plain_env = {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(self.folder("xdg"))}
        self.client_env = {
            **self.plain_env,
            "DOCKER_CONFIG": str(home),
            "REGISTRY_AUTH_FILE": str(home / "auth.json"),
            "HTTPS_PROXY": NOWHERE,
            "https_proxy": NOWHERE,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        (home / "auth.json").write_text("{}")
        self.overlay = self.overlay_works()

    def overlay_works(self):
        """Whether clients can stack layers here; else they copy them, which works everywhere but is slow."""
        lower, upper, scratch, point = (self.folder("overlay", each) for each in ("lower", "upper", "work", "point"))
        options = f"lowerdir={lower},upperdir={upper},workdir={scratch}"
        command = ["mount", "-t", "overlay", "overlay", "-o", options, str(point)]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            return False
        subprocess.run(["umount", str(point)], check=True)
        return True

    def log_in(self, **users):
        """Gives all clients the logins of these addresses, (name, password), and no others."""
        auth = {
            address: {"auth": base64.b64encode(":".join(user).encode()).decode()} for address, user in users.items()
        }
        home = pathlib.Path(self.plain_env["HOME"])
        for file in ("auth.json", "config.json"):
            (home / file).write_text(json.dumps({"auths": auth}))

    def folder(self, *names):
        """A folder below the root, made when missing."""
        path = self.root.joinpath(*names)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def fresh(self, *names):
        """An empty folder below the root."""
        shutil.rmtree(self.root.joinpath(*names), ignore_errors=True)
        return self.folder(*names)

    def log(self, name):
        """Where the process or client of this name writes."""
        return self.logs / f"{name}.log"

    def which(self, tool):
        """The full path of a tool, or None."""
        return shutil.which(tool, path=self.client_env["PATH"])

    def start(self, name, command, env=None):
        """Starts a process that stays; its output goes to its log."""
        with open(self.log(name), "ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env or self.plain_env,
                cwd=self.root,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def stop(self, process, grace=20):
        """SIGTERM to the process group, SIGKILL when it has not gone after the grace period."""
        if process in self.running:
            self.running.remove(process)
        try:
            os.killpg(process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return process.wait()

    def run(self, name, command, seconds=120, env=None, text=True, said=None):
        """Runs a client to its end, with what is `said` to it, and returns what it printed; Failure when it does."""
        command = [str(part) for part in command]
        with open(self.log(name), "a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if said is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self.client_env, **(env or {})},
            cwd=self.root,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(None if said is None else said.encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Failure(f"{command[0]} did not end within {seconds} s") from None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        errors = errors.decode(errors="replace")
        with open(self.log(name), "a", encoding="utf-8") as log:
            log.write(errors)
        if process.returncode != 0:
            said = errors.strip() or output.decode(errors="replace").strip()
            last = said.splitlines()[-1] if said else ""
            raise Failure(f"`{' '.join(command)}` ended with status {process.returncode}: {last}")
        return output.decode() if text else output

    def close(self):
        """Stops what runs, newest first, unmounts what was left mounted, and removes the folder."""
        for process in reversed(list(self.running)):
            self.stop(process)
        mounts = pathlib.Path("/proc/mounts").read_text(errors="replace").splitlines()
        points = [line.split()[1] for line in mounts if line.split()[1].startswith(f"{self.root}/")]
        for point in sorted(points, key=len, reverse=True):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)
        shutil.rmtree(self.root, ignore_errors=True)
