"""Finds the user's own functions, written ``module:function`` in the run config."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from tasks.errors import TaskError


def is_reference(name: str) -> bool:
    """Tell whether a name is written ``module:function``."""
    module, _, function = name.partition(":")
    return bool(function) and all(part.isidentifier() for part in (*module.split("."), function))


def load_function(reference: str, key: str) -> Callable[..., Any]:
    """Import the function that ``key = "module:function"`` names.

    Raises `TaskError`, with the cause chained, where the module cannot be imported or has no such function.
    """
    module_name, _, function_name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise TaskError(
            f"{key}={reference!r}: importing the module {module_name!r} failed with "
            f"{type(error).__name__}: {error}; it must be importable from where the run is started."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise TaskError(f"{key}={reference!r}: the module {module_name!r} has no function {function_name!r}.")
    return function  # type: ignore[no-any-return]
