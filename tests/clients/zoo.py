"""The zoo: scripted registries with the manners of the real ones, which the tests' binary keeps open (see
`tests/it/support/zoo`), and a daemon that pulls through each of them."""

import dataclasses
import http.client
import json
import urllib.parse

import content
from daemon import Daemon
from process import equal, expect, wait_until

# More than there are registries: each has an image that no other has.
IMAGES = 16


@dataclasses.dataclass(frozen=True)
class Animal:
    """A registry: its prefix in the daemon's configuration, its host name, and the image that it holds."""

    prefix: str
    host: str
    image: content.Image

    @property
    def tagged(self):
        return f"{self.image.repository}:{self.image.tag}"


class Zoo:
    """All registries, in a process of their own."""

    name = "zoo"

    def __init__(self, work, binary):
        self.work = work
        folder = work.fresh(self.name)
        images = [content.index_image("zoo/image", f"zoo {number}") for number in range(IMAGES)]
        for image in images:
            for digest, data in image.contents().items():
                (folder / digest).write_bytes(data)
        (folder / "images.json").write_text(json.dumps([listed(image) for image in images]))
        test = "zoo::stays_open_for_real_clients"
        env = {**work.plain_env, "WHARFINGER_ZOO": str(folder)}
        self.process = work.start(self.name, [binary, "--ignored", "--exact", test], env=env)
        told = folder / "zoo.json"
        wait_until("the zoo opens", told.exists, 60, self.process)
        told = json.loads(told.read_text())
        self.proxy, self.config = urllib.parse.urlsplit(told["proxy"]), told["config"]
        self.animals = [
            Animal(each["prefix"], each["host"], named(images[each["image"]], each["repository"]))
            for each in told["animals"]
        ]
        expect(len(self.animals) <= IMAGES, "two registries hold the same image")

    def requests(self):
        """A line for each request to any of them so far."""
        line = http.client.HTTPConnection(self.proxy.hostname, self.proxy.port, timeout=30)
        line.request("GET", "/")
        answer = json.loads(line.getresponse().read())
        line.close()
        return answer

    def stop(self):
        self.work.stop(self.process)


def listed(image):
    manifests = [{"digest": each.digest, "mediaType": each.media_type} for each in image.manifests]
    return {"manifests": manifests, "blobs": list(image.blobs)}


def named(image, repository):
    return dataclasses.replace(image, repository=repository)


class ZooDaemon(Daemon):
    """A daemon that knows the registries of the zoo and nothing else."""

    def __init__(self, work, binary, ports, zoo):
        super().__init__(work, binary, ports)
        self.zoo = zoo

    def upstreams(self):
        return self.zoo.config


class Visit:
    """One client before every registry: cold, and again for nothing."""

    def __init__(self, zoo, client):
        self.zoo, self.client = zoo, client

    def cold(self, route):
        before = len(self.zoo.requests())
        self.client.pull(route)
        expect(len(self.zoo.requests()) > before, "the registry was not asked: this was no cold pull")

    def warm(self, route):
        before = self.zoo.requests()
        self.client.pull(route)
        equal("requests to the registry", sorted(self.zoo.requests()), sorted(before))
