"""The proxy of ``deploy/``, as real nginx before a real SuperLink: nodes reach the Fleet API, nobody reaches the rest.

The configuration is the one that is shipped, but for ports, and for folders that only root can write to.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.superlink.main import create_app

from app.deploy.folder import Deployment
from app.flower_commands import ENVIRONMENT
from tests.app.deployed_files import certified, made, serving
from tests.app.inline_runs import REPOSITORY, write_digits
from tests.end_to_end.conftest import Flower, free_port, installed, until_somebody_listens
from tests.end_to_end.deployed_server import LONGEST_WAIT, Server, serve

OURS = "Only the Fleet API is served here.\n"
PATHS = sorted(create_app().openapi()["paths"])
FLEET = [path for path in PATHS if path.startswith("/v1/fleet/")]
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
SHORT = (
    *("num-rounds=1", "clients-per-round=0", "partition=natural", "min-nodes=1", "local-steps=3"),
    *("federated-evaluate-every=0",),
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Proxy:
    """nginx that runs, and what it logs."""

    port: int
    trust: ssl.SSLContext
    log: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def connection(self) -> contextlib.closing[http.client.HTTPSConnection]:
        return contextlib.closing(http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=self.trust))

    def ask(self, path: str, method: str = "POST", body: bytes = b"") -> tuple[int, str]:
        """Send a request as it is written, and return status and text of the answer."""
        with self.connection() as connection:
            connection.request(method, path, body, {"Content-Type": PROTOBUF_MEDIA_TYPE})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")


def configured(folder: Path, server: Path, port: int, superlink: str) -> Path:
    """Write the shipped configuration with other ports and folders."""
    text = (REPOSITORY / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    places = {
        "listen 9092 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "server 127.0.0.1:8000;": f"server {superlink};",
        "/etc/fedkeras/server/": f"{server}/",
        "/var/log/nginx/": f"{folder}/",
        "http {\n": "http {\n" + "".join(f"{name}_temp_path {folder}/{name};\n" for name in TEMPORARY),
    }
    for ours, here in places.items():
        assert ours in text
        text = text.replace(ours, here)
    file = folder / "nginx.conf"
    file.write_text(text, encoding="utf-8")
    return file


@contextlib.contextmanager
def run_nginx(folder: Path, superlink: str, deployment: Deployment) -> Iterator[Proxy]:
    """Run nginx with its output in a socket, as systemd does, after it has tested its configuration."""
    folder.mkdir()
    port = free_port()
    file = configured(folder, deployment.server.folder, port, superlink)
    command = [installed("nginx"), "-c", str(file), "-g", f"daemon off; user root; pid {folder}/nginx.pid;"]
    ours, its = socket.socketpair()
    with ours, its:
        tested = subprocess.run([*command, "-t"], stdin=subprocess.DEVNULL, stdout=its, stderr=its, check=False)
        assert tested.returncode == 0, ours.recv(10_000).decode()
        nginx = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=its, stderr=its)
        try:
            until_somebody_listens(port)
            trust = ssl.create_default_context(cafile=deployment.authority.certificate)
            yield Proxy(port, trust, folder / "access.log")
        finally:
            nginx.terminate()
            nginx.wait(LONGEST_WAIT)


@pytest.fixture(scope="module")
def server(flower: Flower) -> Server:
    installed("nginx")
    return serve(flower)


@pytest.fixture(scope="module")
def proxy(server: Server) -> Iterator[Proxy]:
    deployment, folder = server.deployment, server.flower.folder / "nginx"
    with run_nginx(folder, server.address, deployment) as running:
        yield running


@pytest.mark.parametrize("path", sorted({*PATHS} - {*FLEET}))
def test_what_is_not_of_the_fleet_api_is_refused_by_the_proxy(server: Server, proxy: Proxy, path: str) -> None:
    assert proxy.ask(path) == (403, OURS)
    assert f'"POST {path} ' not in server.log.read_text()


@pytest.mark.parametrize("path", FLEET)
def test_the_fleet_api_is_answered_by_the_superlink_itself(server: Server, proxy: Proxy, path: str) -> None:
    """Which refuses whoever is no node."""
    assert proxy.ask(path) == (401, '{"detail":"Invalid SuperNode authentication"}')
    assert f'"POST {path} HTTP/1.1" 401' in server.log.read_text()
    assert proxy.ask(path, "GET")[0] == 403
    assert f'"GET {path} ' not in server.log.read_text()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/..%2fcontrol%2fstart-run",
        "/v1/fleet//../../control/start-run",
        "//v1/control/start-run",
        "/v1/control/start-run?/v1/fleet/get-run",
        "/v1/control/start-run%3f/v1/fleet/get-run",
        "/v1/control/start-run#/v1/fleet/get-run",
        "/v1/fleet/get-run/../../control/start-run",
        "/v1/fleet/get-run%0d%0aX:%20y",
        "/v1/fleet/get-run;/../../control/start-run",
        "https://localhost/v1/control/start-run",
        "/flwr.proto.Control/StartRun",
        "/",
    ],
)
def test_no_spelling_of_a_path_reaches_more(server: Server, proxy: Proxy, path: str) -> None:
    before = server.log.read_text().count('"POST ')
    status, text = proxy.ask(path)
    assert (status, text) == (403, OURS) or status == 400
    assert server.log.read_text().count('"POST ') == before


def test_pieces_of_models_fit_and_floods_do_not(proxy: Proxy) -> None:
    piece = PushObjectRequest(object_content=bytes(FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE))
    assert proxy.ask("/v1/fleet/push-object", body=piece.SerializeToString())[0] == 401
    with proxy.connection() as connection:
        connection.putrequest("POST", FLEET[0])
        connection.putheader("Content-Length", str(65 * 2**20))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_an_operator_is_told_by_the_proxy_that_this_is_forbidden(server: Server, proxy: Proxy) -> None:
    """Also with everything that a node has: the authority's certificate and a key."""
    flower, deployment = server.flower, server.deployment
    connected = flower.fedkeras("deploy", "connect", str(deployment.folder), proxy.address, "--name", "proxy")
    assert connected.code == 0
    key = str(deployment.node("west").public_key)
    for command in (("ls", "proxy"), ("supernode", "register", key, "proxy"), ("run", str(REPOSITORY), "proxy")):
        ended = flower.call("flwr", *command, **ENVIRONMENT)
        assert ended.code != 0 and "403 Forbidden" in ended.output
    assert server.nodes() == [] and flower.runs("mine") == []


