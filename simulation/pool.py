"""The pool of workers: as many Ray actors as were placed, kept from run to run, replaced when they die.

A pool knows nothing of rounds: it starts workers, hands calls to them and says what came of each. A worker that dies is
replaced at once by one that goes wherever the cluster has room; where it has none, the new one waits for it, and so
the pool shrinks and grows again by itself.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import ray
from flwr.app import ArrayRecord, Message, RecordDict
from ray.exceptions import RayActorError, RayError, RayTaskError

from app.errors import UserError
from simulation import blocks
from simulation.resources import Placement
from simulation.workers import Answer, ClientWorker, Request, RunSpec, Shared

IN_FLIGHT = 2  # calls that a worker holds at most: the one it is at and the next; its outbox has as many blocks
MOST_FAILED_STARTS = 3

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Call:
    """A message for one worker, or a part of it: ``content``, of which ``arrays`` are the records of arrays."""

    run: RunSpec
    message: Message
    content: RecordDict
    arrays: Mapping[str, SharedArrays]

    @property
    def expires(self) -> float:
        """When whoever is still at it has hung (s, as `time.time`)."""
        return self.message.metadata.created_at + self.message.metadata.ttl

    def request(self, local: bool) -> Request:
        """Return what travels to a worker on this machine, or on another."""
        metadata = self.message.metadata
        small = RecordDict({name: record for name, record in self.content.items() if name not in self.arrays})
        places = {name: shared.place(local) for name, shared in self.arrays.items()}
        return Request(metadata.message_type, metadata.group_id, small, places)


class SharedArrays:
    """A record of arrays that many calls carry: laid out once for all workers of this machine, once for all others."""

    _numbers = count(1)

    def __init__(self, record: ArrayRecord, shelf: blocks.Shelf | None) -> None:
        self.record = record
        self._number = next(self._numbers)
        self._lent = None if shelf is None else shelf.write(record)
        self._stored: list[ray.ObjectRef[ArrayRecord]] = []

    def place(self, local: bool) -> Shared:
        """Return where a worker finds the record."""
        if local and self._lent is not None:
            return Shared(self._number, self._lent.parcel, [])
        if not self._stored:
            self._stored = [ray.put(self.record)]
        return Shared(self._number, None, self._stored)


@dataclass(eq=False)
class Worker:
    """The driver's side of one actor. It is ``ready`` once it has answered for the first time."""

    slot: int
    actor: Any
    ready: bool = False
    local: bool = False
    run: RunSpec | None = None
    calls: deque[Call] = field(default_factory=deque)
    inbox: blocks.Inbox = field(default_factory=blocks.Inbox)


@dataclass(frozen=True)
class Done:
    """What came of a call: an answer, or None where the worker died; it may not have ``begun`` with it then."""

    call: Call
    answer: Answer | None
    begun: bool = True


