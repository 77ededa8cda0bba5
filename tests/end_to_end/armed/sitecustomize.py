"""Makes the apps that Flower starts obey orders in files, where this folder is on the PYTHONPATH of what starts them.

A ServerApp's order is to kill itself at a hook (`tests.end_to_end.kill_hooks`), a ClientApp's to hang for as long as
its order is there, whatever it says; who obeys leaves its process id beside it. Not before the app is loaded: its
packages are those that Flower has unpacked, whose folder stands on the path by then only.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

ORDER = Path(os.environ.get("FEDKERAS_TEST_ORDER", "/nowhere"))


def obeys() -> None:
    ORDER.with_suffix(".obeyed").write_text(str(os.getpid()), encoding="utf-8")


def strike() -> None:
    if ORDER.exists():
        from tests.end_to_end.kill_hooks import HOOKS

        hook, number = ORDER.read_text(encoding="utf-8").split()
        HOOKS[hook](int(number))
        ORDER.unlink()
        obeys()


def hang() -> None:
    while ORDER.exists():
        obeys()
        time.sleep(0.1)


APPS = {"flwr-serverapp": ("app.server", strike), "flwr-clientapp": ("app.client", hang)}


class OnceLoaded:
    """Finds no module, but sees when the app's own is looked for."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        app, obey = APPS[Path(sys.argv[0]).name]
        if name == app:
            sys.meta_path.remove(self)
            obey()


if Path(sys.argv[0]).name in APPS:
    sys.meta_path.insert(0, OnceLoaded())
