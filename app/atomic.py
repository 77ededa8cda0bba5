"""Files that are either wholly there or not at all: written under a temporary name, synced, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

PUBLIC = 0o644
PRIVATE = 0o600


def write_bytes(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Replace the file by ``data``; after a crash at any moment it holds either its old or its new content.

    ``mode`` holds from the first byte on (less the umask): `PRIVATE` for what only the owner may read. Raises OSError,
    and then leaves the old file as it was.
    """
    with replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)


def write_text(path: Path, text: str, mode: int = PUBLIC) -> None:
    """Replace the file by ``text`` as UTF-8, as `write_bytes` does. Lone surrogates are written as '?'."""
    write_bytes(path, text.encode("utf-8", errors="replace"), mode)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name in the same folder, for a library that writes files itself; then sync and rename.

    The temporary name keeps the suffix, which Keras goes by. If the body raises, nothing is left of it and the old file
    stays. A killed process can leave a hidden ``.<name>.<random>.tmp<suffix>`` behind, which nothing reads.
    """
    temporary = path.with_name(f".{path.stem[:80]}.{uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
