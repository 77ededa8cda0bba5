"""A fingerprint of the code that this process runs, so that server and clients can tell that they run the same."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

PACKAGES = ("app", "strategies", "tasks")


def code_location() -> str:
    """Return the folder that holds our packages, as this process imports them; several folders where they are mixed."""
    return ", ".join(sorted({str(folder.parent) for folder in _packages().values()}))


@cache
def code_fingerprint() -> str:
    """Return the SHA-256, in hex, over the sorted paths and contents of all Python files of our packages.

    Paths are relative to the package, with "/" and led by its name, so that the same code elsewhere has the same value.
    """
    return fingerprint(_packages())


def fingerprint(packages: dict[str, Path]) -> str:
    """Return the fingerprint of packages in given folders. Lengths are hashed too: no file can pose as two."""
    digest = hashlib.sha256()
    files = {
        f"{name}/{file.relative_to(folder).as_posix()}": file
        for name, folder in packages.items()
        for file in folder.rglob("*.py")
    }
    for path, file in sorted(files.items()):
        content = file.read_bytes()
        digest.update(f"{len(path)} {len(content)} {path}".encode())
        digest.update(content)
    return digest.hexdigest()


def _packages() -> dict[str, Path]:
    return {name: _folder(name) for name in PACKAGES}


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"The package '{package}' cannot be found.")
    return Path(spec.origin).resolve().parent
