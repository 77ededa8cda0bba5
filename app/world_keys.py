"""The run-config keys of the simulated world: their little languages, and who refuses them.

Only ``fedkeras simulate`` has a simulated world, and adversaries and canaries in it. ``flwr run`` and deployments,
where clients take their own time and do what they will, refuse a config that asks for any of it instead of ignoring it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.errors import ConfigError

if TYPE_CHECKING:
    from app.config import RunConfig

SECTION, ADVERSARIES, AUDIT = "Simulated world", "Adversaries", "Audit"
DEVICE_CLASSES = 'NAME:SHARE:SLOWNESS with commas between them, as in "fast:0.3:0.5,slow:0.2:4"'
REGIONS = 'NAME:SHARE:HOURS-AHEAD-OF-UTC with commas between them, as in "europe:0.5:1,asia:0.5:8"'

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,49}")


@dataclass(frozen=True)
class DeviceClass:
    """Clients of one kind of device: ``share`` of all clients; ``slowness`` times the usual time per example."""

    name: str
    share: float
    slowness: float


@dataclass(frozen=True)
class Region:
    """Clients of one place: ``share`` of all clients; ``utc_offset`` hours that local time is ahead of UTC."""

    name: str
    share: float
    utc_offset: float


def device_classes(text: str) -> tuple[DeviceClass, ...]:
    """Read the key 'device-classes'; clients beyond the sum of shares have no class and the slowness 1.

    Raises ValueError with what the key must be.
    """
    classes = tuple(DeviceClass(*entry) for entry in _entries(text, DEVICE_CLASSES))
    if any(not 0 < kind.slowness <= 1e6 for kind in classes):
        raise ValueError(f"{DEVICE_CLASSES}, with a slowness above 0 and at most 1000000")
    return classes


def regions(text: str) -> tuple[Region, ...]:
    """Read the key 'regions'; clients beyond the sum of shares are in no region and live by UTC.

    Raises ValueError with what the key must be.
    """
    places = tuple(Region(*entry) for entry in _entries(text, REGIONS))
    if any(abs(place.utc_offset) > 14 for place in places):
        raise ValueError(f"{REGIONS}, with from -14 to 14 hours")
    return places


def _entries(text: str, must_be: str) -> Iterator[tuple[str, float, float]]:
    entries = [_entry(part, must_be) for part in text.split(",")] if text else []
    names, shares = [name for name, _, _ in entries], [share for _, share, _ in entries]
    if len(set(names)) < len(names):
        raise ValueError(f"{must_be}, with each name once")
    if any(share < 0 for share in shares) or math.fsum(shares) > 1 + 1e-9:
        raise ValueError(f"{must_be}, with shares of at least 0 that add up to at most 1")
    yield from entries


def _entry(part: str, must_be: str) -> tuple[str, float, float]:
    name, *numbers = (piece.strip() for piece in part.split(":"))
    try:
        share, number = map(float, numbers)
    except ValueError:
        raise ValueError(must_be) from None
    if not (_NAME.fullmatch(name) and math.isfinite(share) and math.isfinite(number)):
        raise ValueError(must_be)
    return name, share, number


def world_keys_set(config: RunConfig, section: str = SECTION) -> dict[str, object]:
    """Return the keys of the simulated world that are not at their defaults, with their values."""
    fields = {field.alias or name: (name, field) for name, field in type(config).model_fields.items()}
    return {
        key: getattr(config, name)
        for key, (name, field) in fields.items()
        if isinstance(field.json_schema_extra, dict)
        and field.json_schema_extra["section"] == section
        and getattr(config, name) != field.default
    }


def refuse_world(config: RunConfig) -> None:
    """Raise ConfigError where a config that Flower runs itself asks for a simulated world, adversaries or canaries."""
    for section, what in ((SECTION, "a simulated world"), (ADVERSARIES, "adversaries"), (AUDIT, "canaries")):
        _refuse(world_keys_set(config, section), what)


def _refuse(found: Mapping[str, object], what: str) -> None:
    if found:
        keys = ", ".join(f"'{key}' ({value!r})" for key, value in found.items())
        raise ConfigError(
            f"Only 'fedkeras simulate' has {what}, but the run sets {keys}: leave that out, or run it with "
            "'fedkeras simulate'."
        )
