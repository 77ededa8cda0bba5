"""What `fedkeras deploy` says of servers that are not to be trusted, in handshakes on loopback: each told apart."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.deploy.folder import Deployment
from app.deploy.probe import check_server, parse_address
from app.errors import UserError
from tests.app.deployed_files import certified, made, serving

OWN, OTHER = "127.0.0.1", "other.example"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return made(tmp_path_factory.mktemp("deployed"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return made(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else gets meanwhile."""
    with socket.socket() as bound:
        bound.bind((OWN, 0))
        yield int(bound.getsockname()[1])


def complaint(address: str, authority: Path | None) -> str:
    with pytest.raises(UserError) as caught:
        check_server(address, authority)
    return str(caught.value)


def test_a_server_of_ours(deployment: Deployment) -> None:
    with serving(certified(deployment, OWN)) as server:
        assert (
            check_server(server.address, deployment.server.authority) == f"The SuperLink at {server.address} answers."
        )
        assert server.requests == []


def test_a_server_without_tls_where_none_is_wanted() -> None:
    with serving(None) as server:
        assert check_server(server.address, None).endswith("answers.")


@pytest.mark.parametrize(
    ("host", "days_ago", "said"),
    [
        (OWN, 8, "its certificate has expired"),
        (OWN, -3, "its certificate is not valid yet"),
        (OTHER, 0, f"its certificate is for other names than {OWN}"),
    ],
)
def test_certificates_that_are_not_good(deployment: Deployment, host: str, days_ago: int, said: str) -> None:
    with serving(certified(deployment, host, days_ago)) as server:
        assert said in complaint(server.address, deployment.server.authority)
        assert server.requests == []


def test_a_name_is_compared_as_well_as_an_address(deployment: Deployment) -> None:
    with serving(certified(deployment, OWN)) as server:
        port = server.address.rpartition(":")[2]
        assert "for other names than localhost" in complaint(f"localhost:{port}", deployment.server.authority)


def test_another_authority(deployment: Deployment, stranger: Deployment) -> None:
    with serving(certified(stranger, OWN)) as server:
        assert "is of another authority than" in complaint(server.address, deployment.server.authority)
        assert server.requests == []


def test_no_tls_where_it_is_wanted_and_the_reverse(deployment: Deployment) -> None:
    with serving(None) as server:
        assert "does not speak TLS" in complaint(server.address, deployment.server.authority)
    with serving(certified(deployment, OWN)) as server:
        assert "speaks TLS: leave --insecure out" in complaint(server.address, None)
        assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "is_tls"),
    [(b"HTTP/1.1 403 Forbidden\r\n", False), (b"HTTP/1.1 400 Bad Request\r\n", True), (b"\x15\x03\x03\0\2\2F", True),
     (b"", True), (b"HTTP/", False)],
)  # fmt: skip
def test_what_is_taken_for_tls(answer: bytes, is_tls: bool) -> None:
    """A proxy says in plain text that it wants TLS; others send an alert of TLS, or hang up."""
    with socket.create_server((OWN, 0)) as server:
        thread = threading.Thread(target=answer_once, args=(server, answer))
        thread.start()
        address = f"{OWN}:{server.getsockname()[1]}"
        if is_tls:
            assert "speaks TLS" in complaint(address, None)
        else:
            assert check_server(address, None).endswith("answers.")
        thread.join()


def answer_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(answer)


def test_that_nobody_answers_is_not_an_error(deployment: Deployment, closed_port: int) -> None:
    for authority in (deployment.server.authority, None):
        assert check_server(f"{OWN}:{closed_port}", authority).startswith("Nobody answers at")


def test_a_file_that_is_no_certificate(deployment: Deployment) -> None:
    with serving(certified(deployment, OWN)) as server:
        assert "cannot be read as a certificate" in complaint(server.address, deployment.server.key)


@pytest.mark.parametrize(
    ("text", "parts"),
    [("fl.example:8000", ("fl.example", 8000)), ("[::1]:443", ("::1", 443)), ("10.0.0.1:1", ("10.0.0.1", 1))],
)
def test_addresses(text: str, parts: tuple[str, int]) -> None:
    assert parse_address(text) == parts


@pytest.mark.parametrize(
    "text",
    ["", "fl.example", ":8000", "a:0", "a:65536", "a:x", "https://fl.example:1", "a:1/b", "user@a:1", "::1:8000"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UserError, match="is no address of a SuperLink"):
        parse_address(text)
