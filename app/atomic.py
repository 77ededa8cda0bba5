"""Contents that are either wholly there or not at all, by `tasks.cache.whole_file`, and with the mode asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tasks.cache import whole_file

PUBLIC = 0o644
PRIVATE = 0o600


def write_parts(path: Path, parts: Iterable[bytes | memoryview], mode: int = PUBLIC) -> None:
    """Replace the file by all parts; after a crash at any moment it holds either its old or its new content.

    ``mode`` holds from the first byte on (less the umask): `PRIVATE` for what only the owner may read. Raises OSError,
    or what making the parts raises, and then leaves the old file as it was.
    """
    with whole_file(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(parts)


def write_bytes(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Replace the file by ``data``, as `write_parts` does."""
    write_parts(path, (data,), mode)


def write_text(path: Path, text: str, mode: int = PUBLIC) -> None:
    """Replace the file by ``text`` as UTF-8, as `write_bytes` does. Lone surrogates are written as '?'."""
    write_bytes(path, text.encode("utf-8", errors="replace"), mode)
