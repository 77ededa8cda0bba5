"""A fingerprint of the code that this process runs, so that server and clients can tell that they run the same."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tasks.user_code import is_reference

PACKAGES = ("app", "strategies", "tasks", "simulation")


def code_location() -> str:
    """Return the folder that holds our packages, as this process imports them; several folders where they are mixed."""
    return ", ".join(sorted({str(folder.parent) for folder in _packages().values()}))


def user_modules(run_config: Mapping[str, object]) -> tuple[str, ...]:
    """Return the user's own modules that a run config names, as ``module:function``, for its data and its model."""
    names = (str(run_config.get(key, "")) for key in ("dataset", "model"))
    return tuple(sorted({name.partition(":")[0] for name in names if is_reference(name)}))


@cache
def code_fingerprint(modules: tuple[str, ...] = ()) -> str:
    """Return the SHA-256, in hex, over the sorted paths and contents of all Python files of our packages.

    Paths are relative to the package, with "/" and led by its name, so that the same code elsewhere has the same value.
    ``modules`` are the user's own that take part; one that cannot be found here does not count.
    """
    return fingerprint(_packages(), {name: file for name in modules if (file := _file(name)) is not None})


def fingerprint(packages: Mapping[str, Path], modules: Mapping[str, Path] | None = None) -> str:
    """Return the fingerprint of packages in given folders. Lengths are hashed too: no file can pose as two."""
    digest = hashlib.sha256()
    files = {
        f"{name}/{file.relative_to(folder).as_posix()}": file
        for name, folder in packages.items()
        for file in folder.rglob("*.py")
    }
    files |= {f"module {name}": file for name, file in (modules or {}).items()}
    for path, file in sorted(files.items()):
        content = file.read_bytes()
        digest.update(f"{len(path)} {len(content)} {path}".encode())
        digest.update(content)
    return digest.hexdigest()


def _packages() -> dict[str, Path]:
    return {name: _folder(name) for name in PACKAGES}


def _folder(package: str) -> Path:
    file = _file(package)
    if file is None:
        raise ModuleNotFoundError(f"The package '{package}' cannot be found.")
    return file.parent


def _file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:  # of the package that holds it
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin).resolve()
