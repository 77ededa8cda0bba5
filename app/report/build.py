"""Writes ``report.html``: reads the runs, draws the charts, fills the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app import atomic
from app.errors import UserError
from app.report import compression, findings, health, privacy
from app.report.client_charts import fan_chart, histogram_chart, label_chart
from app.report.curves import Line, Unit, learning_lines, line_chart, run_lines, smoothed_chart
from app.report.figure import Chart, Key, series_colour, series_dash
from app.report.page_frame import render_page
from app.report.page_template import PAGE
from app.report.reading import Round, Run, read_run
from app.report.round_charts import bytes_chart, participation_chart, seconds_chart
from app.report.series import Measure, Over, of, overs

UPLINK = "Accuracy over bytes sent by clients"
OVERS: dict[Over, str] = {"rounds": "rounds", "seconds": "time", "simulated": "simulated time", "bytes": "bytes"}


def write_report(run_dirs: Sequence[Path], output: Path | None = None) -> Path:
    """Write one page about a run, or about several laid over each other, and return where it lies.

    ``output`` is by default ``report.html`` in the run directory, or beside the first one where there are several.
    Raises UserError for a folder that is no run directory and for an output that cannot be written.
    """
    folders = list(dict.fromkeys(folder.resolve() for folder in run_dirs))
    if not folders:
        raise UserError("Give at least one run directory to report on.")
    runs = [read_run(folder) for folder in folders]
    target = output or (folders[0] if len(runs) == 1 else folders[0].parent) / "report.html"
    try:
        atomic.write_text(target, render(runs))
    except OSError as error:
        raise UserError(f"The report cannot be written to '{target}' ({error.strerror}): name another file.") from error
    return target


def render(runs: Sequence[Run]) -> str:
    """Return the page as HTML. Everything that comes from a run is escaped."""
    names = findings.labels(runs)
    keys = [Key(name, series_colour(slot), series_dash(slot)) for slot, name in enumerate(names)]
    views = [_view(run, key, f"run{position}") for position, (run, key) in enumerate(zip(runs, keys, strict=True))]
    return render_page(
        PAGE,
        names[0] if len(runs) == 1 else f"{len(runs)} runs compared",
        views=views,
        comparison=_comparison(runs, keys) if len(runs) > 1 else None,
    )


def _view(run: Run, key: Key, slug: str) -> dict[str, Any]:
    """Return a run as the template needs it; ``slug`` keeps the ids of its charts apart from other runs'."""
    head, rows = findings.round_table(run)
    learning = [
        _over_all(f"{slug}-accuracy", "Accuracy", learning_lines(run, "accuracy"), "share"),
        _over_all(f"{slug}-loss", "Loss", learning_lines(run, "loss"), "loss"),
        _over_all(f"{slug}-backdoor", "Backdoor success", learning_lines(run, "backdoor"), "share"),
    ]
    return {
        "key": key,
        "subtitle": findings.subtitle(run),
        "state": str(run.status.get("state") or "unknown"),
        "notes": [*findings.notes(run), *health.notes(run)],
        "headline": [*findings.headline(run), *privacy.figures([run])[0], *compression.figures([run])[0]],
        "learning": [row for row in learning if row],
        "clients": _present(fan_chart(f"{slug}-fan", run), histogram_chart(f"{slug}-histogram", run)),
        "labels": label_chart(f"{slug}-labels", run.population),
        "groups": findings.groups(run),
        "rounds": _present(participation_chart(f"{slug}-participation", run), seconds_chart(f"{slug}-seconds", run)),
        "health": health.section(slug, run),
        "privacy": privacy.section(slug, run),
        "communication": _present(
            bytes_chart(f"{slug}-bytes", run),
            compression.uplink_chart(f"{slug}-uplink", UPLINK, learning_lines(run, "accuracy")),
        ),
        "config": [(name, findings.show(value)) for name, value in run.config.items()],
        "versions": [(name, findings.NONE if value is None else str(value)) for name, value in run.versions.items()],
        "table_head": head,
        "table_rows": rows,
        "table_left_out": len(run.rounds) - len(rows),
    }


def _comparison(runs: Sequence[Run], keys: Sequence[Key]) -> dict[str, Any]:
    names = [key.label for key in keys]
    headlines = zip(runs, privacy.figures(runs), compression.figures(runs), strict=True)
    figures = [[*findings.headline(run), *private, *compressed] for run, private, compressed in headlines]

    def row(slug: str, title: str, measure: Measure, unit: Unit) -> list[Chart]:
        return _over_all(f"all-{slug}", title, run_lines(runs, names, measure), unit)

    rows = [
        row("central-accuracy", "Central accuracy", of("central", "accuracy"), "share"),
        row("central-loss", "Central loss", of("central", "loss"), "loss"),
        row("clients-accuracy", "Clients' mean accuracy", of("federated", "accuracy"), "share"),
        row("worst-accuracy", "Worst tenth of clients", of("federated", "accuracy-worst-10"), "share"),
        row("epsilon", "Epsilon", _epsilon, "number"),
    ]
    central, federated = (run_lines(runs, names, of(group, "accuracy")) for group in ("central", "federated"))
    conduct = _present(
        compression.uplink_chart("all-uplink", UPLINK, central or federated),
        smoothed_chart("all-participation", "Participation", run_lines(runs, names, _participation), "share"),
        smoothed_chart("all-seconds", "Seconds per round", run_lines(runs, names, Round.duration), "seconds"),
    )
    return {
        "keys": keys,
        "head": [figure.label for figure in figures[0]],
        "figures": figures,
        "differences": findings.differences(runs),
        "rows": [charts for charts in rows if charts],
        "conduct": conduct,
    }


def _over_all(name: str, title: str, lines: Sequence[Line], unit: Unit) -> list[Chart]:
    chosen = overs([line.run for line in lines])
    charts = (line_chart(f"{name}-{over}", f"{title} over {OVERS[over]}", lines, over, unit) for over in chosen)
    return _present(*charts)


def _epsilon(record: Round) -> float | None:
    return None if record.privacy is None else record.privacy.epsilon


def _participation(record: Round) -> float | None:
    return record.accepted / record.selected if record.selected else None


def _present(*charts: Chart | None) -> list[Chart]:
    return [chart for chart in charts if chart is not None]
