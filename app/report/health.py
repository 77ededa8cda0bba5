"""How a run has been: its alerts on a time line, who came, how long updates were, and how diverse their senders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from app.alerts.engine import Event
from app.plain_json import number
from app.report.curves import WIDE, Trace, trace_chart
from app.report.figure import AXIS, ROUND_STEPS, SERIES, Chart, Key, drawing, series_colour
from app.report.reading import Run
from app.report.series import Curve, curve

FULL_WIDTH = 1150.0
MOST_ROWS = 20
THINNEST = 0.004  # of the axis: how short an alert is still seen
OVER, FIRING = SERIES[3], SERIES[7]
_LABEL = 40


@dataclass(frozen=True)
class Span:
    """An alert from the round in which it fired until that in which it was over; ``last`` None = it never was."""

    name: str
    first: int
    last: int | None
    text: str


def spans(events: Sequence[Event]) -> list[Span]:
    """Return the alerts in the order in which they fired."""
    found: dict[tuple[str, str, int], Span] = {}
    open_: dict[tuple[str, str], Span] = {}
    for event in events:
        key = event.alert, event.subject
        if event.state == "firing":
            name = f"{event.alert} ({event.subject})" if event.subject else event.alert
            open_[key] = found[(*key, event.round)] = Span(name, event.round, None, event.text)
        elif key in open_:
            fired = open_.pop(key)
            found[(*key, fired.first)] = Span(fired.name, fired.first, event.round, fired.text)
    return list(found.values())


def notes(run: Run) -> list[str]:
    """Return a sentence where alerts were firing when the run ended."""
    firing = sorted({span.name for span in spans(run.alerts) if span.last is None})
    return [f"Alerts that were firing at the end: {', '.join(firing)}."] if firing else []


def section(slug: str, run: Run) -> dict[str, Any] | None:
    """Return what the page says and shows of a run's health; ``slug`` keeps its charts' ids apart from other runs'."""
    if not run.trained:
        return None
    fired = spans(run.alerts)
    charts = (
        turnout_chart(f"{slug}-turnout", run),
        diversity_chart(f"{slug}-diversity", run),
        norms_chart(f"{slug}-norms", run),
    )
    return {
        "lead": _lead(fired, len(run.trained)),
        "timeline": timeline_chart(f"{slug}-alerts", fired, run.rounds[-1].number),
        "alerts": [(_rounds(span), span.name, span.text) for span in fired[-MOST_ROWS:]],
        "charts": [chart for chart in charts if chart is not None],
    }


def timeline_chart(name: str, fired: Sequence[Span], last_round: int) -> Chart | None:
    """Draw a row for each alert, with a bar from firing to over; the latest 20 alerts where there are more."""
    if not fired:
        return None
    rows = list(dict.fromkeys(span.name for span in reversed(fired)))[:MOST_ROWS][::-1]
    shown = [span for span in fired if span.name in rows]
    end = last_round + 1
    with drawing(name, FULL_WIDTH, 60.0 + 24.0 * len(rows)) as canvas:
        axes = canvas.axes
        for span in shown:
            width = max((end if span.last is None else span.last) - span.first, THINNEST * end)
            colour = FIRING if span.last is None else OVER
            axes.barh(rows.index(span.name), width, left=span.first, height=0.6, color=colour, linewidth=0)
        axes.set_xlim(0, end)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [_short(row) for row in rows])
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=ROUND_STEPS, min_n_ticks=1))
        axes.grid(axis="y", visible=False)
    alt = "Alerts over rounds: " + "; ".join(f"{span.name} {_rounds(span)}" for span in shown)
    legend = (Key("over by itself", OVER, kind="bar"), Key("still firing at the end", FIRING, kind="bar"))
    caption = "" if len(rows) == len({span.name for span in fired}) else f"The latest {MOST_ROWS} alerts."
    return Chart("Alerts over rounds", alt, canvas.svg, legend, caption)


def turnout_chart(name: str, run: Run) -> Chart | None:
    """Draw the shares of the clients asked that sent an update, and that were rejected, with their bounds."""
    sent = curve(run, lambda record: record.turnout.participation)
    if not len(sent):
        return None
    refused = curve(run, lambda record: record.turnout.rejected)
    traces = [Trace(Key("sent an update", series_colour(0)), sent)]
    if len(refused):
        traces.append(Trace(Key("rejected", series_colour(7)), refused))
    for key in ("alert-participation", "alert-rejected"):
        if (bound := number(run.config.get(key, 0.0))) > 0:
            traces.append(Trace(Key(key, AXIS, "5 3"), Curve(sent.x[[0, -1]], np.array([bound, bound]))))
    return trace_chart(name, "Clients asked: who came, who was rejected", traces, "rounds", "share", WIDE)


def diversity_chart(name: str, run: Run) -> Chart | None:
    """Draw how many device classes and regions there were in effect among the clients that counted."""
    kinds = sorted({kind for record in run.rounds for kind in record.groups})
    traces = [
        Trace(Key(kind, series_colour(slot)), curve(run, lambda record, kind=kind: record.groups.get(kind)))  # type: ignore[misc]
        for slot, kind in enumerate(kinds)
    ]
    return trace_chart(name, "Groups in effect among those that counted", traces, "rounds", "number", WIDE)


def norms_chart(name: str, run: Run) -> Chart | None:
    """Draw the median norm of the updates that counted, with bands from quartile to quartile and from end to end."""

    def quantile(key: str) -> Curve:
        return curve(run, lambda record: None if record.update_norms is None else record.update_norms.get(key))

    median = quantile("median")
    if not len(median):
        return None
    low, q25, q75, high = (quantile(key).y for key in ("min", "q25", "q75", "max"))
    traces = [
        Trace(Key("median, and half of the updates", series_colour(0)), median, (q25, q75)),
        Trace(Key("all updates", series_colour(0), kind="band"), median, (low, high)),
    ]
    return trace_chart(name, "Norms of updates over rounds", traces, "rounds", "number", WIDE)


def _lead(fired: Sequence[Span], rounds: int) -> str:
    if not fired:
        return f"No alert has fired in {rounds} rounds."
    times = "once" if len(fired) == 1 else f"{len(fired)} times"
    return f"Alerts have fired {times} in {rounds} rounds; the keys alert-... are their bounds."


def _rounds(span: Span) -> str:
    return f"from round {span.first} on" if span.last is None else f"round {span.first} to {span.last}"


def _short(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"
