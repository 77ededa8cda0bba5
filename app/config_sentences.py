"""Sentences about run-config keys: what a key allows, what was wrong with a value, which key was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
BOUNDS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}


def did_you_mean(given: str, names: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" where one of the names is close, else the empty string."""
    by_plain = {name.lower(): name for name in names}
    close = difflib.get_close_matches(given.lower().replace("_", "-"), by_plain, n=1, cutoff=0.6)
    return f"; did you mean '{by_plain[close[0]]}'?" if close else ""


def unknown_key(key: str, keys: Sequence[str]) -> str:
    """Say that a key does not exist and which one was probably meant."""
    hint = did_you_mean(key, keys) or "; 'fedkeras config' lists the keys."
    return f"There is no key '{key}'{hint}"


def one_of(names: Sequence[str], otherwise: str = "", *, given: str = "") -> str:
    """Name the allowed values, and the closest one to what was given, if anything was."""
    listed = ", ".join(names) if len(names) > 1 else f"'{names[0]}'"
    allowed = f"one of {listed}" if len(names) > 1 else listed
    return allowed + (f", or {otherwise}" if otherwise else "") + did_you_mean(given, names)


def allowed(field: FieldInfo) -> str:
    """Say what a key allows by its type and bounds: "a whole number, at least 1"."""
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(get_args(field.annotation))
    kind = KINDS[field.annotation]
    limits = [
        text.format(_number(getattr(item, name)))
        for name, text in BOUNDS.items()
        for item in field.metadata
        if hasattr(item, name)
    ]
    return f"{kind}, {' and '.join(limits)}" if limits else kind


def refusals(error: ValidationError, fields: Mapping[str, FieldInfo]) -> list[str]:
    """Turn pydantic's findings into one sentence each: key, value given, what is allowed."""
    by_key = {field.alias: field for field in fields.values()}
    return [_refusal(found, by_key) for found in error.errors()]


def _refusal(found: Any, by_key: Mapping[str | None, FieldInfo]) -> str:
    own_words = str(found["ctx"]["error"]) if found["type"] == "value_error" else ""
    if not found["loc"]:
        return own_words
    key, given = found["loc"][0], found["input"]
    must_be = own_words or allowed(by_key[key])
    if found["type"] == "literal_error":
        must_be += did_you_mean(str(given), get_args(by_key[key].annotation))
    return f"The key '{key}' is {given!r}, but must be {must_be}" + ("" if must_be.endswith("?") else ".")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
