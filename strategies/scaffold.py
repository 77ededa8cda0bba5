"""SCAFFOLD: control variates take the drift of each client out of its gradients.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh: "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
2020, algorithm 1 with option II. A client adds c - c_i to each of its K gradients, c_i being its own mean gradient of
the last round that counted and c the server's mean of all c_i. Afterwards

    c_i+ = c_i - c - delta_i / (K lr),    c+ = c + |S|/N * mean of (c_i+ - c_i) over the cohort S, of N clients.

What differs from the paper: a client sends its delta alone, half as much. The server knows all else that is in
c_i+ - c_i = -c - delta_i / (K lr), as K is a metric of the reply. K may differ between clients and rounds, as where a
straggler does partial work. Every client counts the same, as in the paper: with weights, c would have to have them too.
N may change, as nodes come and go: N c stays the sum of all c_i, also of clients that are away, and is 0 of new ones.

A client's c_i is kept on its node, see `strategies.client_state`. If it is lost the client begins again with c_i = 0,
and c keeps, for good, the lost c_i / N. A hostile client can move c as it can move a mean: no robust rule guards it.
Entries of weights that are not trained (moving averages) have control variates that nobody uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from flwr.app import ConfigRecordValues, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod

from strategies import wire
from strategies.client_state import StatesOf, Turn
from strategies.errors import LayoutError, StrategyError
from strategies.fixed_point import MAX_WEIGHT, MIN_WEIGHT, FixedPointSum, share
from strategies.guarantees import Guarantees, Property
from strategies.layout import ModelLayout
from strategies.local_objective import Observation
from strategies.local_sgd import momentum_of, steps_of
from strategies.options import Options
from strategies.updates import FloatVector, PartialSum, State, Update

CONTROL = "control"
POPULATION = "population"


@dataclass(frozen=True)
class Scaffold:
    """The server's half: it remembers c and sends it with the weights."""

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read nothing. Raises StrategyError unless the clients' optimizer is plain SGD."""
        if momentum_of(options):
            raise StrategyError(
                "SCAFFOLD finds a client's mean gradient by dividing its update by its steps, which momentum makes "
                "longer: leave 'client-optimizer-args' empty."
            )
        return cls()

    @property
    def guarantees(self) -> Guarantees:
        """Each client's own update and steps, all counting the same, and state that rounds commit.

        Exactly its own: c_i is made of what the client trained and c of what arrived, which would drift apart.
        """
        needs = {
            *(Property.SINGLE_UPDATES, Property.EXACT_UPDATES),
            *(Property.EQUAL_WEIGHTS, Property.CLIENT_STATE),
        }
        return Guarantees(needs=frozenset(needs), takes=frozenset({Property.NOTHING_ELSE}))

    def init(self, size: int) -> State:
        """Return c = 0, and that N is not known yet."""
        return {CONTROL: np.zeros(size, np.float32), POPULATION: np.array([0])}

    def config(self, state: State) -> dict[str, float]:
        """Return no settings."""
        return {}

    def arrays(self, state: State) -> Mapping[str, FloatVector]:
        """Return c."""
        return {CONTROL: _control(state)}

    def start(self, state: State, settings: Mapping[str, ConfigRecordValues]) -> Observation:
        """Begin to add up the clients' gradients."""
        control, limit = _control(state), settings.get("limit-max_contribution")
        largest = float(limit) if isinstance(limit, int | float) else share(2**16)
        return Gradients(control, state[POPULATION].item(), _rate(settings), largest, FixedPointSum(control.size))


@dataclass
class Gradients:
    """The exact sum of delta_i / (K_i lr) over a round's clients, that is, of their mean corrected gradients negated.

    ``population`` is the N over which ``control``, the c of the round, is a mean, 0 in the first. ``largest`` bounds
    what one client may add, so that none can use up the range of the sum.
    """

    control: FloatVector
    population: int
    rate: float
    largest: float
    total: FixedPointSum

    def check(self, update: Update) -> None:
        """Raise LayoutError or OverflowError where steps or gradient cannot be."""
        weight = self._weight(update)
        if not MIN_WEIGHT <= weight <= MAX_WEIGHT:  # what the sum could not hold, after the mean has taken it in
            raise LayoutError(
                "malformed",
                f"The client reports {steps_of(update)} steps at the learning rate {self.rate:g}, which is absurd.",
            )
        if weight * update.largest > self.largest:
            raise OverflowError(f"The client's mean gradient reaches {weight * update.largest:.3g}, which is absurd.")

    def add(self, update: Update) -> None:
        """Add a client's gradient."""
        self.total.add(update.delta, self._weight(update), update.largest)

    def merge(self, partial: PartialSum) -> None:
        """Raise StrategyError: of a sum, nobody knows whose steps are whose."""
        raise StrategyError("SCAFFOLD needs each client's own update, and no partial sum.")

    def state(self, population: int) -> State:
        """Return c+, and its N."""
        kept = ((self.population or population) - self.total.count) / population
        control = (self.control * kept - self.total.divided_by(population)).astype(np.float32)
        return {CONTROL: control, POPULATION: np.array([population])}

    def _weight(self, update: Update) -> float:
        return 1.0 / (steps_of(update) * self.rate)


def scaffold_mod(states: StatesOf) -> Mod:
    """Return the clients' half, a mod around `strategies.client.delta_mod`; ``states`` says where each c_i is kept.

    It gives the handler the arrays "correction", to be added to every gradient. Requests without a control variate
    pass through. The handler must report the metric "steps" and train with plain SGD at the round's learning rate.
    """

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if CONTROL not in message.content:
            return call_next(message, context)
        turn, rate = Turn.of(message, context, states), _rate(wire.config_of(message))
        layout = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS)).layout
        control = _sent(message.content, layout.size)
        own = _control(turn.load({CONTROL: np.zeros(layout.size, np.float32)}))
        message.content[wire.CORRECTION] = wire.array_record(_by_name(layout, control - own))
        reply = call_next(message, context)
        if reply.has_content() and wire.UPDATE in reply.content:
            update = wire.update_of(turn.client, reply.content)
            turn.save({CONTROL: own - control - update.delta / np.float32(steps_of(update)) / np.float32(rate)})
        return reply

    return mod


def _sent(content: RecordDict, size: int) -> FloatVector:
    """Return the server's c."""
    control = wire.decode(wire.arrays_of(content, CONTROL)[wire.VECTOR])
    if control.shape != (size,):
        raise LayoutError("shape", f"The control variate must have the shape ({size},), but has {control.shape}.")
    return control.astype(np.float32, copy=False)


def _by_name(layout: ModelLayout, flat: FloatVector) -> dict[str, FloatVector]:
    """Return the parts of a flat vector in the shapes of the model's arrays, float32 whatever these are."""
    parts = zip(layout.names, layout.offsets, layout.sizes, layout.shapes, strict=True)
    return {name: flat[start : start + size].reshape(shape) for name, start, size, shape in parts}


def _control(state: State) -> FloatVector:
    return state[CONTROL].astype(np.float32, copy=False)


def _rate(settings: Mapping[str, ConfigRecordValues]) -> float:
    rate = settings.get(wire.LEARNING_RATE)
    if not isinstance(rate, int | float) or not rate > 0:
        raise StrategyError(
            f"SCAFFOLD needs the learning rate of a round as the setting '{wire.LEARNING_RATE}', above 0."
        )
    return float(rate)
