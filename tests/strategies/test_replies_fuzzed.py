"""Ten thousand hostile replies: whatever they hold, each is counted under its own reason, and the others add up to the
very same bits as without it.

Every example is a round of a strategy as it is used: real messages, of which some replies are drawn to be faulty in one
or more ways, to come twice, late or never, in any order, go to its ``aggregate_train``.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.census import Census
from strategies.fedbuff import strategy_class
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.privacy.noise import derived_noise
from strategies.records import RoundRecord
from strategies.server_model import ServerModel
from strategies.terms import RoundRules
from tests.strategies import faulty_replies as faulty
from tests.strategies.faulty_replies import CODED, PACK, PLAIN, SUM, Writer
from tests.strategies.test_replies import instead_of
from tests.strategies.toy_federation import IDS, LIMITS, WireGrid, app, over_the_wire, start_arrays

T = TypeVar("T")
Bits = tuple[bytes, ...] | None
Outcome = tuple[Bits, Counter[str], tuple[str, ...], int]  # the arrays, rejections, whose updates count, repetitions


@dataclass(frozen=True, eq=False)
class Round:
    """The first round of a strategy with six clients, two to a message, or one where they answer with plain arrays."""

    form: str
    options: Mapping[str, Option]
    strategy: str = "fedavg"
    oracles: dict[frozenset[str], Bits] = field(default_factory=dict)

    @cached_property
    def grid(self) -> InlineGrid:
        return InlineGrid.of(app(), 3)

    @cached_property
    def census(self) -> Census:
        census = Census(self.grid, 10.0)
        census.start(min_nodes=1, node_timeout=10.0)
        return census

    @cached_property
    def parts(self) -> registry.Composition:
        return registry.build(self.strategy, self.options)

    @cached_property
    def requests(self) -> list[Message]:
        return self._begun()[1]

    @cached_property
    def asked(self) -> list[list[str]]:
        return [wire.text_list(wire.config_of(request), wire.CLIENTS) for request in self.requests]

    @cached_property
    def writer(self) -> Writer:
        return Writer(self.form, self.parts.codec)

    @property
    def counts_steps(self) -> bool:
        """Whether the algorithm goes by how many steps clients say they have made."""
        return self.strategy == "scaffold"

    @property
    def faults(self) -> tuple[int, ...]:
        """Of an array: a codec can only write float32 of the right size, and under privacy what is long is clipped."""
        if self.form == CODED:
            return FREE, ARRAY, DTYPE, NOT_FINITE, NORM
        clips = "privacy" in self.options
        return (FREE, ARRAY, DTYPE, SHAPE, NOT_FINITE, *([] if clips else [NORM]))

    @property
    def odd(self) -> int:
        """How many replies are none of the usual at the least."""
        return len(self.asked) - 1

    @cached_property
    def elsewhere(self) -> Message:
        """A message of another round."""
        message = Message(RecordDict(), 1, "train")
        message.metadata.__dict__["_message_id"] = "elsewhere"
        return message

    def _begun(self) -> tuple[FederatedStrategy, list[Message]]:
        """Return a new strategy in its first round and its messages, whose ids are those of their places."""
        rules = RoundRules(limits=LIMITS, clients_per_message=1 if self.form == PLAIN else 2)
        config = {"learning-rate": 0.1}
        strategy = FederatedStrategy(self.parts, rules, 7, census=self.census, round_config=lambda number: config)
        strategy.model = ServerModel(self.parts, noise=derived_noise(7))
        messages = list(strategy.configure_train(1, start_arrays(), ConfigRecord(), self.grid))
        for place, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = str(place)
        return strategy, messages

    def played(self, replies: Sequence[Message]) -> Outcome:
        """Let the strategy take the replies in."""
        strategy, _ = self._begun()
        arrays, _ = strategy.aggregate_train(1, replies)
        record = strategy._progress.record(None, None)
        assert record.to_json()["rejected"] == dict(record.rejected)
        return _bits(arrays), Counter(record.rejected), record.accepted, record.repeated

    def reply(self, place: int, content: RecordDict | Error) -> Message:
        return Message(content, reply_to=self.requests[place])

    def without(self, gone: frozenset[str]) -> Bits:
        """The arrays after a round in which these clients say themselves that they have failed."""
        if gone not in self.oracles:
            replies = []
            for place, clients in enumerate(self.asked):
                failed = gone.intersection(clients)
                if len(failed) < len(clients):
                    assert not failed or self.form != SUM  # of a sum all are gone, or nobody
                    replies.append(self.reply(place, self.writer.honest(clients, sorted(failed))))
            self.oracles[gone] = self.played(replies)[0]
        return self.oracles[gone]


def _bits(arrays: ArrayRecord | None) -> Bits:
    return None if arrays is None else tuple(array.numpy().tobytes() for array in arrays.values())


EXAMPLES = 820  # rounds of each
PRIVATE: dict[str, Option] = {"privacy": "dp-fedavg", "clients-per-round": 6, "clipping-norm": 0.5}
ROUNDS = {
    "fedavg-of-other-apps": Round(PLAIN, {}),
    "fedavg": Round(PACK, {}),
    "fedprox-sums": Round(SUM, {"proximal-mu": 0.1}, "fedprox"),
    "trimmed-mean": Round(PACK, {"attackers-tolerated": 1}, "trimmed-mean"),
    "dp-fedavg": Round(PACK, PRIVATE),
    "qsgd": Round(CODED, {"codec": "qsgd"}),
    "zstd": Round(CODED, {"codec": "zstd"}),
    "scaffold": Round(PACK, {}, "scaffold"),
}


@dataclass
class Drawn:
    """What a round is given, and what is to become of it; ``again`` comes after all else.

    ``faulty`` counts the replies that are, not those that never come, that a fault does no harm, or that come again.
    """

    delivered: list[Message] = field(default_factory=list)
    again: list[Message] = field(default_factory=list)
    repeated: int = 0
    faulty: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    gone: set[str] = field(default_factory=set)

    def refuse(self, clients: Sequence[str], reason: str) -> None:
        if reason:
            self.reasons[reason] += len(clients)
            self.gone.update(clients)


HONEST, HARMLESS, WHOLE, OWN, NEVER, ASTRAY, TWICE, BAD_THEN_GOOD = range(8)
KINDS = (OWN, WHOLE, HARMLESS, TWICE, NEVER, ASTRAY, BAD_THEN_GOOD)
FAULTY = (OWN, WHOLE, ASTRAY, BAD_THEN_GOOD)
OFTEN_HONEST = (*[HONEST] * 6, *KINDS)


@cache
def among(options: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """One of these; made once, as to make such a strategy takes longer than to draw from it."""
    return st.sampled_from(options)


@st.composite
def drawn(draw: st.DrawFn, round: Round) -> Drawn:
    """A round in which all replies but one are none of the usual, and that one may be, too."""
    result = Drawn()
    first, order = draw(st.integers(0, len(round.asked) - 1)), np.random.default_rng(draw(st.integers(0, 2**16)))
    for place, clients in enumerate(round.asked):
        is_odd = (place - first) % len(round.asked) < round.odd
        kind = draw(among((OWN, *KINDS) if is_odd else OFTEN_HONEST))
        _deliver(draw, round, result, place, clients, kind)
    result.delivered = [result.delivered[place] for place in order.permutation(len(result.delivered))]
    return result


def _deliver(draw: st.DrawFn, round: Round, result: Drawn, place: int, clients: Sequence[str], kind: int) -> None:
    honest = round.writer.honest(clients)
    result.faulty += kind in FAULTY
    if kind in (NEVER, ASTRAY):
        result.refuse(clients, "late")
        result.delivered += [Message(honest, reply_to=round.elsewhere)] if kind == ASTRAY else []
        return
    content: RecordDict | Error = honest
    if kind == HARMLESS:
        content = pick(draw, faulty.HARMLESS_PLAIN if round.form == PLAIN else faulty.HARMLESS)(honest, clients)
    elif kind == WHOLE:
        spoil, reason = pick(draw, faulty.WHOLES[round.form])
        content = spoil(honest, clients)
        result.refuse(clients, reason)
    elif kind == OWN and round.form == SUM:
        content, reason = spoilt_sum(draw, honest)
        result.refuse(clients, reason)
    elif kind == OWN:
        content, reasons = spoilt(draw, round, honest, clients)
        for client, reason in reasons.items():
            result.refuse([client], reason)
    elif kind == TWICE:
        result.again.append(round.reply(place, (honest, RecordDict(), Error(2, "again"))[draw(among((0, 1, 2)))]))
        result.repeated += len(clients)
    elif kind == BAD_THEN_GOOD:
        content = Error(2, "out of memory")
        result.again.append(round.reply(place, honest))
        result.refuse(clients, "error")
        result.repeated += len(clients)
    reply = round.reply(place, content)
    result.delivered.append(over_the_wire(reply) if kind == OWN and place == 0 else reply)


def pick(draw: st.DrawFn, table: Mapping[str, T]) -> T:
    return table[draw(among(tuple(table)))]


def spoilt_sum(draw: st.DrawFn, content: RecordDict) -> tuple[RecordDict, str]:
    spoil, reason = pick(draw, faulty.SUMS)
    values = {name: array.numpy() for name, array in wire.arrays_of(content, wire.UPDATE).items()}
    changed = spoil(values["total"], values["weights"])
    arrays = {name: one if isinstance(one, Array) else Array(one) for name, one in changed.items()}
    return RecordDict({**content, wire.UPDATE: wire.record_of(arrays)}), reason


def spoilt(
    draw: st.DrawFn, round: Round, content: RecordDict, clients: Sequence[str]
) -> tuple[RecordDict, dict[str, str]]:
    """Spoil what some of the clients send, each in one or more ways; of these the first of a fixed order counts."""
    chosen = (clients, clients[:1], clients[-1:])[draw(among((0, 1, 2)))]
    return content, {client: _spoil(draw, round, content, clients.index(client)) for client in chosen}


FREE, ARRAY, DTYPE, SHAPE, NOT_FINITE, NORM = range(6)
BY_VALUE = {
    DTYPE: (faulty.DTYPE, "dtype"),
    SHAPE: (faulty.SHAPE, "shape"),
    NOT_FINITE: (faulty.NOT_FINITE, "not-finite"),
    NORM: (faulty.NORM, "norm"),
}


def _spoil(draw: st.DrawFn, round: Round, content: RecordDict, position: int) -> str:
    fault = draw(among(round.faults))
    reason = _spoil_array(draw, round, content, position, fault) if fault != FREE else ""
    if draw(st.booleans()) if fault != FREE else not round.counts_steps:
        _say(content, "num-examples", position, draw(among((*faulty.WEIGHTS, 1001.0, 61.0))))
        reason = reason if reason and fault != NORM else "weight"
    if round.counts_steps and (not reason or draw(st.booleans())):
        _say(content, "steps", position, draw(among(faulty.STEPS_FAULTS)))
        reason = reason or "malformed"
    return reason


def _spoil_array(draw: st.DrawFn, round: Round, content: RecordDict, position: int, fault: int) -> str:
    """Replace a client's array, or the first of the model's; returns the reason."""
    key, name = (wire.ARRAYS, "kernel") if round.form == PLAIN else (wire.UPDATE, f"{position}/delta")
    record = dict(wire.arrays_of(content, key))
    array = record.pop(name)
    if fault == ARRAY:
        content[key] = wire.record_of({**record, **pick(draw, faulty.ARRAYS)(name, array)})
        return "malformed"
    table, reason = BY_VALUE[fault]
    values = pick(draw, table)(array.numpy() if round.form != CODED else faulty.delta_of("0"))
    written = Array(values) if round.form != CODED or fault == DTYPE else round.writer.array(values)
    content[key] = wire.record_of({**record, name: written})
    return reason


def _say(content: RecordDict, name: str, position: int, value: float) -> None:
    """Let a client report this number."""
    metrics = wire.metrics_of(content)
    told = metrics[name]
    if isinstance(told, list):
        values = [float(one) for one in told]
        values[position] = value
        metrics[name] = values
    else:
        metrics[name] = value


@pytest.fixture(autouse=True, scope="module")
def silence() -> Iterator[None]:
    """Of tens of thousands of warnings that are meant, pytest would keep every one."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", ROUNDS)
