"""Reads run directories as they are found: whole, interrupted in mid-line, or with files missing."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from app.alerts.engine import Event
from app.alerts.health import Turnout, turnout
from app.alerts.sink import read_event
from app.errors import UserError
from app.plain_json import number
from app.run_directory import RunDirectory
from strategies.privacy.spending import Spending

Parsed = TypeVar("Parsed")

DECILES = 11
UNKNOWN_AUDIT = "what its canaries have proved is not known"


@dataclass(frozen=True)
class Round:
    """One line of ``metrics.jsonl``. ``central`` and ``federated`` are None where the round was not evaluated.

    ``simulated_seconds`` is when the round ended on the clock of a simulated world, None without one; ``privacy`` what
    all rounds until then have cost, None without differential privacy; ``uplink`` the bytes of a client's update.
    ``groups`` are the effective numbers of device classes and regions; ``update_norms`` quartiles, None where unknown.
    """

    number: int
    selected: int
    accepted: int
    rejected: Mapping[str, int]
    skipped: bool
    train: Mapping[str, float]
    central: Mapping[str, float] | None
    federated: Mapping[str, float] | None
    deciles: tuple[float, ...] | None
    bytes_down: int
    bytes_up: int
    seconds: Mapping[str, float]
    simulated_seconds: float | None = None
    banned: int = 0
    repeated: int = 0
    privacy: Spending | None = None
    uplink: Mapping[str, float] | None = None
    turnout: Turnout = field(default_factory=Turnout)
    groups: Mapping[str, float] = field(default_factory=dict)
    update_norms: Mapping[str, float] | None = None

    def duration(self) -> float:
        """Seconds of the whole round: as measured, or the sum of the phases."""
        return self.seconds.get("total", sum(self.seconds.values()))


@dataclass(frozen=True)
class Evaluation:
    """One line of ``clients.jsonl``, float64 [clients] each."""

    number: int
    clients: tuple[str, ...]
    accuracies: np.ndarray


@dataclass(frozen=True)
class Population:
    """``population.json``. ``label_counts`` is int64 [clients, classes]; None where the server does not know them."""

    clients: tuple[str, ...]
    examples: tuple[int | None, ...]
    device_classes: tuple[str, ...]
    regions: tuple[str, ...]
    label_counts: np.ndarray | None


@dataclass(frozen=True)
class Run:
    """All that is known of a run. ``notes`` say what was missing or unreadable, a sentence each.

    ``audit`` is what canaries have proved, in a sentence; "" where the run had none.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    status: Mapping[str, Any]
    population: Population | None
    rounds: tuple[Round, ...]
    evaluations: tuple[Evaluation, ...]
    notes: tuple[str, ...]
    audit: str = ""
    alerts: tuple[Event, ...] = ()

    @property
    def trained(self) -> tuple[Round, ...]:
        """The rounds of training: all but round 0, the evaluation of the initial model."""
        return tuple(record for record in self.rounds if record.number > 0)

    @property
    def spent(self) -> Spending | None:
        """What all rounds came to; None without differential privacy."""
        return next((record.privacy for record in reversed(self.rounds) if record.privacy is not None), None)


@dataclass
class _Reader:
    directory: RunDirectory
    notes: list[str] = field(default_factory=list)

    def lines(self, path: Path, parse: Callable[[Any], Parsed]) -> Iterator[Parsed]:
        pieces = path.read_bytes().split(b"\n")
        if pieces.pop():
            self.notes.append(f"The last line of {path.name} is cut off and left out: the run ended while writing it.")
        for position, piece in enumerate(pieces, start=1):
            try:
                yield parse(json.loads(piece))
            except (ValueError, TypeError, KeyError, AttributeError):
                self.notes.append(f"Line {position} of {path.name} cannot be read and is left out.")

    def optional(self, path: Path, parse: Callable[[Any], Parsed], otherwise: Parsed, meaning: str) -> Parsed:
        if not path.is_file():
            self.notes.append(f"There is no {path.name}, so {meaning}.")
            return otherwise
        try:
            return parse(json.loads(path.read_bytes()))
        except (ValueError, TypeError, KeyError, AttributeError):
            self.notes.append(f"{path.name} cannot be read, so {meaning}.")
            return otherwise


