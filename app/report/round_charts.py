"""Bars over rounds: what became of the clients that were asked, and where the seconds went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from app.report.figure import AXIS, ROUND_STEPS, SERIES, Chart, Key, drawing
from app.report.reading import Run
from app.report.series import Bars, bars
from app.units import human_bytes

WIDE = (564.0, 260.0)
ACCEPTED = "accepted"
OTHER = "other"
BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_PHASES = ("select", "train", "aggregate", "evaluate-federated", "evaluate-central")
_REASON_COLOURS = (SERIES[7], SERIES[1], SERIES[3], SERIES[5], SERIES[4], SERIES[6])


def participation_chart(name: str, run: Run) -> Chart | None:
    """Stack the clients of each round: accepted, then rejected by reason (the six most frequent, the rest as one)."""
    rounds = tuple(record for record in run.trained if record.selected)
    if not rounds:
        return None
    totals = Counter[str]()
    for record in rounds:
        totals.update(record.rejected)
    reasons = [reason for reason, count in totals.most_common() if count]
    shown = reasons[: len(_REASON_COLOURS)]
    keys = [Key(ACCEPTED, SERIES[0], kind="bar")]
    keys += [Key(reason, colour, kind="bar") for reason, colour in zip(shown, _REASON_COLOURS, strict=False)]
    rows = [[record.accepted for record in rounds]]
    rows += [[record.rejected.get(reason, 0) for record in rounds] for reason in shown]
    if reasons[len(shown) :]:
        keys.append(Key(OTHER, AXIS, kind="bar"))
        rows.append([sum(record.rejected.get(reason, 0) for reason in reasons[len(shown) :]) for record in rounds])
    selected, accepted = sum(record.selected for record in rounds), sum(record.accepted for record in rounds)
    rejected = ", ".join(f"{totals[reason]} {reason}" for reason in reasons) or "none"
    alt = f"Clients per round: {accepted} of {selected} updates accepted in {len(rounds)} rounds; rejected: {rejected}."
    return _stacked(name, "Clients per round", alt, keys, bars(rounds, np.array(rows, dtype=np.float64)), "clients")


def seconds_chart(name: str, run: Run) -> Chart | None:
    """Stack the seconds of each round by phase; what no phase accounts for is "other"."""
    rounds = tuple(record for record in run.rounds if record.seconds)
    named = {phase for record in rounds for phase in record.seconds} - {"total"}
    if not rounds:
        return None
    phases = [phase for phase in _PHASES if phase in named] + sorted(named - set(_PHASES))
    rows = [[record.seconds.get(phase, 0.0) for record in rounds] for phase in phases]
    measured = np.array(rows, dtype=np.float64).reshape(len(phases), len(rounds))
    rest = np.maximum(0.0, np.array([record.duration() for record in rounds]) - measured.sum(axis=0))
    values = np.vstack([measured, rest])
    keys = [Key(phase, SERIES[slot % len(SERIES)], kind="bar") for slot, phase in enumerate(phases)]
    shares = values.sum(axis=1) / max(values.sum(), 1e-12)
    names = [*phases, OTHER]
    alt = "Seconds per round: " + ", ".join(
        f"{100 * share:.0f} % {phase}" for phase, share in zip(names, shares, strict=True)
    )
    return _stacked(
        name, "Seconds per round", alt, [*keys, Key(OTHER, AXIS, kind="bar")], bars(rounds, values), "seconds"
    )


def bytes_chart(name: str, run: Run) -> Chart | None:
    """Stack the bytes of each round by direction; nothing where none were counted."""
    rounds = run.trained
    rows = np.array(
        [[record.bytes_down for record in rounds], [record.bytes_up for record in rounds]], dtype=np.float64
    )
    if not rows.any():
        return None
    down, up = rows.mean(axis=1)
    factor, unit = next(step for step in BYTES if step[0] <= max(1.0, rows.sum(axis=0).max()))
    alt = f"Bytes per round: on average {human_bytes(down)} down to the clients and {human_bytes(up)} up."
    keys = (Key("down to the clients", SERIES[0], kind="bar"), Key("up from the clients", SERIES[1], kind="bar"))
    return _stacked(name, "Bytes per round", alt, keys, bars(rounds, rows / factor), unit)


def _stacked(name: str, title: str, alt: str, keys: Sequence[Key], data: Bars, unit: str) -> Chart:
    with drawing(name, *WIDE) as canvas:
        axes = canvas.axes
        bottom = np.zeros(len(data.x))
        for key, heights in zip(keys, data.heights, strict=True):
            axes.bar(data.x, heights, width=0.82 * data.size, bottom=bottom, color=key.colour, linewidth=0)
            bottom += heights
        axes.set_xlabel("round")
        axes.set_ylabel(unit)
        axes.grid(axis="x", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=ROUND_STEPS, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=unit == "clients"))
        axes.set_xlim(data.x[0] - 0.6 * data.size, data.x[-1] + 0.6 * data.size)
    return Chart(title, alt, canvas.svg, tuple(keys), data.caption)
