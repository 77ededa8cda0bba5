"""A key that a SuperLink does not know, asked of Flower's own Fleet API over TLS on loopback: nothing is activated."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.superlink.main import create_app
from flwr.supernode.fleet_http_client import FleetHttpClient

from app.deploy.folder import Deployment, NodeFiles
from app.deploy.registration import check_key
from app.errors import UserError
from tests.app.deployed_files import certified, invoke, made, serving


@dataclass(frozen=True)
class SuperLink:
    """Flower's API over TLS, what it remembers, and the deployment whose certificate it has."""

    deployment: Deployment
    address: str
    state: LinkState

    def register(self, node: NodeFiles) -> int:
        return self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key_of(node), 0)

    def status(self, node_id: int) -> str:
        (info,) = self.state.get_node_info(node_ids=[node_id])
        return info.status


def key_of(node: NodeFiles) -> bytes:
    return public_key_to_bytes(load_ssh_public_key(node.public_key.read_bytes()))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    deployment = made(tmp_path_factory.mktemp("deployed"), "never", "known", "online", "revoked")
    app = create_app()
    files = deployment.server
    config = uvicorn.Config(
        app, port=0, log_level="critical", ssl_certfile=files.certificate, ssl_keyfile=files.key, lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield SuperLink(deployment, f"127.0.0.1:{port}", app.state.linkstate_factory.state())
    server.should_exit = True
    thread.join()


def ask(superlink: SuperLink, node: NodeFiles) -> None:
    check_key(superlink.address, node.authority, node.key, node.public_key)


def test_a_key_that_is_registered_is_known_and_not_activated(superlink: SuperLink) -> None:
    node = superlink.deployment.node("known")
    node_id = superlink.register(node)
    ask(superlink, node)
    assert superlink.status(node_id) == "registered"


def test_a_node_that_still_counts_as_online_is_known_and_stays_so(superlink: SuperLink) -> None:
    """As in the minute after it was killed: Flower refuses it with the code for unknown keys."""
    node = superlink.deployment.node("online")
    node_id = superlink.register(node)
    assert superlink.state.activate_node(node_id, 30.0)
    ask(superlink, node)
    assert superlink.status(node_id) == "online"


def test_a_key_that_was_never_registered(superlink: SuperLink) -> None:
    node = superlink.deployment.node("never")
    with pytest.raises(UserError, match=r"node\.pub is not registered there.*'flwr supernode register'"):
        ask(superlink, node)
    assert superlink.state.get_node_id_by_public_key(key_of(node)) is None


def test_a_key_that_was_revoked_can_never_be_registered_again(superlink: SuperLink) -> None:
    """Flower tells the node the same, so that the sentence says what to do about both."""
    node = superlink.deployment.node("revoked")
    superlink.state.delete_node(NOOP_FLWR_AID, superlink.register(node))
    with pytest.raises(UserError, match=r"it was revoked .* a new one, 'fedkeras deploy init"):
        ask(superlink, node)
    with pytest.raises(ValueError, match="already in use"):
        superlink.register(node)


def test_what_other_servers_answer_is_left_to_flower(superlink: SuperLink) -> None:
    node = superlink.deployment.node("never")
    with serving(certified(superlink.deployment, "127.0.0.1")) as server:
        check_key(server.address, node.authority, node.key, node.public_key)
        assert server.requests == ["POST /v1/fleet/activate-node HTTP/1.1\r\n"]
    check_key("127.0.0.1:1", node.authority, node.key, node.public_key)


@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), httpx.DecodingError("odd"), ValueError("no protobuf")])
def test_what_is_no_answer_of_a_superlink_is_left_to_flower(
    superlink: SuperLink, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(client: FleetHttpClient, request: object) -> None:
        raise error

    monkeypatch.setattr(FleetHttpClient, "ActivateNode", fail)
    ask(superlink, superlink.deployment.node("never"))


def test_the_command_ends_before_flower_is_started(superlink: SuperLink) -> None:
    node = superlink.deployment.node("never")
    result = invoke("supernode", node.folder, "--superlink", superlink.address)
    assert isinstance(result.exception, UserError) and "is not registered there" in str(result.exception)


@pytest.mark.parametrize(
    "text", ["", "no key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"]
)
def test_a_file_that_is_no_key(superlink: SuperLink, tmp_path: Path, text: str) -> None:
    node, key = superlink.deployment.node("never"), tmp_path / "node.key"
    key.write_text(text)
    with pytest.raises(UserError, match=r"node\.key is no key of a node: make one"):
        check_key(superlink.address, node.authority, key, node.public_key)