class WorkerPool:
    """Starts workers as placed. ``close`` ends them; until then every death is made good."""

    def __init__(self, placement: Placement, environment: dict[str, str], shared_memory: bool = True) -> None:
        self.placement = placement
        hidden = {} if placement.num_gpus else {"CUDA_VISIBLE_DEVICES": "-1"}
        self._environment = {**environment, **hidden}
        self._shelf = blocks.Shelf() if shared_memory and blocks.available() else None
        self._probe = None if self._shelf is None else blocks.Probe(self._shelf)
        self._pending: dict[ray.ObjectRef[Any], Worker] = {}
        self._failed_starts = 0
        self.workers = [self._start(slot) for slot in range(placement.workers)]

    def share(self, record: ArrayRecord) -> SharedArrays:
        """Make a record ready to be sent with many calls."""
        return SharedArrays(record, self._shelf)

    def send(self, worker: Worker, call: Call) -> None:
        """Hand a call to a ready worker, which does its calls in their order."""
        if worker.run is not call.run:
            worker.actor.begin.remote(call.run)
            worker.run = call.run
        reference = worker.actor.execute.remote(call.request(worker.local))
        worker.calls.append(call)
        self._pending[reference] = worker

    def wait(self, seconds: float) -> list[Done]:
        """Return the calls that are done, as soon as there are any or a worker has become ready, or time is over.

        A worker's death ends all its calls; the one it was at comes first. Raises UserError where no worker starts.
        """
        seconds = min(seconds, max(0.0, self._next_expiry() - time.time()))
        first, rest = ray.wait(list(self._pending), num_returns=1, timeout=seconds)
        more = ray.wait(rest, num_returns=len(rest), timeout=0)[0] if first and rest else []
        done = [end for reference in (*first, *more) for end in self._take(reference)]
        return done + self._hung()

    def has_work(self) -> bool:
        """Tell whether anything is under way: a call, or a worker's start."""
        return bool(self._pending)

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            ray.kill(worker.actor)
        self.workers, self._pending = [], {}

    def _start(self, slot: int) -> Worker:
        placement = self.placement
        options = {"num_cpus": placement.num_cpus, "num_gpus": placement.num_gpus, "scheduling_strategy": "SPREAD"}
        actor: Any = ray.remote(ClientWorker).options(**options).remote(slot, self._environment)
        worker = Worker(slot, actor)
        self._pending[actor.ready.remote(self._probe and self._probe.sent)] = worker
        return worker

    def _take(self, reference: ray.ObjectRef[Any]) -> list[Done]:
        worker = self._pending.pop(reference, None)
        if worker is None:  # it died with another call that was done at the same instant
            return []
        try:
            value = ray.get(reference)
        except RayTaskError as error:
            if not worker.ready:
                return self._start_failed(worker, error)
            return [Done(worker.calls.popleft(), Answer(None, (0, f"{type(error).__name__}: {error}")))]
        except RayError as error:
            return self._died(worker, error) if worker.ready else self._start_failed(worker, error)
        if not worker.ready:
            worker.ready, worker.local, self._failed_starts = True, value, 0
            return []
        answer = value if isinstance(value, Answer) else worker.inbox.read(value)
        return [Done(worker.calls.popleft(), answer)]

    def _died(self, worker: Worker, error: RayError) -> list[Done]:
        logger.warning("Worker %d died (%s): another takes its place", worker.slot, _cause(error))
        return self._replace(worker)

    def _replace(self, worker: Worker) -> list[Done]:
        ray.kill(worker.actor)
        self._pending = {ref: other for ref, other in self._pending.items() if other is not worker}
        self.workers[worker.slot] = self._start(worker.slot)
        return [Done(call, None, begun=position == 0) for position, call in enumerate(worker.calls)]

    def _start_failed(self, worker: Worker, error: RayError) -> list[Done]:
        self._failed_starts += 1
        if self._failed_starts >= MOST_FAILED_STARTS:
            raise UserError(
                f"No worker could be started in {MOST_FAILED_STARTS} attempts ({_cause(error)}): set --workers to "
                "fewer, or find the cause with --engine inline."
            )
        return self._replace(worker)

    def _hung(self) -> list[Done]:
        """Replace the workers whose call has outlived its time."""
        now = time.time()
        hung = [worker for worker in self.workers if worker.calls and worker.calls[0].expires <= now]
        for worker in hung:
            logger.warning("Worker %d does not come back from its clients: another takes its place", worker.slot)
        return [done for worker in hung for done in self._replace(worker)]

    def _next_expiry(self) -> float:
        return min((worker.calls[0].expires for worker in self.workers if worker.calls), default=float("inf"))


def _cause(error: BaseException) -> str:
    """Say in few words what Ray says in many lines, among which are always all the causes it knows of."""
    if "running low on memory" in str(error):
        return "the machine ran out of memory"
    if isinstance(error, RayTaskError):
        return str(error).strip().splitlines()[-1]
    return "its process ended" if isinstance(error, RayActorError) else type(error).__name__
