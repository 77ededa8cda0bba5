"""A deployment's files for tests, its commands as Flower reads them, and servers that should not be trusted."""

from __future__ import annotations

import argparse
import contextlib
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from flwr.supercore.cli.flower_superexec import _parse_args as superexec_parser
from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink as superlink_parser
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode as supernode_parser
from typer.testing import CliRunner

from app.cli import commands
from app.deploy import certificates
from app.deploy.folder import Deployment
from app.deploy.initialise import initialise

PARSERS = {
    "flower-superlink": superlink_parser,
    "flower-superexec": superexec_parser,
    "flower-supernode": supernode_parser,
}


def made(folder: Path, *nodes: str) -> Deployment:
    """A deployment whose server is reached by loopback names alone."""
    list(initialise(folder, ["localhost"], nodes, 30))
    return Deployment(folder)


def certified(deployment: Deployment, host: str, days_ago: int = 0) -> Path:
    """A file with a certificate of this authority, for one host, for a week from ``days_ago`` on, and with its key."""
    authority = x509.load_pem_x509_certificate(deployment.authority.certificate.read_bytes())
    signer = certificates.load_key(deployment.authority.key.read_bytes())
    key = certificates.new_key()
    when = datetime.now(UTC) - timedelta(days=days_ago)
    names = [name for name in certificates.general_names([host]) if str(name.value) == host]
    signed = certificates.server_certificate(authority, signer, key.public_key(), names, 7, when)
    file = deployment.folder / f"{host}-{days_ago}.pem"
    file.write_bytes(certificates.pem_key(key) + certificates.pem(signed))
    return file


def invoke(*arguments: str | Path) -> Any:
    return CliRunner().invoke(commands, ["deploy", *map(str, arguments)])


def parsed(command: list[str]) -> argparse.Namespace:
    """What Flower itself reads from a command; an option that it has not ends the test."""
    return PARSERS[command[0]]().parse_args(command[1:])


class Impostor(ThreadingHTTPServer):
    """A web server on loopback that keeps all requests that came through; ``chain`` is its certificate and key."""

    daemon_threads = True

    def __init__(self, chain: Path | None) -> None:
        self.requests: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        if chain is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(chain)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *given: object) -> None:
        """A handshake that fails is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    def handle_one_request(self) -> None:
        assert isinstance(self.server, Impostor)
        self.raw_requestline = self.rfile.readline(1000)
        if self.raw_requestline:
            self.server.requests.append(self.raw_requestline.decode(errors="replace"))
        if self.parse_request():
            self.send_error(404)
        self.close_connection = True

    def log_message(self, *given: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def serving(chain: Path | None) -> Iterator[Impostor]:
    with Impostor(chain) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
