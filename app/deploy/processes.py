"""Flower's processes with the certificates and keys of a deployment: TLS and node authentication unless told otherwise.

Each function returns the arguments of one of Flower's commands; `become` turns this process into it, so that a
supervisor sees Flower's own exit code and signals.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from typing import NoReturn

from app.deploy.folder import NodeFiles, ServerFiles, check_secret, read_bytes
from app.deploy.probe import check_server, parse_address
from app.deploy.registration import check_key
from app.errors import UserError
from app.flower_commands import environment
from app.superlink import scripts

INSECURE = (
    "WARNING: --insecure: no TLS, and anybody who reaches the port can read the models, take part as a node and start "
    "runs. Use it on one machine alone."
)

ONLINE = (
    "If Flower ends with code 2004, this node counts as online there, as it does for a minute after it was killed: "
    "start it again then."
)


class Isolation(StrEnum):
    """Where the ServerApp runs: below the SuperLink, or below a SuperExec of its own, which outlives the SuperLink."""

    SUBPROCESS = "subprocess"
    PROCESS = "process"


def superlink(files: ServerFiles, isolation: Isolation, insecure: bool) -> list[str]:
    """Return the command of the SuperLink. Raises UserError where a file is missing or a secret readable by others."""
    command = ["flower-superlink", "--isolation", isolation]
    if isolation is Isolation.PROCESS:
        command += _secret(files)
    if insecure:
        return [*command, "--insecure"]
    check_secret(files.key)
    for path in (files.authority, files.certificate):
        read_bytes(path)
    tls = ["--ssl-ca-certfile", files.authority, "--ssl-certfile", files.certificate, "--ssl-keyfile", files.key]
    return [*command, "--enable-supernode-auth", *map(str, tls)]


def superexec(files: ServerFiles, address: str, insecure: bool) -> list[str]:
    """Return the command of the SuperExec, which starts a process for each run."""
    parse_address(address)
    return ["flower-superexec", "--runtime-api-address", address, *_secret(files), *_trust(files, insecure)]


def look(files: NodeFiles, address: str, insecure: bool) -> str:
    """Return what a SuperNode will find.

    Raises UserError where the server at ``address`` is not to be trusted, or does not know the node's key.
    """
    if insecure:
        return check_server(address, None)
    found = check_server(address, files.authority)
    check_key(address, files.authority, files.key, files.public_key)
    return f"{found} {ONLINE}"


def supernode(files: NodeFiles, address: str, insecure: bool) -> list[str]:
    """Return the command of a SuperNode. Raises UserError where a file is missing or a secret readable by others."""
    trust = _trust(files, insecure)
    command = ["flower-supernode", "--superlink", address, *trust]
    if insecure:
        return command
    check_secret(files.key)
    return [*command, "--auth-supernode-private-key", str(files.key)]


def become(command: Sequence[str]) -> NoReturn:
    """Replace this process by a command of Flower."""
    path = scripts() / command[0]
    try:
        os.execve(path, [str(path), *command[1:]], environment())
    except OSError as error:
        raise UserError(f"{path} cannot be started ({error.strerror}): install the project ('uv sync').") from None


def _trust(files: ServerFiles | NodeFiles, insecure: bool) -> list[str]:
    if insecure:
        return ["--insecure"]
    read_bytes(files.authority)
    return ["--root-certificates", str(files.authority)]


def _secret(files: ServerFiles) -> list[str]:
    check_secret(files.superexec_secret)
    return ["--superexec-auth-secret-file", str(files.superexec_secret)]
