"""What the framework costs where nothing is trained: milliseconds per client and per message, stage by stage.

    python -m benchmarks.framework_cost [--parameters 199210] [--clients 10] [--repeats 41] [--weighting examples]

One process, no TensorFlow, no grid: a ClientApp with the client mods around a handler that returns arrays it was given,
and the server's side of a round (read the reply, fold it in, count its bytes, take the mean). A stage's number is the
median of ``repeats`` runs; the stages are timed on their own, so that they need not add up to the total.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from simulation.inline import InlineGrid
from strategies import wire
from strategies.admission import Limits, judge
from strategies.aggregators import WeightedMean
from strategies.client import Pack, client_mods, delta_mod, each_client
from strategies.composition import Dense
from strategies.fixed_point import FixedPointSum, share
from strategies.replies import ReplyReader
from strategies.requests import RequestWriter
from strategies.updates import Update

LAYERS = ((784, 200), (200,), (200, 200), (200,), (200, 10), (10,))  # 199,210 parameters
CONTEXT = Context(1, 1, {}, RecordDict(), {})


@dataclass
class Stage:
    """A function of what ``prepare`` made, which is not timed; its cost is told per so many ``times``."""

    name: str
    run: Callable[[], object] | Callable[[Message], object]
    times: int
    prepare: Callable[[], Message] | None = None
    seconds: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Run it once and take down the time."""
        given = () if self.prepare is None else (self.prepare(),)
        start = time.perf_counter()
        self.run(*given)
        self.seconds.append((time.perf_counter() - start) / self.times)

    def __str__(self) -> str:
        """Give the median in milliseconds."""
        return f"{self.name:<58} {1000 * statistics.median(self.seconds):8.4f}"


class Round:
    """One message of a round: the request, the app that answers it, and what the server needs to read the answer."""

    def __init__(self, parameters: int, clients: int, weighting: str) -> None:
        """Make a model of about so many parameters, and one result that all clients return."""
        rng = np.random.default_rng(0)
        factor = (parameters / sum(int(np.prod(shape)) for shape in LAYERS)) ** 0.5
        shapes = [tuple(max(1, round(side * factor)) for side in shape) for shape in LAYERS]
        shapes = list(LAYERS) if parameters == 199_210 else shapes
        self.weights = {str(k): rng.normal(size=shape).astype(np.float32) for k, shape in enumerate(shapes)}
        self.local = {
            name: array + np.float32(0.01) * rng.normal(size=array.shape).astype(np.float32)
            for name, array in self.weights.items()
        }
        self.arrays = wire.array_record(self.weights)
        self.read = wire.read_weights(self.arrays)
        self.clients = [str(k) for k in range(clients)]
        self.limits = Limits(1e7, 0.0, share(1000))
        settings = {"learning-rate": 0.05, "local-epochs": 1, wire.SUMMED: weighting, **wire.limits_record(self.limits)}
        self.writer = RequestWriter("train", 1, 0, self.arrays, settings, ttl=3600.0)
        self.app = _app(self.local)
        InlineGrid.of(self.app, 1)  # gives the process the identity that Flower's messages ask for

    def request(self) -> Message:
        """Write the request to all clients."""
        message = self.writer.write(1, self.clients)
        message.metadata.__dict__["_message_id"] = "request"
        return message

    def reader(self) -> ReplyReader:
        """Return what reads the reply."""
        described = dict.fromkeys(self.clients, 100)
        return ReplyReader(self.read, Dense(), lambda update: update, self.limits, True, described)

    def handled(self, message: Message, context: Context) -> Message:
        """Answer as the app's own handler does."""
        return _result(self.local, message)


def _result(local: dict[str, np.ndarray], message: Message) -> Message:
    wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
    metrics = MetricRecord({wire.NUM_EXAMPLES: 100, "loss": 0.5, "accuracy": 0.5})
    return Message(RecordDict({wire.ARRAYS: wire.array_record(local), wire.METRICS: metrics}), reply_to=message)


def _app(local: dict[str, np.ndarray]) -> ClientApp:
    app = ClientApp()

    @app.train(mods=client_mods())
    def train(message: Message, context: Context) -> Message:
        return _result(local, message)

    return app


def client_stages(one: Round) -> list[Stage]:
    """Return what happens on a worker, each stage once per client."""
    count, request = len(one.clients), one.request()
    config = wire.config_of(request)
    content = delta_mod(request, CONTEXT, one.handled).content
    delta = wire.decode(wire.arrays_of(content, wire.UPDATE)[wire.DELTA]).astype(np.float32, copy=False)
    update, total = Update("1", delta, 100.0), FixedPointSum(delta.size)

    def packed() -> None:
        pack = Pack.for_request(config)
        for client in one.clients:
            pack.add(client, content)

    return [
        Stage("client: everything", lambda asked: one.app(asked, CONTEXT), count, one.request),
        Stage("  settings of each client", lambda: list(each_client(config)), count),
        Stage("  the handler's own message", lambda: _result(one.local, request), 1),
        Stage("  the handler inside delta_mod", lambda: delta_mod(request, CONTEXT, one.handled), 1),
        Stage("  layout.delta", lambda: one.read.layout.delta(list(one.local.values()), one.read.flat), 1),
        Stage("  judge", lambda: judge(Update("1", delta, 100.0), delta.size, one.limits), 1),
        Stage("  FixedPointSum.add", lambda: total.add(update.delta, update.weight), 1),
        Stage("  Pack.add (decode, judge, add)", packed, count),
    ]


def server_stages(one: Round) -> list[Stage]:
    """Return what happens on the server, each stage once per message."""
    reply, reader = one.app(one.request(), CONTEXT), one.reader()
    size = one.read.layout.size

    def folded(messages: int) -> object:
        fold = WeightedMean().start(size)
        for _ in range(messages):
            (outcome,) = reader.read(reply, one.clients)
            fold.merge(outcome)  # type: ignore[arg-type]
        return fold

    finished = WeightedMean().start(size)
    for outcome in reader.read(reply, one.clients):
        finished.merge(outcome)  # type: ignore[arg-type]

    def replied() -> Message:
        return one.app(one.request(), CONTEXT)

    return [
        Stage("server: write a request", one.request, 1),
        Stage("server: read a reply", lambda: reader.read(reply, one.clients), 1),
        Stage("server: read and fold each of 10 replies", lambda: folded(10), 10),
        Stage("server: count the bytes of a reply", lambda reply: wire.ByteCounter().add(reply), 1, replied),
        Stage("server: the mean, once a round", finished.result, 1),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=199_210)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--weighting", default="examples")
    chosen = parser.parse_args()
    one = Round(chosen.parameters, chosen.clients, chosen.weighting)
    stages = client_stages(one) + server_stages(one)
    for _ in range(chosen.repeats):
        for stage in stages:
            stage.measure()
    print(f"{one.read.layout.size:,} parameters, {chosen.clients} clients in a message; ms per client, or per message:")
    for stage in stages:
        print(stage)


if __name__ == "__main__":
    main()
