"""The first import of TensorFlow and Keras in a process, without the libraries that Keras looks for and we do not use.

Keras imports scikit-learn for its ``keras.wrappers``, and Matplotlib for ``keras.visualization``, wherever they are
installed, and does without where they are not. Both are installed with us: they are a quarter of the processor time
that TensorFlow and Keras take to be imported (`benchmarks/startup.py`), in every Ray worker and, on a node, for every
message. In a process in which Keras is imported as here, those two parts of Keras say that their library is missing;
the libraries themselves can be imported.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder

UNUSED = frozenset({"sklearn", "matplotlib"})


class _Hidden(MetaPathFinder):
    """Finds nothing, and says of what is `UNUSED` that there is none; in its own thread, as others import meanwhile."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in UNUSED and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is not imported with Keras", name=name)


@contextmanager
def lean_keras() -> Iterator[None]:
    """Let Keras, where it is imported inside for the first time, find none of the libraries that are `UNUSED`."""
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        yield
    finally:
        sys.meta_path.remove(hidden)
