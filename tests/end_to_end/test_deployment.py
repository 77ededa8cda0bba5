"""Who is let into a deployment over TLS on loopback, with real processes: only nodes whose keys are registered.

Whoever is not ends by itself and says why, each in words of its own; the SuperLink never counts it as a node, so that
no strategy can ask it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.deploy.folder import Deployment
from app.flower_commands import ENVIRONMENT
from tests.app.deployed_files import certified, made, serving
from tests.end_to_end.conftest import Flower, free_port
from tests.end_to_end.deployed_server import Server, serve, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(flower: Flower) -> Server:
    return serve(flower, "--isolation", "process")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Another deployment, with an authority of its own."""
    return made(tmp_path_factory.mktemp("stranger"), "east")


def test_a_key_that_is_not_registered(server: Server) -> None:
    ended = server.refused(server.deployment.node("west").folder)
    assert ended.code == 2 and "west/node.pub is not registered there" in ended.output
    assert "If it never was: 'flwr supernode register'" in ended.output
    assert server.nodes() == []


def test_a_key_that_is_revoked_while_its_node_runs(server: Server) -> None:
    """The node is sent away at its next question, ends, and is not let in again: a revoked key stays so."""
    east = server.deployment.node("east")
    node_id = str(server.supernodes("register", str(east.public_key), "mine", "--name", "east")["node-id"])
    node = server.node(east.folder)
    assert node_id in node.until(r"SuperNode ID: \d+|Exit Code: \d+")
    assert [node["status"] for node in server.nodes()] == ["online"]
    server.supernodes("unregister", node_id, "mine")
    output = node.ended().output
    assert "SuperNode terminated" in output and "[code: 2004]" not in output
    refusals = re.findall(r'"POST (/v1/fleet/\S+) HTTP/1.1" 401', server.log.read_text())
    assert refusals and refusals[0] in ("/v1/fleet/pull-messages", "/v1/fleet/send-node-heartbeat")
    ended = server.refused(east.folder)
    assert ended.code == 2 and "it was revoked ('flwr supernode unregister'), and stays so" in ended.output
    again = server.flower.call("flwr", "supernode", "register", str(east.public_key), "mine", **ENVIRONMENT)
    assert again.code != 0 and "already in use" in again.output
    assert [node["status"] for node in server.nodes()] in ([], ["unregistered"])


def test_an_authority_that_is_not_the_servers(server: Server, stranger: Deployment) -> None:
    ended = server.refused(stranger.node("east").folder)
    assert ended.code == 2 and "is of another authority than" in ended.output


def test_no_tls_where_the_server_wants_it(server: Server) -> None:
    ended = server.refused(server.deployment.node("east").folder, "--insecure")
    assert ended.code == 2 and "speaks TLS: leave --insecure out" in ended.output
    assert "WARNING: --insecure" not in ended.output


@pytest.mark.parametrize(
    ("host", "days_ago", "said"),
    [("127.0.0.1", 8, "certificate has expired"), ("other.example", 0, "is for other names than 127.0.0.1")],
)
def test_a_certificate_that_is_not_good(server: Server, host: str, days_ago: int, said: str) -> None:
    with serving(certified(server.deployment, host, days_ago)) as impostor:
        ended = server.refused(server.deployment.node("east").folder, address=impostor.address)
        assert ended.code == 2 and said in ended.output
        assert impostor.requests == []


def test_tls_where_the_server_has_none(server: Server) -> None:
    with serving(None) as impostor:
        ended = server.refused(server.deployment.node("east").folder, address=impostor.address)
    assert ended.code == 2 and "does not speak TLS" in ended.output
    assert not any("HTTP/" in request for request in impostor.requests)


def test_flower_itself_sends_nothing_to_a_server_of_another_authority(server: Server, stranger: Deployment) -> None:
    """Whatever happens between our question and Flower's connection. Flower says why, but does not always end."""
    node = server.deployment.node("east")
    trust = ("--root-certificates", str(node.authority), "--auth-supernode-private-key", str(node.key))
    with serving(certified(stranger, "127.0.0.1")) as impostor:
        where = ("--superlink", impostor.address, "--port", str(free_port()))
        supernode = start(server.flower, "flower-supernode", *where, *trust)
        supernode.until("CERTIFICATE_VERIFY_FAILED")
        supernode.kill()
        assert "SuperNode ID" not in supernode.log.read_text()
        assert impostor.requests == []


def test_a_run_does_not_go_to_a_server_of_another_authority(server: Server, stranger: Deployment) -> None:
    """Neither code nor config are sent."""
    with serving(certified(stranger, "127.0.0.1")) as impostor:
        config = Path(server.flower.environment["FLWR_HOME"]) / "config.toml"
        lines = f'address = "{impostor.address}"\nroot-certificates = "{server.deployment.authority.certificate}"\n'
        config.write_text(f"{config.read_text()}\n[superlink.impostor]\n{lines}")
        ended = server.flower.fedkeras("run", "impostor")
        assert ended.code == 2 and "is of another authority than" in ended.output
        assert impostor.requests == []


def test_none_of_them_ever_was_a_node(server: Server) -> None:
    """But the one that was registered: of the others, the SuperLink knows nothing that it could tell a run."""
    log = server.log.read_text()
    activated = set(re.findall(r"Activated node_id=(\d+)", log))
    created = set(re.findall(r"Created node_id=(\d+)", log))
    assert activated <= created and len(created) <= 1
    assert not re.search(r'"POST /v1/fleet/push-\S+ HTTP/1.1" 200', log)
