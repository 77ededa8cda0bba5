"""The pool of workers: as many Ray actors as were placed, kept from run to run, replaced when they die.

A pool knows nothing of rounds: it starts workers, hands calls to them and says what came of each. A worker that dies is
replaced at once by one that goes wherever the cluster has room; where it has none, the new one waits for it, and so
the pool shrinks and grows again by itself.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from queue import SimpleQueue
from typing import Any

import ray
from flwr.app import ArrayRecord
from ray.exceptions import RayActorError, RayError, RayTaskError

from app.errors import UserError
from simulation import blocks, lines
from simulation.calls import Call, Done, SharedArrays
from simulation.resources import Placement
from simulation.workers import Answer, ClientWorker, RunSpec

IN_FLIGHT = 2  # calls that a worker holds at most: the one it is at and the next; its outbox has as many blocks
MOST_FAILED_STARTS = 3

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Worker:
    """The driver's side of one actor. It is ``ready`` once it has answered for the first time.

    ``line`` is that to a worker that shares memory with the driver; calls to others go through Ray.
    """

    slot: int
    actor: Any
    ready: bool = False
    line: Connection | None = None
    serving: ray.ObjectRef[None] | None = None
    run: RunSpec | None = None
    calls: deque[Call] = field(default_factory=deque)
    inbox: blocks.Inbox = field(default_factory=blocks.Inbox)


class RayCalls:
    """Calls through Ray that are under way. For whoever waits for lines too, a ``bell`` rings for each that ends."""

    def __init__(self) -> None:
        self.bell, self._rope = Pipe(duplex=False)
        self._workers: dict[Future[Any], Worker] = {}
        self._ended: SimpleQueue[Future[Any]] = SimpleQueue()

    def watch(self, reference: ray.ObjectRef[Any], worker: Worker) -> None:
        """Ring when this call to a worker has ended."""
        future = reference.future()
        self._workers[future] = worker
        future.add_done_callback(self._ring)

    def _ring(self, future: Future[Any]) -> None:
        self._ended.put(future)
        self._rope.send_bytes(b".")

    def finished(self) -> tuple[Worker | None, Future[Any]]:
        """Return the call for which the bell rang; no worker where it was forgotten meanwhile."""
        self.bell.recv_bytes()
        future = self._ended.get()
        return self._workers.pop(future, None), future

    def forget(self, worker: Worker) -> None:
        """Care no more for the calls to a worker."""
        self._workers = {future: other for future, other in self._workers.items() if other is not worker}


class WorkerPool:
    """Starts workers as placed. ``close`` ends them; until then every death is made good."""

    def __init__(self, placement: Placement, environment: dict[str, str], shared_memory: bool = True) -> None:
        self.placement = placement
        hidden = {} if placement.num_gpus else {"CUDA_VISIBLE_DEVICES": "-1"}
        self._environment = {**environment, **hidden}
        self._shelf = blocks.Shelf() if shared_memory and blocks.available() else None
        self._probe = None if self._shelf is None else blocks.Probe(self._shelf)
        self._secret = lines.new_secret()
        self._ray = RayCalls()
        self._failed_starts = 0
        self.workers = [self._start(slot) for slot in range(placement.workers)]

    def share(self, record: ArrayRecord) -> SharedArrays:
        """Make a record ready to be sent with many calls."""
        return SharedArrays(record, self._shelf)

    def send(self, worker: Worker, call: Call) -> None:
        """Hand a call to a ready worker, which does its calls in their order."""
        begin, worker.run = worker.run is not call.run, call.run
        worker.calls.append(call)
        if worker.line is None:
            if begin:
                worker.actor.begin.remote(call.run)
            self._ray.watch(worker.actor.execute.remote(call.request(local=False)), worker)
            return
        with contextlib.suppress(OSError):  # it is dead, which `wait` will find
            if begin:
                lines.say(worker.line, call.run)
            lines.say(worker.line, call.request(local=True))

    def wait(self, seconds: float) -> list[Done]:
        """Return the calls that are done, as soon as there are any or a worker has become ready, or time is over.

        A worker's death ends all its calls; the one it was at comes first. Raises UserError where no worker starts.
        """
        seconds = min(seconds, max(0.0, self._next_expiry() - time.time()))
        lined: dict[Any, Worker] = {worker.line: worker for worker in self.workers if worker.line is not None}
        done: list[Done] = []
        for woken in wait_for([self._ray.bell, *lined], seconds):
            done += self._take(*self._ray.finished()) if woken is self._ray.bell else self._hear(lined[woken])
        return done + self._hung()

    def has_work(self) -> bool:
        """Tell whether anything is under way: a call, or a worker's start."""
        return any(worker.calls or not worker.ready for worker in self.workers)

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            self._end(worker)
        self.workers = []

    def _start(self, slot: int) -> Worker:
        placement = self.placement
        options = {"num_cpus": placement.num_cpus, "num_gpus": placement.num_gpus, "scheduling_strategy": "SPREAD"}
        actor: Any = ray.remote(ClientWorker).options(**options).remote(slot, self._environment)
        worker = Worker(slot, actor)
        self._ray.watch(actor.ready.remote(self._probe and self._probe.sent, self._secret), worker)
        return worker

    def _end(self, worker: Worker) -> None:
        ray.kill(worker.actor)
        self._ray.forget(worker)
        if worker.line is not None:
            worker.line.close()

    def _take(self, worker: Worker | None, future: Future[Any]) -> list[Done]:
        """Take what Ray has brought: the first word of a worker, an answer, or its end."""
        if worker is None:
            return []
        try:
            value = future.result()
            if not worker.ready:
                return self._begin(worker, value)
        except RayTaskError as error:
            if not worker.ready:
                return self._start_failed(worker, error)
            return [Done(worker.calls.popleft(), Answer(None, (0, f"{type(error).__name__}: {error}")))]
        except (RayError, *lines.FAILED_TO_OPEN) as error:
            return self._died(worker, error) if worker.ready else self._start_failed(worker, error)
        return [Done(worker.calls.popleft(), value)]

    def _begin(self, worker: Worker, address: bytes | None) -> list[Done]:
        if address is not None:
            worker.serving = worker.actor.serve.remote()
            worker.line = lines.open_line(address, self._secret)
        worker.ready, self._failed_starts = True, 0
        return []

    def _hear(self, worker: Worker) -> list[Done]:
        """Take an answer from a worker's line, or learn that there will be none."""
        assert worker.line is not None
        try:
            answer = lines.hear(worker.line)
        except (EOFError, OSError):
            return self._died(worker, _end_of(worker.serving))
        return [Done(worker.calls.popleft(), answer if isinstance(answer, Answer) else worker.inbox.read(answer))]

    def _died(self, worker: Worker, error: BaseException) -> list[Done]:
        logger.warning("Worker %d died (%s): another takes its place", worker.slot, _cause(error))
        return self._replace(worker)

    def _replace(self, worker: Worker) -> list[Done]:
        self._end(worker)
        self.workers[worker.slot] = self._start(worker.slot)
        return [Done(call, None, begun=position == 0) for position, call in enumerate(worker.calls)]

    def _start_failed(self, worker: Worker, error: BaseException) -> list[Done]:
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


def _end_of(serving: ray.ObjectRef[None] | None, seconds: float = 2.0) -> BaseException:
    """Ask Ray how a worker ended whose line broke off; it hears of it a little later."""
    try:
        ray.get(serving, timeout=seconds)  # type: ignore[arg-type]
    except RayError as error:
        return error
    return EOFError()


def _cause(error: BaseException) -> str:
    """Say in few words what Ray says in many lines, among which are always all the causes it knows of."""
    if "running low on memory" in str(error):
        return "the machine ran out of memory"
    if isinstance(error, RayTaskError):
        return str(error).strip().splitlines()[-1]
    ended = isinstance(error, RayActorError | EOFError | OSError)
    return "its process ended" if ended else type(error).__name__
