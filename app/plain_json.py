"""Strict JSON for the files of a run: numbers that JSON does not know become strings, as in protobuf's JSON mapping."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(value: Any, indent: int | None = None) -> str:
    """Return JSON that every parser reads; NaN and infinities as "NaN", "Infinity" and "-Infinity"."""
    separators = (",", ":") if indent is None else None
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)


def number(value: Any) -> float:
    """Read a number back, from JSON or from one of the three names. Raises ValueError for anything else."""
    if isinstance(value, str) and value in _NAMES:
        return _NAMES[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays, which the command line need not import
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