def test_a_key_that_is_not_registered_does_not_get_in_by_the_proxy(server: Server, proxy: Proxy) -> None:
    ended = server.refused(server.deployment.node("west").folder, address=proxy.address)
    assert ended.code == 2 and "west/node.pub is not registered there" in ended.output
    assert '"POST /v1/fleet/activate-node HTTP/1.1" 4' in proxy.log.read_text()


def test_a_run_with_a_node_behind_the_proxy(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    flower, east = server.flower, server.deployment.node("east")
    server.supernodes("register", str(east.public_key), "mine")
    data, held_out = write_digits(tmp_path / "east.npz", slice(0, 300)), tmp_path / "held-out.npz"
    write_digits(held_out, slice(500, 800))
    node = server.node(east.folder, "--node-config", f'client-id="east" data-path="{data}"', address=proxy.address)
    node.until(r"SuperNode ID: \d+|Exit Code: \d+")
    config = (*SHORT, f"dataset=npz:{held_out}")
    ended = flower.fedkeras("run", "mine", *(word for pair in config for word in ("-c", pair)))
    assert ended.code == 0, ended.output
    assert [(line["accepted"], line["rejected"]) for line in flower.latest().records()] == [(0, {}), (1, {})]
    passed = re.findall(r'"POST (/v1/\S+) HTTP/1.1" 200', proxy.log.read_text())
    assert {"/v1/fleet/activate-node", "/v1/fleet/pull-object", "/v1/fleet/push-object"} <= set(passed) <= set(FLEET)


def test_the_proxy_sends_nothing_to_a_superlink_of_another_authority(tmp_path: Path) -> None:
    """Even if it lies on the SuperLink's port; nodes are told of a bad gateway."""
    own, stranger = made(tmp_path / "own", "east"), made(tmp_path / "stranger", "east")
    with serving(certified(stranger, "localhost")) as impostor:
        with run_nginx(tmp_path / "nginx", impostor.address, own) as proxy:
            assert proxy.ask(FLEET[0])[0] == 502
        assert impostor.requests == []
