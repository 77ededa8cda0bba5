"""Numbers as people read them: bytes in steps of a thousand, seconds up to hours, shares in per cent."""

from __future__ import annotations

import math


def human_bytes(count: float) -> str:
    """Return e.g. ``512 B``, ``1.3 MB``: SI steps of 1000, two significant digits or more."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 99.95 else f"{value:.1f} {unit}"


def human_seconds(seconds: float) -> str:
    """Return e.g. ``0.42 s``, ``17 s``, ``3 min 05 s``, ``2 h 04 min``."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(share: float) -> str:
    """Return e.g. ``97.3 %``; ``NaN`` where it is not a number."""
    return f"{100 * share:.1f} %" if math.isfinite(share) else "NaN"
