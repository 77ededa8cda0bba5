"""The checkpoints of a run: the newest few, each wholly there or not at all; the newest that can be read counts.

Beside them lies what privacy will have cost once the round in progress is over, written before anybody is asked: so a
run that goes on after its process was killed knows what it may have released, and never takes it for less. That is so
without checkpoints too.

A checkpoint is as confidential as what clients send: it holds what no model shows, as under DP-FTRL and matrix
factorisation the noise itself of a deployment, which later rounds take back; who has it can take the noise off.

A checkpoint that cannot be written must not end a run: it is a warning, and the run goes on without. What privacy costs
is another matter: where that cannot be written down, the round does not begin.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from app import atomic
from app.checkpoint_file import Content, DamagedError, from_bytes, parts_of
from app.errors import UserError
from strategies.errors import StrategyError
from strategies.snapshot import Snapshot
from strategies.updates import State

logger = logging.getLogger(__name__)

SUFFIX = ".checkpoint"
LEDGER = "ledger"


@dataclass(frozen=True)
class Begun:
    """The last round that was begun under privacy, and the ledger with it in."""

    round: int
    ledger: State


@dataclass(frozen=True)
class Checkpoints:
    """The folder of a run's checkpoints, for the owner's eyes only; the newest ``kept`` stay."""

    folder: Path
    kept: int = 3

    def write(self, state: Snapshot) -> None:
        """Write a checkpoint and delete those that are too many. Raises OSError, and then leaves what was there."""
        self._write(self._file(state.round), Content(state.facts(), state.groups()))
        numbers = self.rounds()
        earlier = [number for number in numbers if number <= state.round]
        for number in {*numbers} - {*earlier[-self.kept :]}:  # later ones are those that could not be read
            self._file(number).unlink(missing_ok=True)

    def newest(self) -> Snapshot | None:
        """Return the newest state that can be read, and warn of those that cannot; None where there is no checkpoint.

        Raises UserError where there are some and none can be read.
        """
        damaged = ""
        for number in reversed(self.rounds()):
            try:
                content = from_bytes(self._file(number).read_bytes())
                return Snapshot.of(content.facts, content.groups)
            except (OSError, DamagedError, StrategyError) as error:
                damaged = f"{self._file(number)} cannot be used: {error}"
                logger.warning("The checkpoint %s.", damaged)
        if damaged:
            raise UserError(f"The run cannot go on, as no checkpoint can be read; {damaged}. Start a new run.")
        return None

    def rounds(self) -> list[int]:
        """Return the rounds of which there is a checkpoint, in order, whether or not it can be read."""
        names = (path.stem for path in self.folder.glob(f"*{SUFFIX}"))
        return sorted(int(name) for name in names if name.isdecimal())

    def begin(self, round: int, ledger: State) -> None:
        """Write down a round that is about to begin, and the ledger with it in. Raises OSError."""
        self._write(self._begun, Content({"round": round}, {LEDGER: ledger}))

    def begun(self) -> Begun | None:
        """Return what `begin` wrote last; None where it never did. Raises UserError where it cannot be read."""
        try:
            content = from_bytes(self._begun.read_bytes())
            return Begun(int(content.facts["round"]), content.groups[LEDGER])
        except FileNotFoundError:
            return None
        except (OSError, DamagedError) as error:
            raise UserError(
                f"What the run has cost in privacy cannot be read from {self._begun} ({error}), so it cannot go on: "
                "start a new run, and count the budget of this one as spent."
            ) from None

    def tidy(self) -> None:
        """Delete what processes that were killed have left half written; only for who alone works on the run."""
        for left in self.folder.glob(".*.tmp*"):
            left.unlink(missing_ok=True)

    @property
    def _begun(self) -> Path:
        return self.folder / "begun"

    def _file(self, round: int) -> Path:
        return self.folder / f"{round:07d}{SUFFIX}"

    def _write(self, path: Path, content: Content) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        atomic.write_parts(path, parts_of(content), atomic.PRIVATE)
