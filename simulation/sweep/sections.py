"""The sections of a sweep file, checked one by one, with a sentence for every mistake."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_origin

from pydantic import BaseModel, Field, ValidationError, field_validator

from app.config import RunConfig, Value
from app.config_sentences import did_you_mean, one_of, refusals, unknown_key
from simulation.sweep.metrics import METRICS

Section = TypeVar("Section", bound=BaseModel)

OWN_KEYS = {
    "name": "the sweep names its runs",
    "runs-dir": "give it in [base]",
    "resume": "the same command goes on with a sweep",
    "checkpoint-every": "a run of a sweep that was stopped is run anew",
    "seed": "give 'seeds' in [sweep] for several",
}
_SEEDS = "a number of seeds, at least 1, or a list of different seeds, none below 0"


class _Checked(BaseModel):
    model_config = RunConfig.model_config  # as strict, with keys written as there


class Halving(_Checked):
    """Successive halving: after ``min-rounds``, and every ``factor`` times as many, one of ``factor`` runs goes on."""

    min_rounds: int = Field(ge=1)
    factor: int = Field(3, ge=2)


class Conduct(_Checked):
    """``[sweep]``: how often, by what, and for how long the configurations are tried."""

    seeds: Any = 1
    metric: str = "accuracy"
    trials: int = Field(20, ge=1, le=1000)
    sampler: Literal["random", "tpe"] = "random"

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds_are_whole_numbers(cls, value: Any) -> Any:
        listed = value if isinstance(value, list) else [value]
        whole = listed and all(type(seed) is int and 0 <= seed < 2**63 for seed in listed)
        if not whole or value == 0 or len(set(listed)) < len(listed):
            raise ValueError(_SEEDS)
        return value

    @field_validator("metric")
    @classmethod
    def _metric_is_known(cls, value: str) -> str:
        if value not in METRICS:
            raise ValueError(one_of(tuple(METRICS), given=value))
        return value


class Table(_Checked):
    """``[table]``: which key of the grid goes down, which across, and of which each value has a panel."""

    rows: str
    columns: str
    panels: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that it shows."""
        return (self.rows, self.columns, self.panels) if self.panels else (self.rows, self.columns)


class Bounds(_Checked):
    """A key of ``[random]`` that is drawn between two ends, or with ``log`` so that each power is as likely."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; ``whole`` ones for a key that takes nothing else."""

    low: float
    high: float
    log: bool
    whole: bool

    @property
    def ends(self) -> tuple[Value, ...]:
        """The smallest and the largest value that can be drawn."""
        return tuple(int(end) if self.whole else end for end in (self.low, self.high))


@dataclass(frozen=True)
class Choices:
    """Some values, each as likely as the others."""

    values: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        """All that can be drawn."""
        return self.values


Draw = Range | Choices


def section(model: type[Section], table: Mapping[str, Any], where: str, problems: list[str]) -> Section | None:
    """Return the checked section; None, and a sentence per mistake in ``problems``, where it is not sound."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    wrong = [
        f"There is no key '{key}' in {where}{did_you_mean(key, fields) or '; it takes ' + ', '.join(fields) + '.'}"
        for key in table
        if key not in fields
    ]
    wrong += [
        f"{where} lacks the key '{key}'." for key, field in fields.items() if field.is_required() and key not in table
    ]
    if not wrong:
        try:
            return model.model_validate(table)
        except ValidationError as error:
            wrong = [f"In {where}: {sentence}" for sentence in refusals(error, model.model_fields)]
    problems += wrong
    return None


def base_values(table: Mapping[str, Any], problems: list[str]) -> dict[str, Value]:
    """Return the run-config keys of ``[base]``; their values are checked with each configuration."""
    for key in table:
        if key == "name":
            problems.append("The key 'name' stands in [base]: write it above all sections, it names the sweep.")
        elif key in ("resume", "checkpoint-every"):
            problems.append(f"The key '{key}' stands in [base]: leave it out, {OWN_KEYS[key]}.")
        elif key not in RunConfig.key_names():
            problems.append(f"In [base]: {unknown_key(key, RunConfig.key_names())}")
    return dict(table)


def grid_values(table: Mapping[str, Any], problems: list[str]) -> dict[str, tuple[Value, ...]]:
    """Return the values of each key of ``[grid]``, in the file's order."""
    found: dict[str, tuple[Value, ...]] = {}
    for key, values in table.items():
        if _may_vary(key, "[grid]", problems) and _is_list(f"The key '{key}' in [grid]", values, problems):
            found[key] = tuple(values)
    return found


