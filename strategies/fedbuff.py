"""FedBuff: clients train all the time, and the server steps whenever a buffer of updates is full.

Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba: "Federated Learning with Buffered Asynchronous Aggregation", 2022,
algorithm 1: ``concurrency`` clients train, each from the model that was current when it began; one that has finished is
replaced at once by another. With ``buffer_size`` good updates the server steps along

    sum(w_i s(tau_i) delta_i) / sum(w_i),    s(tau) = (1 + tau)^-exponent,

where tau_i is how many steps the server has made since the client began, so that age shortens the step. What differs
from the paper: w_i is what the aggregator counts (the paper: 1), the aggregator can be any that takes single updates,
and an update of more than ``max_staleness`` steps can be rejected.

Whatever arrives at one instant is taken in the order of client ids, and only then do others begin: with equal durations
and a buffer of the whole cohort this is the synchronous run to the bit. In a simulated world the order of arrivals is
that of its clock, and the run is reproducible; in a deployment it is that of real life, and is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from strategies import wire
from strategies.admission import Reason
from strategies.clock import World
from strategies.composition import Composition
from strategies.compression.downlink import Differences
from strategies.draws import Draws
from strategies.errors import StrategyError
from strategies.federated import CODEC, GRACE, FederatedStrategy
from strategies.in_flight import Model, begun_of, models_of, remembered
from strategies.pace import Buffered, Pace
from strategies.population import Population
from strategies.privacy.participations import examples_of
from strategies.replies import Outcome, Rejection
from strategies.requests import RequestWriter, weighed
from strategies.rounds import RoundProgress, rate_of
from strategies.seeding import child_seed
from strategies.slots import Flight, Origin, Slots
from strategies.snapshot import PaceMemory
from strategies.step_fold import StepFold
from strategies.terms import RoundTerms
from strategies.updates import Update
from strategies.uplink import Uplink

BASE_VERSION = "base-version"  # in the settings of a request: how many steps had made the model that it carries
PATIENCE = 10  # a step gives up after so many times as many bad replies as the buffer holds, or clients train


class BufferedStrategy(FederatedStrategy):
    """Federated training at the pace `Buffered`: one step of the server is one round, with one record.

    A step waits at most ``timeout`` seconds, and each client gets as long: then the step is made with the updates there
    are, or skipped where they are fewer than ``min_replies``. Who still trains when the run ends is not counted.
    """

    runs: ClassVar[type[Pace]] = Buffered

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Raise StrategyError: there is no round that could be configured."""
        raise StrategyError(
            f"The strategy '{self.composition.name}' has no rounds of requests and replies: call its method 'start'."
        )

    def _begin(self, grid: Grid) -> None:
        super()._begin(grid)
        pace, clients = self._pace, len(self._census(grid).population())
        if pace.concurrency > clients:
            raise StrategyError(
                f"The key 'concurrency' is {pace.concurrency}, but there are only {clients} clients: lower it, or "
                "'clients-per-round' where it is 0."
            )
        if self.rules.min_replies > pace.buffer_size:
            raise StrategyError(
                f"The key 'min-replies' is {self.rules.min_replies}, but the server steps with every "
                f"{pace.buffer_size} updates, so that every step would be skipped: lower it or raise 'buffer-size'."
            )
        self._slots = Slots(grid, self._timeout)
        self._draws = Draws(self.composition.sampler, self.seed)
        self._steps = 0

    def _most_updates(self, clients: int) -> int:
        return self._pace.buffer_size

    def _train(self, grid: Grid, number: int, result: Result, timeout: float, config: ConfigRecord) -> None:
        origin = self._origin(number, result.arrays, config)
        size = self._pace.buffer_size
        progress = self._progress = RoundProgress(
            number, [], rate_of(origin.settings), size, simulated=isinstance(grid, World), bans=self.bans
        )
        progress.withheld, progress.population = self._withholds, self._census(grid).population()
        with progress.phase("train"):
            self._uplink = Uplink()
            arrays, metrics = self._step(self._fill(grid, origin), origin.weights)
            progress.uplink = self._uplink.told(origin.weights.flat)
        self._steps += arrays is not None
        self._keep(number, result, arrays, metrics)

    def _origin(self, number: int, arrays: ArrayRecord, config: ConfigRecord) -> Origin:
        model = Model(self._steps, arrays, self.model.states)
        return self._begin_from(model, self.model.weights_of(arrays), number, config)

    def _begin_from(self, model: Model, weights: wire.GlobalWeights, number: int, config: ConfigRecord) -> Origin:
        size, shared = weights.layout.size, child_seed(self.seed, number, "", CODEC)
        terms = RoundTerms.of(self.composition, self.rules, self._pace.buffer_size, model.states, size, shared)
        assert not isinstance(self.composition.downlink, Differences)  # which a composition at this pace refuses
        sent = self._broadcast(self.composition.downlink, "train", number, model.arrays, weights)
        told = {**terms.settings(), **sent.settings, BASE_VERSION: model.steps}
        settings, counter = {**config, **self.round_config(number), **told}, wire.ByteCounter(sent.record)
        return Origin(number, model.steps, model.arrays, weights, sent, terms, settings, terms.beside(), counter)

    def _remembered(self, grid: Grid) -> PaceMemory:
        return remembered(grid, self._slots, self._draws, self._steps)

    def _recall(self, memory: PaceMemory, grid: Grid, config: ConfigRecord) -> None:
        self._steps = memory.facts["steps"]
        self._draws.go_on(memory.facts["cohort"], memory.facts["queue"])
        if isinstance(grid, World):
            self._send_again(memory, grid, config)

    def _send_again(self, memory: PaceMemory, grid: Grid, config: ConfigRecord) -> None:
        """Send those to work who were at it, at the times at which they had begun."""
        assert isinstance(grid, World)
        now, population = grid.now(), self._population(grid)
        origins = {
            number: self._begin_from(model, wire.read_weights(model.arrays), number, config)
            for number, model in models_of(memory).items()
        }
        states: dict[str, str] = {}
        for together in begun_of(memory):
            grid.set_clock(together[0].began)
            drawn = {one.client: one.cohort for one in together}
            self._launch(population, drawn, {one.client: origins[one.round] for one in together})
            states.update((one.client, one.state) for one in together)
        grid.set_clock(now)
        self._slots.recall(states)

    def _fill(self, grid: Grid, origin: Origin) -> StepFold:
        """Take what arrives until the buffer is full, the time is over, or nothing good is to be hoped for."""
        step = origin.terms.start(origin.settings, origin.weights.layout.size)
        progress, slots = self._progress, self._slots
        until = math.inf
        hopeless = PATIENCE * max(self._pace.concurrency, self._pace.buffer_size)
        while not progress.complete and progress.rejected.total() < hopeless:
            if slots.finished:
                self._take(*slots.finished.popleft(), step)
                continue
            self._refill(grid, origin)
            # Time counts from the first who begin with the step, so that they are late at its end.
            until = min(until, slots.clock() + self._timeout)
            if not slots.working:
                break
            slots.wait(until)
            progress.note_repeated(slots.repeated)
            slots.repeated.clear()
            if not slots.finished and slots.clock() >= until:
                break
        return step

    def _refill(self, grid: Grid, origin: Origin) -> None:
        """Let others begin in the place of those that are back."""
        population, slots = self._population(grid), self._slots
        self._progress.population = population
        free = (self._pace.concurrency or len(population)) - len(slots.working)
        banned = self._progress.note_banned(population)
        drawn = self._draws.next(free, grid, population, slots.clients(), banned)
        if not drawn:
            return
        self.model.take_down(self.rules.budget, examples_of(population, drawn))
        self._write_ahead(self._progress.round)
        self._launch(population, drawn, dict.fromkeys(drawn, origin))

    def _launch(self, population: Population, drawn: Mapping[str, int], origins: Mapping[str, Origin]) -> None:
        """Let clients begin now, each as one of the cohort that it was drawn in and from its own model."""
        slots, loads = self._slots, population.loads(list(drawn))
        now, nodes = slots.clock(), population.assign(list(drawn), slots.loads())
        hosted = [(client, node) for node, clients in nodes.items() for client in clients]
        due = now + self._timeout
        requests = []
        for client, node in sorted(hosted):
            described, origin = population.described([client]), origins[client]
            flight = Flight(client, drawn[client], node, loads[client], described, origin, now, due)
            requests.append((flight, self._request(flight)))
        slots.launch(requests)

    def _request(self, flight: Flight) -> Message:
        """Write to one client; the cohort it was drawn in stands for the round, as its seed must differ every time."""
        origin = flight.origin
        records = origin.sent.record, origin.settings, origin.beside
        writer = RequestWriter("train", flight.cohort, self.seed, *records, self._timeout + GRACE)
        message = writer.write(flight.node, [flight.client])
        before = origin.bytes_down.total
        origin.bytes_down.add(message)
        self._progress.bytes_down += origin.bytes_down.total - before
        return message

    def _take(self, flight: Flight, reply: Message | None, step: StepFold) -> None:
        progress = self._progress
        progress.cohort.append(flight.client)
        if reply is not None:
            reply, size = weighed(reply, flight.origin.weights.layout, 1)
            progress.bytes_up += size
            self._uplink.add(reply, 1, size)
        missed = self._steps - flight.origin.steps
        with progress.phase("aggregate"):
            for outcome in flight.read(reply):
                counted = len(progress.counted)
                progress.take(self._aged(outcome, missed), step)
                progress.staleness.extend([missed] * (len(progress.counted) - counted))

    def _aged(self, outcome: Outcome, missed: int) -> Outcome:
        """Weigh an update by its age: s(tau) times the delta, exactly the delta where it missed no step."""
        if missed == 0 or not isinstance(outcome, Update):
            return outcome
        if self._pace.too_stale(missed):
            return Rejection(outcome.client, Reason.STALE)
        return replace(outcome, delta=outcome.delta * np.float32(self._pace.discount(missed)))

    @property
    def _pace(self) -> Buffered:
        assert isinstance(self.composition.pace, Buffered)
        return self.composition.pace


def strategy_class(composition: Composition) -> type[FederatedStrategy]:
    """Return the class that runs a composition at its pace."""
    return next(kind for kind in (BufferedStrategy, FederatedStrategy) if isinstance(composition.pace, kind.runs))
