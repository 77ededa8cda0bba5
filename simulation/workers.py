"""The process that trains virtual clients: a Ray actor with a ClientApp, warm from message to message and run to run.

Only the driver's commands reach it, one at a time and in order. What is worth keeping (TensorFlow, data, compiled
functions, the weights of the round) stays in the process; what belongs to a run (its config and Flower's Context) goes
with the next run.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Listener

import ray
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from app.simulated_process import simulated_here
from simulation import lines
from simulation.blocks import Inbox, Outbox, Parcel, SentProbe
from simulation.heap import keep_freed_memory
from simulation.virtual import RUN_ID, answer, take_identity


@dataclass(frozen=True)
class Shared:
    """Where a record of arrays lies: in a block of this machine, or, where that is None, in Ray's store.

    ``number`` is another for every record. ``stored`` is a list of one, as Ray would fetch a bare reference anew for
    each call.
    """

    number: int
    parcel: Parcel | None
    stored: list[ray.ObjectRef[ArrayRecord]]


@dataclass(frozen=True)
class RunSpec:
    """What a worker has to know of a run: its number, the ClientApp as ``module:object``, run config, nodes in all."""

    number: int
    client_app: str
    run_config: UserConfig
    num_nodes: int


@dataclass(frozen=True)
class Request:
    """A message on its way to a worker; its records of arrays travel apart, as one of them serves a whole round."""

    kind: str
    group: str
    content: RecordDict
    arrays: Mapping[str, Shared]


@dataclass(frozen=True)
class Answer:
    """What came of a request: the content of a reply or an error, and the seconds it took."""

    content: RecordDict | None
    error: tuple[int, str] = (0, "")
    seconds: float = 0.0


class ClientWorker:
    """Answers requests as the node ``index`` of a run. Made a Ray actor by `simulation.pool`."""

    def __init__(self, index: int, environment: Mapping[str, str]) -> None:
        """Set the environment, of which TensorFlow reads its part when it is imported."""
        os.environ.update(environment)
        keep_freed_memory()
        take_identity()
        self._index = index
        self._inbox = Inbox()
        self._outbox: Outbox | None = None
        self._listener: Listener | None = None
        self._run: RunSpec | None = None
        self._context: Context | None = None
        self._last: dict[object, ArrayRecord] = {}

    def ready(self, probe: SentProbe | None, secret: bytes) -> bytes | None:
        """Return where to open a line, if this process sees the driver's shared memory, and so may answer by it."""
        if probe is None or not probe.seen(self._inbox):
            return None
        self._outbox, self._listener = Outbox(), lines.listen(secret)
        return lines.address_of(self._listener)

    def serve(self) -> None:
        """Answer what the driver says on its line, until it hangs up."""
        assert self._listener is not None
        lines.serve(self._listener, self._answer)

    def _answer(self, said: RunSpec | Request) -> Parcel | Answer | None:
        if isinstance(said, RunSpec):
            self.begin(said)
            return None
        try:
            return self.execute(said)
        except Exception as error:
            return Answer(None, (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"{type(error).__name__}: {error}"))

    def begin(self, run: RunSpec) -> None:
        """Belong to a new run, with a fresh context."""
        self._run, self._last = run, {}
        node: UserConfig = {"partition-id": self._index % run.num_nodes, "num-partitions": run.num_nodes}
        self._context = Context(RUN_ID, self._index + 1, node, RecordDict(), dict(run.run_config))

    def execute(self, request: Request) -> Parcel | Answer:
        """Answer a request; whatever the ClientApp raises, also as it is imported, is an error in the answer."""
        start = time.perf_counter()
        content, error = self._reply(request)
        done = Answer(content, error, time.perf_counter() - start)
        return done if self._outbox is None else self._outbox.write(done)

    def _reply(self, request: Request) -> tuple[RecordDict | None, tuple[int, str]]:
        assert self._run is not None and self._context is not None
        try:
            app = load_app(self._run.client_app)
        except Exception as error:
            return None, (ErrorCode.LOAD_CLIENT_APP_EXCEPTION, f"{type(error).__name__}: {error}")
        content = RecordDict({**request.content, **self._arrays(request.arrays)})
        message = Message(content, self._context.node_id, request.kind, group_id=request.group)
        with simulated_here():  # which Ray would have to be asked for every client otherwise
            reply = answer(app, message, self._context)
        if reply.has_error():
            return None, (reply.error.code, reply.error.reason or "")
        return reply.content, (0, "")

    def _arrays(self, shared: Mapping[str, Shared]) -> dict[str, ArrayRecord]:
        """Return the records; one that the last request had too is the same object, so that it is decoded once."""
        kept = self._last
        if shared:
            self._last = {place.number: kept.get(place.number) or self._fetch(place) for place in shared.values()}
        return {name: self._last[place.number] for name, place in shared.items()}

    def _fetch(self, shared: Shared) -> ArrayRecord:
        record = ray.get(shared.stored[0]) if shared.parcel is None else self._inbox.read(shared.parcel)
        assert isinstance(record, ArrayRecord)
        return record


def load_app(reference: str) -> ClientApp:
    """Import the ClientApp that ``module:object`` names."""
    module, _, name = reference.partition(":")
    app = getattr(importlib.import_module(module), name)
    if not isinstance(app, ClientApp):
        raise TypeError(f"'{reference}' is a {type(app).__name__}, but must be a Flower ClientApp.")
    return app
