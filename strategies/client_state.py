"""What a client remembers from round to round, on its own node, and the one word by which the server commits it.

Each request says of every client in which round its update counted last (``committed``, 0 = never). The client loads
what it wrote in that round, trains, and writes its new state under the present round. Nothing more is ever said: where
the reply is lost, late, rejected or surplus, the round is skipped, the node is killed or the server goes on from a
checkpoint, the next request names the last round that did count, and what was written since is deleted unread. So
nothing counts twice, and nothing that did not count is built upon. Who does build on it, as error feedback does, asks
for what it wrote `last`, and is told whether that counted.

A request also names the rounds that the server could go back to, those of its checkpoints. Of each the client keeps
what it would be asked for then, and besides what it wrote last and what counted last: two states more than there are
checkpoints at most, and the one that it is writing, however many rounds lie between them.

A file is either wholly there or not at all. One that is missing or damaged is a warning, and the client starts anew.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

import numpy as np
from flwr.app import Context, Message

from strategies import private_file, wire
from strategies.updates import AnyArray, State

logger = logging.getLogger(__name__)

_READABLE = 40


@dataclass(frozen=True)
class ClientStates:
    """The states of the clients of one run on one node: ``<folder>/<client>/<round>.npz``, for the owner's eyes only.

    ``durable`` files are synced to the disk; where nothing outlives the machine, that is not worth the wait.
    """

    folder: Path
    durable: bool = True

    def load(self, client: str, committed: int, round: int, fresh: State, checkpoints: Sequence[int] = ()) -> State:
        """Return what the client wrote in the round ``committed``; ``fresh`` where that is 0, or nothing can be read.

        It must have the names, shapes and dtypes of ``fresh``. Deletes what no request will ask for any more, also if
        the server goes back to one of the ``checkpoints``.
        """
        own = self._of(client)
        _keep(own, [number for number in _rounds(own) if number <= committed], (*checkpoints, committed), round)
        return fresh if not committed else _usable(own / f"{committed}.npz", client, fresh) or fresh

    def last(
        self, client: str, committed: int, round: int, fresh: State, checkpoints: Sequence[int] = ()
    ) -> tuple[State, bool]:
        """Return what the client wrote last before this round, and whether that counted: for who builds on it anyway.

        ``fresh``, as if it counted, where the client has written nothing since ``committed`` that can be read: what is
        older has been built upon already. Deletes what no request will ask for any more, as `load` does.
        """
        own = self._of(client)
        earlier = [number for number in _rounds(own) if number < round]
        _keep(own, earlier, (*checkpoints, committed, round), round)
        for number in reversed([number for number in earlier if number >= committed]):
            if (state := _usable(own / f"{number}.npz", client, fresh)) is not None:
                return state, number == committed
        if committed and committed not in earlier:
            logger.warning("Client %s starts anew, as its state of round %d is missing", client, committed)
        return fresh, True

    def save(self, client: str, round: int, state: State) -> None:
        """Write what will be loaded if this round counts. Raises OSError, and then leaves what was there."""
        own = self._of(client)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        own.mkdir(mode=0o700, exist_ok=True)
        private_file.write(own / f"{round}.npz", lambda file: _write(file, state), self.durable)

    def _of(self, client: str) -> Path:
        return self.folder / file_name(client)


StatesOf = Callable[[Context, str], ClientStates]
"""Where the clients of a node keep their states in the run of this name."""


@dataclass(frozen=True)
class Turn:
    """A client's turn in a round: what it starts from, and what it leaves for the next if this one counts.

    ``checkpoints`` are the rounds that the server could go back to.
    """

    states: ClientStates
    client: str
    committed: int
    round: int
    checkpoints: Sequence[int] = ()

    @classmethod
    def of(cls, message: Message, context: Context, states: StatesOf) -> Turn:
        """Read the request to a single client, as `strategies.client.packing_mod` makes it.

        Raises StrategyError where it says nothing of the client's state.
        """
        config = wire.config_of(message)
        run, client = wire.text(config, wire.RUN), wire.text(config, wire.CLIENT)
        committed, round = (int(wire.number(config, key)) for key in (wire.COMMITTED_ROUND, wire.ROUND))
        return cls(states(context, run), client, committed, round, wire.checkpoints_of(config))

    def load(self, fresh: State) -> State:
        """Return the client's state, ``fresh`` where there is none; see `ClientStates.load`."""
        return self.states.load(self.client, self.committed, self.round, fresh, self.checkpoints)

    def last(self, fresh: State) -> tuple[State, bool]:
        """Return what the client wrote last, and whether that counted; see `ClientStates.last`."""
        return self.states.last(self.client, self.committed, self.round, fresh, self.checkpoints)

    def save(self, state: State) -> None:
        """Write the client's next state; see `ClientStates.save`."""
        self.states.save(self.client, self.round, state)


def file_name(id: str) -> str:
    """Return a name for a file or folder that no other id has, whatever the id: its readable part, and a digest."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", id)[:_READABLE]
    return f"{plain}-{hashlib.sha256(id.encode(errors='surrogatepass')).hexdigest()[:16]}"


def _rounds(own: Path) -> list[int]:
    """Return the rounds of which a client has a file, in order."""
    return sorted(int(path.stem) for path in own.glob("*.npz") if path.stem.isdecimal())


def _keep(own: Path, candidates: Sequence[int], needed: Iterable[int], round: int) -> None:
    """Delete the states before this round but the newest candidate up to each of the rounds that are ``needed``.

    Those from this round on stay: they may be of a server that went on from an older checkpoint, and will be written
    again before anybody asks for them, or of a request that has overtaken this one. What killed processes left goes.
    """
    kept = {max((number for number in candidates if number <= until), default=0) for until in needed}
    for number in _rounds(own):
        if number < round and number not in kept:
            (own / f"{number}.npz").unlink(missing_ok=True)
    private_file.delete_abandoned(own)


def _usable(path: Path, client: str, fresh: State) -> State | None:
    """Return the state in a file, if it has names, shapes and dtypes of ``fresh``; warns where it cannot be used."""
    try:
        return _checked(_read(path), fresh)
    except Exception as error:  # a damaged file makes zip and NumPy raise whatever they can
        logger.warning(
            "Client %s starts anew, as its state of round %s cannot be used: %s: %s",
            *(client, path.stem, type(error).__name__, error),
        )
        return None


def _read(path: Path) -> dict[str, AnyArray]:
    """Read all arrays. Zip checks each one's checksum before NumPy, which never unpickles, looks at it."""
    with ZipFile(path) as archive:
        files = {name.removesuffix(".npy"): io.BytesIO(archive.read(name)) for name in archive.namelist()}
    return {name: np.lib.format.read_array(file, allow_pickle=False) for name, file in files.items()}


def _checked(state: State, like: State) -> State:
    described = [{name: (array.shape, array.dtype) for name, array in arrays.items()} for arrays in (state, like)]
    if described[0] != described[1]:
        raise ValueError(f"it is of another model: it holds {described[0]}, and not {described[1]}")
    return state


def _write(file: BinaryIO, state: State) -> None:
    np.savez(file, allow_pickle=False, **state)