def draws(table: Mapping[str, Any], problems: list[str]) -> dict[str, Draw]:
    """Return how each key of ``[random]`` is drawn."""
    found: dict[str, Draw] = {}
    for key, given in table.items():
        if _may_vary(key, "[random]", problems) and (draw := _draw(key, given, problems)) is not None:
            found[key] = draw
    return found


def _draw(key: str, given: Any, problems: list[str]) -> Draw | None:
    where = f"[random] {key}"
    if not isinstance(given, dict):
        problems.append(f"{where} is {given!r}, but must be {{ low = ..., high = ... }} or {{ choices = [...] }}.")
        return None
    if "choices" in given:
        if len(given) > 1:
            problems.append(f"{where} has choices and {', '.join(sorted(set(given) - {'choices'}))}: leave one out.")
        elif _is_list(f"'choices' of {where}", given["choices"], problems):
            return Choices(tuple(given["choices"]))
        return None
    bounds = section(Bounds, given, where, problems)
    return None if bounds is None else _range(key, bounds, problems)


def _range(key: str, bounds: Bounds, problems: list[str]) -> Range | None:
    kind = _annotation(key)
    if kind not in (int, float):
        problems.append(f"[random] {key} takes no numbers: give {{ choices = [...] }} instead of low and high.")
    elif bounds.low >= bounds.high:
        problems.append(f"[random] {key} goes from {bounds.low:g} to {bounds.high:g}: 'low' must be below 'high'.")
    elif bounds.log and bounds.low <= 0:
        problems.append(f"[random] {key} goes from {bounds.low:g} with log = true: 'low' must be above 0 there.")
    elif kind is int and not (bounds.low.is_integer() and bounds.high.is_integer()):
        problems.append(f"[random] {key} goes from {bounds.low:g} to {bounds.high:g}, but the key takes whole numbers.")
    else:
        return Range(bounds.low, bounds.high, bounds.log, kind is int)
    return None


def _may_vary(key: str, where: str, problems: list[str]) -> bool:
    if key in OWN_KEYS:
        problems.append(f"The key '{key}' cannot stand in {where}: {OWN_KEYS[key]}.")
    elif key not in RunConfig.key_names():
        problems.append(f"In {where}: {unknown_key(key, RunConfig.key_names())}")
    else:
        return True
    return False


def _is_list(what: str, values: Any, problems: list[str]) -> bool:
    """Tell whether these are different plain values: a list, a table and a date are no values of a run config."""
    if not isinstance(values, list) or not values:
        problems.append(f"{what} is {values!r}, but must be a list of at least one value.")
    elif not all(isinstance(value, bool | int | float | str) for value in values):
        problems.append(f"{what} holds a value that is no number, no text and neither true nor false.")
    elif any(isinstance(value, float) and not math.isfinite(value) for value in values):
        problems.append(f"{what} holds a value that is not finite.")
    elif len({(isinstance(value, bool), value) for value in values}) < len(values):
        problems.append(f"{what} names a value twice.")
    else:
        return True
    return False


def _annotation(key: str) -> Any:
    (field,) = (field for field in RunConfig.model_fields.values() if field.alias == key)
    return str if get_origin(field.annotation) else field.annotation
