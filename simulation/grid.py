"""Flower's ``Grid`` on a pool of Ray workers: ServerApp, strategies and ClientApp run on it unchanged.

Differences from Flower's simulation engine: nobody polls; the weights of a round are laid out once for all workers;
many clients travel in one message; a message for listed clients goes to whichever worker is free, in the order in which
messages were sent, so that a slow worker holds nobody up; replies are handed on as they come; the clients of a worker
that died run again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.app.user_config import UserConfig

from simulation.calls import Call, Done, SharedArrays, expiry
from simulation.factoring import packs
from simulation.pool import IN_FLIGHT, Worker, WorkerPool
from simulation.retries import Letter
from simulation.virtual import VirtualGrid
from simulation.workers import RunSpec
from strategies import wire

LEAST_PACK_SECONDS = 0.1  # a message takes driver and worker 2.3 ms together
LONGEST_WAIT = 3600.0  # s at a time: what waits for a socket counts milliseconds in 32 bits

_runs = count(1)


@dataclass(eq=False)
class Job:
    """A call that waits for a worker. ``home`` is the slot of the only one that may do it while it is there.

    One that is ``alone`` is the only call that its worker holds, so that nobody else can be blamed for its death: the
    answer to a call that was done just before may die with the process.
    """

    letter: Letter
    call: Call
    home: int | None = None
    alone: bool = False


class RayGrid(VirtualGrid):
    """The nodes of one run. A pool serves one run at a time; what is left of an earlier one is ignored.

    ``client_app`` is a reference, ``module:object``. Messages that list no clients (describe) run where they are sent.
    """

    def __init__(self, pool: WorkerPool, client_app: str, run_config: UserConfig, num_nodes: int = 0) -> None:
        super().__init__()
        self._pool = pool
        self._nodes = num_nodes or len(pool.workers)
        self._run = RunSpec(next(_runs), client_app, dict(run_config), self._nodes)
        self._queue: deque[Job] = deque()
        self._overdue: list[Job] = []
        self._under_way: dict[Call, Job] = {}
        self._arrived: dict[str, Message] = {}
        self._shared: dict[str, SharedArrays] = {}
        self._paces: dict[str, float] = {}
        self._loads: dict[str, float] = {}

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes' ids; there are as many as workers were placed, whichever of them are alive."""
        return list(range(1, self._nodes + 1))

    def packs(self, cohort: Sequence[tuple[str, float]]) -> list[tuple[int, list[str]]]:
        """Say which of these clients, given with their loads, travel together and to which node, in what order."""
        self._loads = dict(cohort)
        workers = len(self._pool.workers)
        pace = max(self._paces.values(), default=0.0)  # seconds per load; of the slowest kind of message
        found = packs(cohort, workers, LEAST_PACK_SECONDS / pace if pace else 0.0)
        return [(position % self._nodes + 1, clients) for position, clients in enumerate(found)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; those that idle workers can begin with are on their way.

        Replies for which nobody has come in their time are dropped: those of clients that were late.
        """
        self._arrived = {key: reply for key, reply in self._arrived.items() if expiry(reply) > time.time()}
        ids = []
        for message in messages:
            ids.append(self._number(message))
            letter = Letter(message)
            home = None if letter.clients else (message.metadata.dst_node_id - 1) % len(self._pool.workers)
            self._queue.append(Job(letter, self._call(message, message.content), home))
        self._dispatch()
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there now."""
        self._work(0.0)
        return self._take(message_ids)

    def next_arrivals(self, message_ids: Collection[str], timeout: float) -> list[Message]:
        """Wait for the next replies to these messages; [] when ``timeout`` seconds are over.

        What nobody has begun by then is only done if somebody asks for it again.
        """
        message_ids = set(message_ids)
        self._resume(message_ids)
        deadline = time.monotonic() + timeout
        while not (replies := self._take(message_ids)):
            left = deadline - time.monotonic()
            if left <= 0 or not self._pool.has_work():
                self._put_off(message_ids)
                return []
            self._work(min(left, LONGEST_WAIT))
        return replies

    def _take(self, message_ids: Iterable[str]) -> list[Message]:
        if not self._arrived:
            return []
        return [self._arrived.pop(message_id) for message_id in message_ids if message_id in self._arrived]

    def _put_off(self, message_ids: set[str]) -> None:
        self._overdue += [job for job in self._queue if job.letter.message.metadata.message_id in message_ids]
        self._queue = deque(job for job in self._queue if job not in self._overdue)

    def _resume(self, message_ids: set[str]) -> None:
        if self._overdue:
            again = [job for job in self._overdue if job.letter.message.metadata.message_id in message_ids]
            self._overdue = [job for job in self._overdue if job not in again and job.call.expires > time.time()]
            self._queue.extend(again)
            self._dispatch()

    def _work(self, seconds: float) -> None:
        """Wait until something happens, and give the workers what is next before the caller looks at the replies."""
        finished = [self._finish(done) for done in self._pool.wait(seconds)]
        self._dispatch()
        for reply in finished:
            if reply is not None:
                self._arrived[reply.metadata.reply_to_message_id] = reply

    def _finish(self, done: Done) -> Message | None:
        job = self._under_way.pop(done.call, None)
        if job is None:  # of an earlier run
            return None
        if not done.begun:
            self._queue.appendleft(job)
            return None
        if done.answer is not None:
            self._learn_pace(job.call, done.answer.seconds)
        outcome = job.letter.take(job.call.content, done.answer)
        if isinstance(outcome, Message):
            return outcome
        again = [self._call(job.letter.message, content) for content in reversed(outcome)]
        self._queue.extendleft(Job(job.letter, call, job.home, alone=True) for call in again)
        return None

    def _learn_pace(self, call: Call, seconds: float) -> None:
        """Remember how many seconds a unit of load took, per kind of message; the last one says the most."""
        config = wire.settings_of(call.content)
        clients = wire.text_list(config, wire.CLIENTS) if wire.CLIENTS in config else []
        if load := sum(self._loads.get(client, 0.0) for client in clients):
            self._paces[call.message.metadata.message_type] = seconds / load

    def _dispatch(self) -> None:
        """Give every idle worker its next call, and busy ones one more while the queue is longer than the workers."""
        if not self._queue:
            return
        ready = [worker for worker in self._pool.workers if worker.ready]
        for held in range(IN_FLIGHT):
            for worker in ready:
                if len(worker.calls) == held and (held == 0 or len(self._queue) > len(ready)):
                    self._give(worker)

    def _give(self, worker: Worker) -> None:
        if worker.calls and self._is_alone(worker.calls[0]):
            return
        job = self._next(worker)
        if job is not None:
            self._under_way[job.call] = job
            self._pool.send(worker, job.call)

    def _is_alone(self, call: Call) -> bool:
        return call in self._under_way and self._under_way[call].alone

    def _next(self, worker: Worker) -> Job | None:
        """Take out of the queue the first job that this worker may do now; what has outlived its time, nobody does."""
        for position, job in enumerate(self._queue):
            if self._may_do(worker, job):
                del self._queue[position]
                return self._next(worker) if job.call.expires < time.time() else job
        return None

    def _may_do(self, worker: Worker, job: Job) -> bool:
        at_home = job.home is None or job.home == worker.slot or not self._pool.workers[job.home].ready
        return at_home and not (job.alone and worker.calls)

    def _call(self, message: Message, content: RecordDict) -> Call:
        arrays = {
            name: self._share(name, record) for name, record in content.items() if isinstance(record, ArrayRecord)
        }
        return Call(self._run, message, content, arrays)

    def _share(self, name: str, record: ArrayRecord) -> SharedArrays:
        """Lay a record out for the workers, once for all the messages of a round, which carry the same object."""
        if name not in self._shared or self._shared[name].record is not record:
            self._shared[name] = self._pool.share(record)
        return self._shared[name]
