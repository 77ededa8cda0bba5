"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from app.errors import UserError

_SHOWN = 80


def state_folder() -> Path:
    """Return ``$XDG_STATE_HOME/fedkeras``, or ``~/.local/state/fedkeras``; it may not exist yet."""
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(os.path.expanduser(home)) / "fedkeras"  # noqa: PTH111  # as in tasks.cache


def user_path(text: str, key: str, folder: Path | None = None) -> Path:
    """Return the path that a user wrote for a key or an option (``key`` starts with '-'), with ``~`` expanded.

    With ``folder`` it is absolute, and a relative one starts there. It need not exist, but can be asked whether it
    does: raises UserError for an unknown user's home, for a name that is too long and where a folder may not be read.
    """
    try:
        path = Path(text).expanduser()
        if folder is not None:
            path = (folder / path).resolve()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: a NUL in it; RuntimeError: no such home, a loop
        kind = "option" if key.startswith("-") else "key"
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).rstrip(".")
        raise UserError(f"The {kind} '{key}' is '{shown}', which is no path here ({reason}): correct it.") from None
    return path
