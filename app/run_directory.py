"""The directory that every run leaves: what was asked for, what took part, what was measured, what came out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from app import atomic, plain_json
from app.errors import UserError
from app.versions import installed_versions
from tasks.cache import whole_file

if TYPE_CHECKING:
    from strategies.population import ClientInfo

Scalar = bool | int | float | str
RunState = Literal["running", "completed", "pruned", "failed", "interrupted"]

CHANGED = "changed-on-resume"
MAX_NAME = 80
_SAME_SECOND = 10_000
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Saveable(Protocol):
    """What `RunDirectory.save_model` can save: a Keras model."""

    def save(self, filepath: str) -> None:
        """Write the model to a path."""


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run and the names of its files.

    Whole files are replaced atomically; ``metrics.jsonl`` and ``clients.jsonl`` grow line by line (`app.sinks`). All
    methods raise OSError where the disk refuses; only ``create``, which reads what the user gave, and what reads a file
    that somebody may have changed raise UserError.
    """

    path: Path

    @classmethod
    def create(cls, runs_dir: Path, name: str, when: datetime) -> RunDirectory:
        """Make ``<runs_dir>/<YYYYmmdd-HHMMSS>-<name>/``, with ``-2``, ``-3``, ... after it where it exists already.

        ``runs_dir`` is made if its parent folder exists. Any ``name`` will do: what a file name should not hold becomes
        a hyphen. Raises UserError where no folder can be made there.
        """
        stem = f"{when:%Y%m%d-%H%M%S}-{file_name(name)}"
        try:
            runs_dir.mkdir(exist_ok=True)
            for attempt in range(1, _SAME_SECOND):
                path = runs_dir / (stem if attempt == 1 else f"{stem}-{attempt}")
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return cls(path.resolve())
        except OSError as error:
            raise UserError(
                f"No run directory can be made in '{runs_dir}' ({error.strerror}): "
                "set the key 'runs-dir' to a folder that you can write to."
            ) from error
        raise UserError(f"'{runs_dir}' is full of runs named '{stem}': set the key 'name' to something else.")

    @property
    def config(self) -> Path:
        """The resolved run config; ``-c`` takes it as it is."""
        return self.path / "config.toml"

    @property
    def versions(self) -> Path:
        """Versions of packages, Python and platform; fingerprint and place of the code."""
        return self.path / "versions.json"

    @property
    def population(self) -> Path:
        """Who could be asked: clients, examples, device classes, regions and, where known, label counts."""
        return self.path / "population.json"

    @property
    def attackers(self) -> Path:
        """Which clients attack, and how: only of a simulation with adversaries."""
        return self.path / "attackers.json"

    @property
    def audit(self) -> Path:
        """What the canaries of a simulation have proved."""
        return self.path / "audit.json"

    @property
    def metrics(self) -> Path:
        """One line per round: `strategies.records.RoundRecord.to_json`."""
        return self.path / "metrics.jsonl"

    @property
    def clients(self) -> Path:
        """One line per federated evaluation: the scores of every client."""
        return self.path / "clients.jsonl"

    @property
    def alerts(self) -> Path:
        """One line per alert that has begun or ended (`app.alerts`)."""
        return self.path / "alerts.jsonl"

    @property
    def example_privacy(self) -> Path:
        """What each client's examples have paid under DP-SGD: client, examples, participations, epsilon."""
        return self.path / "example-privacy.csv"

    @property
    def client_states(self) -> Path:
        """What simulated clients remember from round to round; deleted when the run is completed."""
        return self.path / "client-states"

    @property
    def checkpoints(self) -> Path:
        """The folder of what the run can go on from: `app.checkpoints`."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def model(self) -> Path:
        """The final model, for ``keras.models.load_model``."""
        return self.path / "model.keras"

    @property
    def report(self) -> Path:
        """The page that shows it all."""
        return self.path / "report.html"

    @property
    def status(self) -> Path:
        """How the run stands, or how it ended."""
        return self.path / "status.json"

    def write_config(self, config: Mapping[str, Scalar]) -> None:
        """Write the run config, keys as in ``-c``."""
        atomic.write_text(self.config, to_toml(config))

    def write_versions(self, fingerprint: str, location: str, changed: str = "") -> None:
        """Write what is installed, with the fingerprint of the running code and the folder it was loaded from.

        ``changed`` says in which of it the processes differ that have worked on the run, "" where they do not.
        """
        versions = {**installed_versions(), "fingerprint": fingerprint, "location": location}
        self._write_json(self.versions, {**versions, CHANGED: changed} if changed else versions)

    def read_versions(self) -> Mapping[str, Any]:
        """Return what `write_versions` wrote last; nothing where it never did. Raises UserError for anything else."""
        return _read_json(self.versions)

    def write_population(
        self, clients: Sequence[ClientInfo], label_counts: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        """Write the population, column by column. ``label_counts`` maps a client id to its train examples per class.

        The matrix is left out unless it covers every client: in a deployment the server does not know the labels.
        """
        known = label_counts is not None and all(client.id in label_counts for client in clients)
        columns: dict[str, Any] = {
            "clients": [client.id for client in clients],
            "examples": [client.num_examples for client in clients],
            "device-classes": [client.device_class for client in clients],
            "regions": [client.region for client in clients],
            "label-counts": [list(label_counts[client.id]) for client in clients] if known and label_counts else None,
        }
        atomic.write_text(self.population, plain_json.dumps(columns) + "\n")

    def write_attackers(self, attack: str, clients: Sequence[str]) -> None:
        """Write who attacks, and how."""
        self._write_json(self.attackers, {"attack": attack, "clients": list(clients)})

    def write_audit(self, outcome: Mapping[str, Any]) -> None:
        """Write what an audit has found."""
        self._write_json(self.audit, outcome)

    def write_status(
        self, state: RunState, message: str = "", rounds: int = 0, resumed_after: Sequence[int] = ()
    ) -> None:
        """Write how the run stands; ``rounds`` are the finished ones, after some of which it was resumed."""
        told = {"state": state, "message": message, "rounds": rounds, "resumed-after": list(resumed_after)}
        self._write_json(self.status, told)

    def read_status(self) -> Mapping[str, Any]:
        """Return what `write_status` wrote last; nothing where it never did. Raises UserError for anything else."""
        return _read_json(self.status)

    def is_closed(self) -> bool:
        """Tell whether the run has ended and written its report, which a run without any record does not get."""
        state: RunState = self.read_status()["state"]
        return state != "running" and (self.report.exists() or not self.metrics.exists())

    def save_model(self, model: Saveable) -> None:
        """Write the final Keras model."""
        with whole_file(self.model) as temporary:
            model.save(str(temporary))

    def _write_json(self, path: Path, value: Mapping[str, Any]) -> None:
        atomic.write_text(path, plain_json.dumps(value, indent=2) + "\n")


def _read_json(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it, and the run can go on without.") from None


def file_name(name: str) -> str:
    """Return the name with every run of characters other than letters, digits, '.', '_' and '-' made one hyphen."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:MAX_NAME].strip("-.")
    return plain or "run"


def to_toml(config: Mapping[str, Scalar]) -> str:
    """Return flat TOML, a line per key in the given order. Raises TypeError for a value that is not a scalar."""
    return "".join(f"{_toml_key(key)} = {_toml_value(value)}\n" for key, value in config.items())


def _toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _toml_string(key)


def _toml_value(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _toml_string(value)
    raise TypeError(f"a run config holds scalars only, not {type(value).__name__}")


def _toml_string(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
