"""What compression saves: how small a client's update is, and accuracy over the bytes that clients have sent."""

from __future__ import annotations

from collections.abc import Sequence

from app.report.curves import WIDE, Line, Trace, trace_chart
from app.report.figure import Chart
from app.report.findings import NONE, Figure
from app.report.reading import Run
from app.report.series import Curve, curve
from app.units import human_bytes


def is_compressed(run: Run) -> bool:
    """Tell whether the run's clients made their updates smaller."""
    return str(run.config.get("codec", "none")) != "none"


def figures(runs: Sequence[Run]) -> list[list[Figure]]:
    """Return a headline figure for each run, or none at all where no run was compressed."""
    if not any(map(is_compressed, runs)):
        return [[] for _ in runs]
    return [[_figure(run)] for run in runs]


def uplink_chart(name: str, title: str, lines: Sequence[Line]) -> Chart | None:
    """Draw curves over the bytes that clients have sent, on a logarithmic axis, as they differ by orders of magnitude.

    Nothing where no run was compressed: then all bytes say the same.
    """
    if not any(is_compressed(line.run) for line in lines):
        return None
    traces = [Trace(line.key, _sent(curve(line.run, line.measure, "uplink"))) for line in lines]
    return trace_chart(name, title, [trace for trace in traces if len(trace.points)], "uplink", "share", WIDE)


def _sent(points: Curve) -> Curve:
    """Leave out what was measured before anything was sent."""
    begun = points.x > 0
    return Curve(points.x[begun], points.y[begun])


def _figure(run: Run) -> Figure:
    uplinks = [record.uplink for record in run.rounds if record.uplink]
    if not uplinks:
        return Figure("A client's update", NONE)
    mean = sum(uplink["mean"] for uplink in uplinks) / len(uplinks)
    dense = sum(uplink["dense"] for uplink in uplinks) / len(uplinks)
    detail = f"{dense / mean:.3g} times smaller than a dense one" if is_compressed(run) else "not compressed"
    return Figure("A client's update", human_bytes(round(mean)), detail)