def test_who_sends_what_it_should_not_is_counted_for_it_and_as_if_it_were_not_there(name: str) -> None:
    """Each round has its share, by the number of its messages, of ten thousand replies that are faulty."""
    round, faulty_replies = ROUNDS[name], 0

    @settings(max_examples=EXAMPLES)
    @given(drawn(round))
    def play(case: Drawn) -> None:
        nonlocal faulty_replies
        bits, reasons, accepted, repeated = round.played([*case.delivered, *case.again])
        assert reasons == case.reasons and repeated == case.repeated
        assert accepted == tuple(sorted(set(IDS) - case.gone))
        assert bits == round.without(frozenset(case.gone))
        faulty_replies += case.faulty

    play()
    assert faulty_replies >= 10_000 * len(round.asked) / sum(len(other.asked) for other in ROUNDS.values())


# Bytes that are damaged, anywhere in an array.


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Other bytes in one to three places, early ones more often, as there the header is; or the end is missing."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.one_of(st.integers(0, len(data) - 1), st.integers(0, min(90, len(data) - 1))))
        changed[place] = draw(st.one_of(st.integers(0, 255), st.sampled_from(b"0123456789,()'<>|fiuOVTrueFals ")))
    return bytes(changed[: draw(st.sampled_from([len(data)] * 4 + [len(data) // 2, len(data) - 1]))])


def as_numpy_reads(data: bytes) -> Array | None:
    """What NumPy's own reader makes of it, written anew; None where it is not one whole array."""
    stream, clean = BytesIO(data), BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that a Python 2 might have written
        try:
            values = np.lib.format.read_array(stream, allow_pickle=False)
        except Exception:  # of which kinds a damaged header can raise, nobody can list
            return None
    if stream.read():
        return None
    np.lib.format.write_array(clean, values, allow_pickle=False)
    return Array("float32", (1,), "numpy.ndarray", clean.getvalue())


@pytest.mark.parametrize("name", ["fedavg-of-other-apps", "fedavg", "fedprox-sums", "qsgd"])
@settings(max_examples=200)
@given(data=st.data())
def test_damaged_arrays_are_malformed_or_what_numpy_reads_in_them(name: str, data: st.DataObject) -> None:
    round = ROUNDS[name]
    place = data.draw(st.integers(0, len(round.asked) - 1))
    clients, key = round.asked[place], wire.ARRAYS if round.form == PLAIN else wire.UPDATE
    contents = [round.writer.honest(clients) for clients in round.asked]
    record = dict(wire.arrays_of(contents[place], key))
    which = data.draw(st.sampled_from(sorted(record)))
    whole = record[which]
    raw = Array(whole.dtype, whole.shape, whole.stype, data.draw(damaged(whole.data)))
    assume(raw.data != whole.data)

    def played_with(array: Array) -> Outcome:
        contents[place][key] = wire.record_of({**record, which: array})
        return round.played([round.reply(at, content) for at, content in enumerate(contents)])

    found = played_with(raw)
    readable = None if round.form == CODED else as_numpy_reads(raw.data)
    if readable is not None:
        assert found == played_with(readable)
        return
    gone = clients if round.form in (PLAIN, SUM) else [clients[int(which.partition("/")[0])]]
    accepted = tuple(sorted(set(IDS) - set(gone)))
    assert found == (round.without(frozenset(gone)), Counter({"malformed": len(gone)}), accepted, 0)


# Whole runs, in rounds and without, over a grid that is polled.

RUNS: dict[str, tuple[Mapping[str, Option], str, tuple[int, ...]]] = {
    "fedavg": ({}, SUM, (WHOLE, OWN, NEVER, BAD_THEN_GOOD)),
    "fedbuff": ({"buffer-size": 3, "concurrency": 4}, PACK, (WHOLE, OWN, BAD_THEN_GOOD)),
}
OF_ONE = {name: fault for name, fault in faulty.OF_SINGLES.items() if name not in ("for-fewer", "short-reasons")}
ODD = ("3", "4")  # client 4 speaks for 5 too, where two are asked together

Tamper = Callable[[Message, list[str]], Iterable[Message]]


@dataclass
class Tampering:
    """Draws what becomes of the replies of the odd clients, and takes down what they are to be counted under."""

    draw: st.DrawFn
    form: str
    kinds: tuple[int, ...]
    told: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    def __call__(self, reply: Message, clients: list[str]) -> Iterable[Message]:
        if not set(ODD).intersection(clients):
            return [reply]
        kind = self.draw(among(self.kinds))
        content, reason = (None, "late") if kind == NEVER else self._content(kind, reply.content, clients)
        self.told[reason] += len(clients)
        if content is None:
            return []
        bad = instead_of(reply, content)
        if kind != BAD_THEN_GOOD:
            return [over_the_wire(bad) if kind == OWN else bad]
        self.repeated += len(clients)
        return [bad, reply]

    def _content(self, kind: int, honest: RecordDict, clients: Sequence[str]) -> tuple[RecordDict | Error, str]:
        if kind != OWN:
            spoil, reason = pick(self.draw, faulty.OF_PACKS if self.form == SUM else OF_ONE)
            return spoil(honest, clients), reason
        if self.form == SUM:
            return spoilt_sum(self.draw, honest)
        content, reasons = spoilt(self.draw, ROUNDS["fedavg"], honest, clients)
        return content, reasons[clients[0]]


def failing(reply: Message, clients: list[str]) -> Iterable[Message]:
    return [instead_of(reply, Error(2, "no disk")) if set(ODD).intersection(clients) else reply]


def ran(name: str, tamper: Tamper) -> tuple[Bits, list[tuple[str, ...]], Counter[str], int]:
    """Run three rounds or steps; return the arrays, whose updates counted in each, all rejections, and repetitions."""
    options, form, _ = RUNS[name]
    records: list[RoundRecord] = []
    composition = registry.build(name, options)
    rules = RoundRules(limits=LIMITS, clients_per_message=2 if form == SUM else 1)
    strategy = strategy_class(composition)(composition, rules, seed=7, observers=[records.append])
    grid = WireGrid(app(), InlineGrid.of(app(), 1).node_configs, tamper=tamper)
    result = strategy.start(grid, start_arrays(), num_rounds=3, timeout=5.0)
    rejected = sum((Counter(record.rejected) for record in records), Counter())
    repeated = sum(record.repeated for record in records)
    return _bits(result.arrays), [record.accepted for record in records], rejected, repeated


@pytest.fixture(scope="module")
def clock() -> Iterator[None]:
    """A clock that only sleeping moves, so that nobody is late but who never answers."""
    now = [1000.0]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("strategies.exchange.time.monotonic", lambda: now[0])
        patched.setattr("strategies.exchange.time.sleep", lambda seconds: now.append(now.pop() + seconds))
        yield


@pytest.mark.parametrize("name", RUNS)
@settings(max_examples=50)
@given(data=st.data())
def test_a_run_in_which_some_clients_never_send_anything_good_is_that_in_which_they_fail(
    clock: None, name: str, data: st.DataObject
) -> None:
    _, form, kinds = RUNS[name]
    tampering = Tampering(data.draw, form, kinds)
    bits, accepted, rejected, repeated = ran(name, tampering)
    assert (bits, accepted) == ran(name, failing)[:2]
    assert rejected == tampering.told and repeated == tampering.repeated
