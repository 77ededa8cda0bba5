"""Where the certificates and keys of a deployment lie: a folder for each machine, and one that never leaves its own.

    authority/   ca.crt  ca.key                                   stays where it was made, best offline
    server/      ca.crt  server.crt  server.key  superexec.secret    for the machine of the SuperLink
    nodes/NAME/  ca.crt  node.key  node.pub                       for the machine of that SuperNode

``ca.crt`` and ``node.pub`` are public. All else is a secret of its folder's owner, who alone can read it.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from app.atomic import PRIVATE, PUBLIC
from app.errors import UserError

OWNER_ONLY = 0o700
OTHERS = stat.S_IRWXG | stat.S_IRWXO
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Authority:
    """The files of who signs: with the key, anybody can pass for the server."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """What everybody trusts."""
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        """What signs."""
        return self.folder / "ca.key"


@dataclass(frozen=True)
class ServerFiles:
    """The files of the SuperLink, its SuperExec and the proxy before them."""

    folder: Path

    @property
    def authority(self) -> Path:
        """The authority's certificate."""
        return self.folder / "ca.crt"

    @property
    def certificate(self) -> Path:
        """The server's own certificate."""
        return self.folder / "server.crt"

    @property
    def key(self) -> Path:
        """The key of the certificate."""
        return self.folder / "server.key"

    @property
    def superexec_secret(self) -> Path:
        """What SuperLink and SuperExec know each other by where they are started apart."""
        return self.folder / "superexec.secret"


@dataclass(frozen=True)
class NodeFiles:
    """The files of one SuperNode."""

    folder: Path

    @property
    def authority(self) -> Path:
        """The authority's certificate."""
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        """The key that the node signs its requests with."""
        return self.folder / "node.key"

    @property
    def public_key(self) -> Path:
        """What `flwr supernode register` takes."""
        return self.folder / "node.pub"


@dataclass(frozen=True)
class Deployment:
    """The whole folder, as `fedkeras deploy init` makes it."""

    folder: Path

    @property
    def authority(self) -> Authority:
        """Who signs."""
        return Authority(self.folder / "authority")

    @property
    def server(self) -> ServerFiles:
        """What goes to the server."""
        return ServerFiles(self.folder / "server")

    def node(self, name: str) -> NodeFiles:
        """Return what goes to a node. Raises UserError for a name that is no plain file name."""
        if not _NAME.fullmatch(name):
            raise UserError(
                f"A node is to be called '{name[:80]}', but --node takes up to 64 letters, digits, '.', '_' and '-', "
                "the first one a letter or digit."
            )
        return NodeFiles(self.folder / "nodes" / name)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, that only its owner may look into; one that is there stays as it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=OWNER_ONLY, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {path} cannot be made ({error.strerror}): name another one.") from None


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet, wholly or not at all. Raises FileExistsError, and never overwrites.

    ``mode`` is `PRIVATE` or `PUBLIC`, and holds from the first byte on.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        temporary.unlink()


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read."""
    write_new(path, data, PRIVATE)


def write_public(path: Path, data: bytes) -> None:
    """Write a new file that everybody may read."""
    write_new(path, data, PUBLIC)


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes. Raises UserError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): 'fedkeras deploy init' makes it, in a folder for each machine."
        ) from None


def check_secret(path: Path) -> None:
    """Refuse a secret that is not there, or that others than its owner may read or change."""
    read_bytes(path)
    if path.stat().st_mode & OTHERS:
        raise UserError(f"{path} is a secret, but others than its owner may read or change it: 'chmod 600 {path}'.")
