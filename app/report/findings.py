"""What the page says in numbers and sentences: headline figures, notes, the round table, how runs compare."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.report.example_privacy import sentences as of_examples
from app.report.reading import Round, Run
from app.report.series import Curve, curve, of
from app.units import human_bytes, human_seconds, percent

NONE = "–"
TABLE_ROWS = 200


@dataclass(frozen=True)
class Figure:
    """One headline number: a name, the value, and a line of detail."""

    label: str
    value: str
    detail: str = ""


def headline(run: Run) -> list[Figure]:
    """Return the numbers that a person looks for first."""
    rejected = sum(sum(record.rejected.values()) for record in run.rounds)
    selected = sum(record.selected for record in run.rounds)
    down, up = (sum(getattr(record, name) for record in run.rounds) for name in ("bytes_down", "bytes_up"))
    seconds = sum(record.duration() for record in run.rounds)
    return [
        _accuracy("Central accuracy", curve(run, of("central", "accuracy"))),
        _accuracy("Clients' mean accuracy", curve(run, of("federated", "accuracy"))),
        _accuracy("Worst tenth of clients", curve(run, of("federated", "accuracy-worst-10"))),
        Figure("Rounds", _rounds(run), _plural(sum(record.skipped for record in run.rounds), "skipped round")),
        Figure("Clients", str(len(run.population.clients)) if run.population else NONE, _cohort(run)),
        Figure("Duration", human_seconds(seconds), f"{human_seconds(seconds / max(1, len(run.trained)))} per round"),
        Figure("Sent and received", human_bytes(down + up), f"{human_bytes(down)} down, {human_bytes(up)} up"),
        Figure("Rejected updates", str(rejected), f"{percent(rejected / selected)} of {selected}" if selected else ""),
    ]


def notes(run: Run) -> list[str]:
    """Return a sentence for everything that a reader should know before trusting the curves."""
    found = [*_ending(run), *_budget(run), *run.notes]
    if not run.trained:
        found.append("No round of training was finished, so there are no curves to show.")
    elif not len(curve(run, of("central", "accuracy"))) and not len(curve(run, of("central", "loss"))):
        found.append("The model was not evaluated on a central test set (no such set, or evaluate-every = 0).")
    if run.trained and not any(record.federated for record in run.rounds):
        withheld = run.spent is not None and not run.config.get("allow-unprotected-metrics", False)
        why = "allow-unprotected-metrics = false" if withheld else "federated-evaluate-every = 0"
        found.append(f"The model was not evaluated on the clients' test parts ({why}).")
    if (attack := str(run.config.get("attack", "none"))) != "none":
        share = 100 * float(run.config.get("attackers", 0.0))
        found.append(f"{share:g} % of the clients attack ({attack}), those that attackers.json names.")
    found += [*(f"The run {caveat}." for caveat in _caveats(run)), *of_examples(run)]
    found += [f"Audit: {run.audit}"] if run.audit else []
    banned = [record.number for record in run.rounds if record.banned]
    if banned:
        found.append(f"Clients were banned in {_plural(len(banned), 'round')}: {_some(banned)}.")
    repeated = [record.number for record in run.rounds if record.repeated]
    if repeated:
        rounds = _plural(len(repeated), "round")
        found.append(f"Replies came again in {rounds}, and changed nothing: {_some(repeated)}.")
    skipped = [record.number for record in run.rounds if record.skipped]
    if skipped:
        found.append(f"{_plural(len(skipped), 'round')} skipped for want of good updates: {_some(skipped)}.")
    unsound = [record.number for record in run.rounds if _not_finite(record)]
    if unsound:
        found.append(
            f"The loss or accuracy is not a finite number in {_plural(len(unsound), 'round')} ({_some(unsound)}): the "
            "curves have gaps there. A lower learning-rate usually helps."
        )
    return found


def subtitle(run: Run) -> str:
    """Return what was run, in a few words, from the config."""
    parts = [str(run.config[key]) for key in ("strategy", "dataset", "model", "partition") if key in run.config]
    return " · ".join(parts)


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run that tells it from the others: its folder's name, with the parent's where needed."""
    counts = Counter(run.name for run in runs)
    return [run.name if counts[run.name] == 1 else str(run.path) for run in runs]


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return the config keys in which the runs differ, with the value of each run."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    rows = [(key, [show(run.config[key]) if key in run.config else NONE for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def show(value: Any) -> str:
    """Return a config value as it stands in TOML, but strings without quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def groups(run: Run) -> list[tuple[str, list[list[str]]]]:
    """Return clients and examples by device class and by region, where clients have named any."""
    if run.population is None:
        return []
    named = (("device class", run.population.device_classes), ("region", run.population.regions))
    return [(title, _by_name(names, run.population.examples)) for title, names in named if any(names)]


def round_table(run: Run) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table of rounds: the last 200."""
    head = ["round", "train loss", "central loss", "central accuracy", "clients' mean", "worst tenth", "accepted"]
    return [*head, "rejected", "down", "up", "time"], [_row(record) for record in run.rounds[-TABLE_ROWS:]]