def with_runs(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return which of several paths hold a run, and a sentence for each that does not, as ``runs/*`` may name.

    What is not there at all is among the first, for who reads it to refuse; so is a path that was given alone.
    """
    if len(paths) == 1:
        return list(paths), []
    left_out = {
        path: f"'{path}' is {'a folder without a metrics.jsonl' if path.is_dir() else 'no folder'}"
        for path in paths
        if path.exists() and not RunDirectory(path).metrics.is_file()
    }
    return [path for path in paths if path not in left_out] or list(paths), list(left_out.values())


def read_run(path: Path) -> Run:
    """Read a run directory. Raises UserError where it is none, or one without a readable config or metrics file."""
    directory = RunDirectory(path)
    if not path.is_dir():
        raise UserError(f"'{path}' is not a run directory: give folders as made by 'fedkeras run', under 'runs-dir'.")
    for needed in (directory.config, directory.metrics):
        if not needed.is_file():
            raise UserError(f"'{path}' has no {needed.name}, so there is no run in it to report on.")
    reader = _Reader(directory)
    try:
        return _read(reader)
    except OSError as error:
        raise UserError(f"'{error.filename or path}' cannot be read ({error.strerror}).") from error


def _read(reader: _Reader) -> Run:
    directory = reader.directory
    rounds = {record.number: record for record in reader.lines(directory.metrics, read_round)}
    has_scores = directory.clients.is_file()
    evaluations = tuple(reader.lines(directory.clients, _evaluation)) if has_scores else ()
    return Run(
        name=directory.path.resolve().name,
        path=directory.path.resolve(),
        config=_config(directory.config),
        versions=reader.optional(directory.versions, _mapping, {}, "the versions are not known"),
        status=reader.optional(directory.status, _mapping, {}, "how the run ended is not known"),
        population=reader.optional(directory.population, _population, None, "the population is not known"),
        rounds=tuple(rounds[number] for number in sorted(rounds)),
        evaluations=evaluations,
        audit=reader.optional(directory.audit, _meaning, "", UNKNOWN_AUDIT) if directory.audit.is_file() else "",
        alerts=tuple(reader.lines(directory.alerts, read_event)) if directory.alerts.is_file() else (),
        notes=tuple(reader.notes),
    )


def _meaning(audit: Any) -> str:
    return str(audit["meaning"])


def _config(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"'{path}' is not a TOML file ({error}); copy the run's config there again.") from error


def read_round(line: Any) -> Round:
    """Return a line of ``metrics.jsonl``, or what `RoundRecord.to_json` makes of a record."""
    federated = line.get("federated")
    simulated = line.get("simulated-seconds")
    deciles = tuple(number(value) for value in (federated or {}).get("accuracy-deciles", ()))
    return Round(
        number=int(line["round"]),
        selected=int(line.get("selected", 0)),
        accepted=int(line.get("accepted", 0)),
        rejected={str(reason): int(count) for reason, count in line.get("rejected", {}).items()},
        skipped=bool(line.get("skipped", False)),
        train=_numbers(line.get("train")) or {},
        central=_numbers(line.get("central")),
        federated=_numbers(federated),
        deciles=deciles if len(deciles) == DECILES else None,
        bytes_down=int(line.get("bytes", {}).get("down", 0)),
        bytes_up=int(line.get("bytes", {}).get("up", 0)),
        seconds=_numbers(line.get("seconds")) or {},
        simulated_seconds=None if simulated is None else number(simulated),
        banned=int(line.get("banned", 0)),
        repeated=int(line.get("repeated", 0)),
        privacy=None if line.get("privacy") is None else Spending.from_json(line["privacy"]),
        uplink=_numbers(line.get("uplink")),
        turnout=turnout({"selected": 0, "rejected": {}, **line}),
        groups={kind: number(told["effective"]) for kind, told in (line.get("diversity") or {}).items()},
        update_norms=_numbers(line.get("update-norms")),
    )


def _numbers(values: Any) -> dict[str, float] | None:
    if values is None:
        return None
    return {str(key): number(value) for key, value in values.items() if not isinstance(value, list)}


def _evaluation(line: Any) -> Evaluation:
    clients = tuple(str(client) for client in line["clients"])
    accuracies = np.array([number(value) for value in line["accuracies"]])
    if len(clients) != len(accuracies):
        raise ValueError("as many accuracies as clients")
    return Evaluation(int(line["round"]), clients, accuracies)


def _population(value: Any) -> Population:
    clients = tuple(str(client) for client in value["clients"])
    counts = None if value.get("label-counts") is None else np.array(value["label-counts"], dtype=np.int64)
    population = Population(
        clients=clients,
        examples=tuple(None if count is None else int(count) for count in value["examples"]),
        device_classes=tuple(str(name) for name in value["device-classes"]),
        regions=tuple(str(name) for name in value["regions"]),
        label_counts=counts,
    )
    columns = (population.examples, population.device_classes, population.regions)
    if any(len(column) != len(clients) for column in columns):
        raise ValueError("columns of one length")
    if counts is not None and (counts.ndim != 2 or len(counts) != len(clients)):
        raise ValueError("a row of label counts per client")
    return population


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("an object")
    return value
