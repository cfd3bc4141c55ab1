"""Real clients pull private images with logins of their own at the upstream, which says who may (`caller_check`)."""

import json

import tokens
from containerd import Containerd
from docker import Docker
from process import Failure, equal, expect

UPSTREAM = "checked"


class Callers:
    """The private image of the registry behind tokens, to those whom its token service lets pull it."""

    name = "callers"

    def __init__(self, work, daemon, contents):
        self.work, self.daemon, self.contents = work, daemon, contents
        self.place = work.fresh(self.name)
        self.policy = self.place / "policy.json"
        self.policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        self.image = contents.private
        self.reference = f"{daemon.address}/{UPSTREAM}/{self.image.repository}:{self.image.tag}"

    def checks(self):
        """(tools, label, callable) in order: who may not comes first, and again when it is all here."""
        refused = [
            (("crane",), "crane without a login is asked for one", self.nobody),
            (("crane",), "crane with a login that may not finds nothing", self.stranger),
            (("skopeo",), "skopeo with a wrong password is refused", self.wrong),
            (("dockerd", "docker"), "docker login with a wrong password fails", self.docker_refused),
            (("containerd", "ctr"), "containerd without the upstream's login gets nothing", self.containerd_refused),
        ]
        taken = [
            (("skopeo",), "skopeo pulls with a login there", self.skopeo),
            (("crane",), "crane pulls with a login there", self.crane),
            (("podman",), "podman logs in with a login there, and pulls", self.podman),
            (("dockerd", "docker"), "docker logs in with a login there, and pulls", self.docker),
            (("containerd", "ctr"), "containerd pulls with the upstream's own login at the mirror door", self.containerd),
        ]
        again = [(tools, f"{label}, with all of it here", act) for tools, label, act in refused]
        return [*refused, *taken, *again]

    def run(self, *command, **options):
        return self.work.run(self.name, command, **options)

    def fails(self, word, act):
        try:
            act()
        except Failure as failure:
            expect(word in str(failure).lower(), str(failure))
        else:
            raise Failure("it went well")

    def logged_in(self, name, password):
        self.work.log_in(**{self.daemon.address: (f"{UPSTREAM}/{name}", password)})

    def crane_digest(self):
        return self.run("crane", "digest", self.reference).strip()

    def nobody(self):
        self.work.log_in()
        self.fails("unauthorized", self.crane_digest)

    def stranger(self):
        self.logged_in(*tokens.STRANGER)
        self.fails("name_unknown", lambda: self.run("crane", "manifest", self.reference))

    def wrong(self):
        self.logged_in(tokens.FRIEND[0], "not it")
        self.fails("unauthorized", self.skopeo_copies)

    def skopeo_copies(self):
        target = self.work.fresh(self.name, "copy")
        self.run(
            "skopeo", "copy", "--quiet", "--all", "--policy", self.policy, "--src-tls-verify=false",
            f"docker://{self.reference}", f"dir:{target}",
        )
        equal("the manifest", (target / "manifest.json").read_bytes(), self.image.top.data)

    def skopeo(self):
        self.logged_in(*tokens.FRIEND)
        self.skopeo_copies()

    def crane(self):
        self.logged_in(*tokens.FRIEND)
        equal("digest", self.crane_digest(), self.image.top.digest)
        self.run("crane", "validate", "--remote", self.reference)

    def podman(self):
        self.work.log_in()
        name, password = tokens.FRIEND
        store = self.work.fresh(self.name, "podman")
        options = ["--root", store / "root", "--runroot", store / "run", "--storage-driver", "vfs"]
        self.run(
            "podman", *options, "login", "--tls-verify=false", "--username", f"{UPSTREAM}/{name}", "--password-stdin",
            self.daemon.address, said=password,
        )
        self.run("podman", *options, "pull", "--quiet", "--tls-verify=false", self.reference)

    def with_docker(self, act):
        docker = Docker(self.work, self.daemon)
        docker.start()
        try:
            act(docker)
        finally:
            docker.stop()

    def docker_login(self, docker, name, password):
        docker.docker(
            "login", "--username", f"{UPSTREAM}/{name}", "--password-stdin", self.daemon.address, said=password,
        )

    def docker_refused(self):
        self.work.log_in()
        name, _ = tokens.FRIEND
        self.with_docker(lambda docker: self.fails("unauthorized", lambda: self.docker_login(docker, name, "not it")))

    def docker(self):
        self.work.log_in()

        def pulls(docker):
            self.docker_login(docker, *tokens.FRIEND)
            docker.docker("pull", "--quiet", self.reference)

        self.with_docker(pulls)

    def ctr_pulls(self, *login):
        containerd = Containerd(self.work, self.daemon)
        containerd.start()
        try:
            hosts = self.work.fresh(self.name, "hosts")
            folder = hosts / "checked.example"
            folder.mkdir(parents=True)
            (folder / "hosts.toml").write_text(f"""
server = "{self.daemon.mirror_url}"
[host."{self.daemon.mirror_url}"]
capabilities = ["pull", "resolve"]
""")
            reference = f"checked.example/{self.image.repository}:{self.image.tag}"
            snapshotter = "overlayfs" if self.work.overlay else "native"
            containerd.ctr("images", "pull", "--hosts-dir", hosts, "--snapshotter", snapshotter, *login, reference)
            listed = [line.split() for line in containerd.ctr("images", "ls").splitlines()[1:]]
            equal("images", [(line[0], line[2]) for line in listed], [(reference, self.image.top.digest)])
        finally:
            containerd.stop()

    def containerd(self):
        self.ctr_pulls("--user", ":".join(tokens.FRIEND))

    def containerd_refused(self):
        self.fails("", self.ctr_pulls)
        self.fails("not found", lambda: self.ctr_pulls("--user", ":".join(tokens.STRANGER)))