def _row(record: Round) -> list[str]:
    central, federated = record.central or {}, record.federated or {}
    return [
        f"{record.number}{' (skipped)' if record.skipped else ''}",
        _number(record.train, "loss"),
        _number(central, "loss"),
        _share(central, "accuracy"),
        _share(federated, "accuracy"),
        _share(federated, "accuracy-worst-10"),
        f"{record.accepted} / {record.selected}" if record.selected else NONE,
        ", ".join(f"{count} {reason}" for reason, count in record.rejected.items() if count) or NONE,
        human_bytes(record.bytes_down),
        human_bytes(record.bytes_up),
        human_seconds(record.duration()),
    ]


def _by_name(names: Sequence[str], examples: Sequence[int | None]) -> list[list[str]]:
    clients = Counter(names)
    held = Counter[str]()
    for name, count in zip(names, examples, strict=True):
        held[name] += count or 0
    return [[name or "not given", str(clients[name]), str(held[name])] for name in sorted(clients)]


def _accuracy(label: str, points: Curve) -> Figure:
    if not len(points):
        return Figure(label, NONE, "not evaluated")
    finite = [(y, -x) for x, y in zip(points.x, points.y, strict=True) if math.isfinite(y)]
    best = f"best {percent(max(finite)[0])} in round {-max(finite)[1]:.0f}" if finite else "never finite"
    return Figure(label, percent(float(points.y[-1])), best)


def _rounds(run: Run) -> str:
    planned = run.config.get("num-rounds")
    return f"{len(run.trained)}" if planned is None else f"{len(run.trained)} / {planned}"


def _cohort(run: Run) -> str:
    sizes = [record.selected for record in run.trained if record.selected]
    if not sizes:
        return ""
    return f"{min(sizes)} a round" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)} a round"


def _ending(run: Run) -> list[str]:
    state, message = run.status.get("state"), str(run.status.get("message") or "").strip()
    if state == "running":
        return ["The run had not ended when this page was written (or it was killed)."]
    if state == "pruned":
        return [f"The sweep that the run belongs to stopped it: {message}"]
    if state in ("failed", "interrupted"):
        return [f"The run {'failed' if state == 'failed' else 'was interrupted'}{': ' + message if message else '.'}"]
    return []


def _budget(run: Run) -> list[str]:
    """Say where the budget of privacy has ended the run; no other run ends of itself before its last round."""
    planned, spent = run.config.get("num-rounds"), run.spent
    early = run.status.get("state") == "completed" and isinstance(planned, int) and len(run.trained) < planned
    if not early or spent is None or spent.left is None:
        return []
    return [f"The run ended before round {len(run.trained) + 1}, which would have exceeded the budget of privacy."]


def _caveats(run: Run) -> list[str]:
    """Return why what is told of privacy protects nobody, where it does not."""
    return sorted({record.privacy.caveat for record in run.rounds if record.privacy and record.privacy.caveat})


def _not_finite(record: Round) -> bool:
    groups = [record.train, record.central or {}, record.federated or {}]
    return any(not math.isfinite(group.get(key, 0.0)) for group in groups for key in ("loss", "accuracy"))


def _some(numbers: Sequence[int], limit: int = 8) -> str:
    text = ", ".join(str(number) for number in numbers[:limit])
    return text if len(numbers) <= limit else f"{text}, … {numbers[-1]}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _number(values: Mapping[str, float], key: str) -> str:
    return f"{values[key]:.4f}" if key in values else NONE


def _share(values: Mapping[str, float], key: str) -> str:
    return percent(values[key]) if key in values else NONE
