"""Which versions of what took part in a run, read from package metadata: nothing heavy is imported."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("fedkeras", "flwr", "tensorflow", "keras", "numpy", "ray")


def installed_versions() -> dict[str, str | None]:
    """Return the version of every package that shapes a result, of Python and of the platform.

    None for a package that is not installed: inside an unpacked Flower bundle ``fedkeras`` itself may not be.
    """
    return {
        **{name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
