"""Replies as another process may send them: each is understood or rejected, and never raises or unpickles."""

import math
import tracemalloc
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulation.inline import InlineGrid
from strategies import wire
from strategies.admission import Limits, Reason
from strategies.aggregators import WeightedMean
from strategies.composition import Dense
from strategies.exchange import NOT_SENT, UNREADABLE
from strategies.fixed_point import FixedPointSum
from strategies.local_objective import Unobserved
from strategies.replies import Rejection, ReplyReader
from strategies.rounds import RoundProgress
from strategies.step_fold import StepFold
from strategies.updates import PartialSum, Update
from tests.strategies.toy_federation import (
    BAD,
    IDS,
    LIMITS,
    SIZE,
    app,
    header,
    honest_content,
    npy,
    over_the_wire,
    run,
    same,
    start_arrays,
    without,
)


def reply_with(content: RecordDict | Error) -> Message:
    InlineGrid.of(app(), 1)
    request = Message(RecordDict(), 1, "train")
    request.metadata.__dict__["_message_id"] = "request"
    return Message(content, reply_to=request)


def reader(limits: Limits = LIMITS, summed: bool = True, **described: int) -> ReplyReader:
    weights = wire.read_weights(start_arrays())
    return ReplyReader(weights, Dense(), lambda update: update, limits, summed, described)


def pack(
    clients: list[str],
    update: dict[str, Array] | None = None,
    /,
    *,
    reasons: list[str] | None = None,
    weights: list[float] | None = None,
    **changes: object,
) -> RecordDict:
    """A reply of our mods: by default a zero update of each client."""
    single = {f"{k}/delta": Array(np.zeros(SIZE, np.float32)) for k in range(len(clients))}
    record = {
        "version": 1,
        "summed": False,
        "clients": clients,
        "reasons": reasons or [""] * len(clients),
        "details": [""] * len(clients),
        **changes,
    }
    return RecordDict(
        {
            "pack": ConfigRecord(record),  # type: ignore[arg-type]
            "metrics": MetricRecord({"num-examples": [10.0] * len(clients) if weights is None else weights}),
            "update": ArrayRecord(single if update is None else update),
        }
    )


def sum_of(clients: list[str], total: np.ndarray | Array, weights: np.ndarray | Array, **changes: object) -> RecordDict:
    named = {"total": total, "weights": weights}
    update = {name: array if isinstance(array, Array) else Array(array) for name, array in named.items()}
    return pack(clients, update, summed=True, **changes)  # type: ignore[arg-type]


def outcomes(content: RecordDict | Error, asked: list[str], **kwargs: object) -> list[object]:
    return list(reader(**kwargs).read(reply_with(content), asked))  # type: ignore[arg-type]


def reasons(content: RecordDict | Error, asked: list[str], **kwargs: object) -> dict[str, str]:
    """Client -> reason, "" where it counts; every client that was asked has exactly one outcome."""
    found: list[tuple[str, str]] = []
    for outcome in outcomes(content, asked, **kwargs):
        if isinstance(outcome, Rejection):
            found.append((outcome.client, outcome.reason.value))
        elif isinstance(outcome, Update):
            found.append((outcome.client, ""))
        else:
            assert isinstance(outcome, PartialSum)
            found.extend((client, "") for client in outcome.clients)
    assert sorted(client for client, _ in found) == sorted(asked)
    return dict(found)


TOTAL = np.full(SIZE, 2**32, np.int64)
TWO_WEIGHTS = np.array([10.0, 10.0])
GIANT = npy(header("(4000000000,)"), b"\0" * 64)

WHOLE_REPLIES: dict[str, tuple[Callable[[list[str]], RecordDict | Error], str]] = {
    "error": (lambda two: Error(2, "out of memory"), "error"),
    "not-sent": (lambda two: Error(NOT_SENT, ""), "not-sent"),
    "unreadable": (lambda two: Error(UNREADABLE, "no Flower message"), "malformed"),
    "error-without-reason": (lambda two: Error(0), "error"),
    "crashed": (lambda two: Error(ErrorCode.CLIENT_APP_CRASHED, "killed"), "error"),
    "node-gone": (lambda two: Error(ErrorCode.NODE_UNAVAILABLE, "node unavailable"), "dropout"),
    "message-expired": (lambda two: Error(ErrorCode.MESSAGE_UNAVAILABLE, "expired"), "late"),
    "reply-expired": (lambda two: Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "expired"), "late"),
    "nothing": (lambda two: RecordDict(), "malformed"),
    "plain-reply-for-two": (lambda two: honest_content(two[0]), "malformed"),
    "wrong-version": (lambda two: pack(two, version=2), "malformed"),
    "no-version": (lambda two: pack(two, version="1"), "malformed"),
    "speaks-for-others": (lambda two: pack([two[0], "4"]), "malformed"),
    "speaks-for-more": (lambda two: pack([*two, "4"]), "malformed"),
    "speaks-for-fewer": (lambda two: pack(two[:1]), "malformed"),
    "speaks-twice": (lambda two: pack([two[0], two[0]]), "malformed"),
    "no-clients": (lambda two: pack(two, clients=[]), "malformed"),
    "clients-are-numbers": (lambda two: pack(two, clients=[1, 2]), "malformed"),
    "short-reasons": (lambda two: pack(two, reasons=[""]), "malformed"),
    "short-details": (lambda two: pack(two, details=[]), "malformed"),
    "short-metrics": (lambda two: pack(two, weights=[10.0]), "malformed"),
    "pack-is-no-config": (lambda two: RecordDict({**pack(two), "pack": MetricRecord({})}), "malformed"),
    "no-metrics": (lambda two: RecordDict({key: pack(two)[key] for key in ("pack", "update")}), "malformed"),
    "no-update": (lambda two: RecordDict({key: pack(two)[key] for key in ("pack", "metrics")}), "malformed"),
    "empty-update": (lambda two: pack(two, {}), "malformed"),
    "sum-of-fewer": (lambda two: sum_of(two, TOTAL, np.array([10.0])), "malformed"),
    "sum-of-more": (lambda two: sum_of(two, TOTAL, np.array([10.0, 10, 10])), "malformed"),
    "sum-of-nobody": (lambda two: sum_of(two, TOTAL, np.array([])), "malformed"),
    "sum-without-weights": (lambda two: pack(two, {"total": Array(TOTAL)}, summed=True), "malformed"),
    "sum-with-more": (
        lambda two: pack(two, {"total": Array(TOTAL), "weights": Array(TWO_WEIGHTS), "x": Array(TOTAL)}, summed=True),
        "malformed",
    ),
    "sum-of-least-integer": (lambda two: sum_of(two, np.full(SIZE, -(2**63)), TWO_WEIGHTS), "malformed"),
    "sum-of-greatest-integer": (lambda two: sum_of(two, np.full(SIZE, 2**63 - 1), TWO_WEIGHTS), "norm"),
    "sum-beyond-norm": (lambda two: sum_of(two, TOTAL * 2000, TWO_WEIGHTS), "norm"),
    "sum-broadcast": (lambda two: sum_of(two, TOTAL[:1], TWO_WEIGHTS), "shape"),
    "sum-of-matrix": (lambda two: sum_of(two, TOTAL[None], TWO_WEIGHTS), "shape"),
    "sum-of-floats": (lambda two: sum_of(two, TOTAL.astype(np.float64), TWO_WEIGHTS), "dtype"),
    "sum-of-other-byte-order": (lambda two: sum_of(two, TOTAL.astype(">i8"), TWO_WEIGHTS), "dtype"),
    "sum-of-int-weights": (lambda two: sum_of(two, TOTAL, np.array([10, 10])), "dtype"),
    "sum-of-negative-weight": (lambda two: sum_of(two, TOTAL, np.array([30.0, -10.0])), "weight"),
    "sum-of-zero-weight": (lambda two: sum_of(two, TOTAL, np.array([20.0, 0.0])), "weight"),
    "sum-of-nan-weight": (lambda two: sum_of(two, TOTAL, np.array([20.0, np.nan])), "weight"),
    "sum-of-huge-weight": (lambda two: sum_of(two, TOTAL, np.array([20.0, 1001.0])), "weight"),
    "sum-giant": (lambda two: sum_of(two, GIANT, TWO_WEIGHTS), "malformed"),
    "sum-of-giant-weights": (lambda two: sum_of(two, TOTAL, GIANT), "malformed"),
}


@pytest.mark.parametrize("case", WHOLE_REPLIES)
def test_a_bad_reply_is_rejected_as_a_whole(case: str) -> None:
    content_for, reason = WHOLE_REPLIES[case]
    assert reasons(content_for(["1", "2"]), ["1", "2"]) == {"1": reason, "2": reason}


@pytest.mark.parametrize("case", WHOLE_REPLIES)
def test_a_bad_reply_changes_nothing_for_the_clients_of_others(case: str) -> None:
    content_for, reason = WHOLE_REPLIES[case]

    def tamper(reply: Message, clients: list[str]) -> Iterable[Message]:
        if clients != ["3", "2"]:  # one node, two to a message, longest first: (5, 4), (3, 2), (1, 0)
            return [reply]
        return [over_the_wire(instead_of(reply, content_for(clients)))]

    weights, records = run(app(), nodes=1, clients_per_message=2, tamper=tamper)
    assert [record.rejected for record in records[1:]] == [{reason: 2}, {reason: 2}]
    assert same(weights, without("2", "3"))


def instead_of(reply: Message, content: RecordDict | Error) -> Message:
    request = Message(RecordDict(), reply.metadata.src_node_id, "train")
    request.metadata.__dict__["_message_id"] = reply.metadata.reply_to_message_id
    return Message(content, reply_to=request)


SINGLE = {
    "giant": ({"delta": GIANT}, "malformed"),
    "negative-shape": ({"delta": npy(header("(-1, -5)"), b"\0" * 20)}, "malformed"),
    "untokenizable": ({"delta": npy("(" * 900)}, "malformed"),
    "stype": ({"delta": Array("float32", (SIZE,), "pickle", b"\0" * 20)}, "malformed"),
    "nothing": ({}, "malformed"),
    "more": ({"delta": Array(np.zeros(SIZE, np.float32)), "x": GIANT}, "malformed"),
    "renamed": ({"gradient": Array(np.zeros(SIZE, np.float32))}, "malformed"),
    "broadcast": ({"delta": Array(np.zeros(1, np.float32))}, "shape"),
    "scalar": ({"delta": Array(np.zeros((), np.float32))}, "shape"),
    "matrix": ({"delta": Array(np.zeros((1, SIZE), np.float32))}, "shape"),
    "longer": ({"delta": Array(np.zeros(SIZE + 1, np.float32))}, "shape"),
    "float64": ({"delta": Array(np.zeros(SIZE))}, "dtype"),
    "byte-order": ({"delta": Array(np.zeros(SIZE, ">f4"))}, "dtype"),
    "nan": ({"delta": Array(np.full(SIZE, np.nan, np.float32))}, "not-finite"),
    "infinite": ({"delta": Array(np.full(SIZE, -np.inf, np.float32))}, "not-finite"),
    "norm": ({"delta": Array(np.full(SIZE, 30, np.float32))}, "norm"),
}


@pytest.mark.parametrize("case", SINGLE)
def test_one_bad_update_in_a_pack_is_rejected_alone(case: str) -> None:
    payload, reason = SINGLE[case]
    good = Array(np.ones(SIZE, np.float32))
    update = {"0/delta": good, **{f"1/{name}": array for name, array in payload.items()}, "2/delta": good}
    assert reasons(pack(["a", "b", "c"], update), ["c", "b", "a"]) == {"a": "", "b": reason, "c": ""}


@pytest.mark.parametrize("weight", [-5.0, 0.0, 1e-300, 1001.0, 1e12, math.nan, math.inf, -math.inf])
def test_one_bad_weight_in_a_pack_is_rejected_alone(weight: float) -> None:
    content = pack(["a", "b"], weights=[weight, 1000.0])
    assert reasons(content, ["a", "b"]) == {"a": "weight", "b": ""}


def test_the_reasons_that_a_pack_gives_are_taken_over_and_unknown_ones_are_malformed() -> None:
    update = {"1/delta": Array(np.zeros(SIZE, np.float32))}
    content = pack(["a", "b", "c"], update, reasons=["norm", "", "I was busy"], details=["too far", "", ""])
    found = outcomes(content, ["a", "b", "c"])
    assert [str(outcome) for outcome in found[:2]] == [
        "client a: too far",
        "client c: its reply could not be understood",
    ]
    assert isinstance(found[2], Update) and found[2].client == "b"


def test_a_sum_is_refused_where_the_rule_needs_single_updates() -> None:
    content = sum_of(["1", "2"], TOTAL, TWO_WEIGHTS)
    assert reasons(content, ["1", "2"], summed=False) == {"1": "malformed", "2": "malformed"}


def test_a_sum_with_other_weights_than_the_rules_is_refused_by_the_fold() -> None:
    def tamper(reply: Message, clients: list[str]) -> Iterable[Message]:
        update = reply.content["update"]
        if BAD in clients:
            update["weights"] = Array(np.full(len(clients), 2.0))
        return [reply]

    weights, records = run(app(), nodes=2, weighting="uniform", tamper=tamper)
    assert records[1].rejected == {"weight": 3}
    gone = sorted(set(IDS) - set(records[1].accepted))
    assert same(weights, without(*gone, weighting="uniform"))


def test_an_honest_sum_is_taken_in_as_it_is() -> None:
    total = FixedPointSum(SIZE)
    for weight in (10.0, 20.0):
        total.add(np.full(SIZE, 0.1, np.float32), weight)
    content = sum_of(["2", "1"], total.to_arrays()["total"], total.to_arrays()["weights"])
    (partial,) = outcomes(content, ["1", "2"])
    assert isinstance(partial, PartialSum)
    assert partial.weights == {"2": 10.0, "1": 20.0}
    np.testing.assert_array_equal(partial.total.mean(), np.full(SIZE, 0.1, np.float32))


@pytest.mark.parametrize(
    "content",
    [
        pack(["1"], {"0/delta": GIANT}),
        sum_of(["1"], GIANT, GIANT),
        RecordDict({"arrays": ArrayRecord({"kernel": GIANT, "bias": GIANT}), "metrics": MetricRecord({})}),
    ],
    ids=["pack", "sum", "plain"],
)
def test_nothing_is_allocated_for_what_a_header_declares(content: RecordDict) -> None:
    reply, ours = reply_with(content), reader()
    tracemalloc.start()
    try:
        (outcome,) = ours.read(reply, ["1"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(outcome, Rejection) and outcome.reason == Reason.MALFORMED
    assert peak < 1_000_000


def test_what_a_client_says_is_cut_to_a_line_that_can_be_written() -> None:
    rejection = Rejection("1", Reason.ERROR, "line one\nINFO forged line\x1b[2J \ud800" + "x" * 10**6)
    assert rejection.detail.startswith("line one INFO forged line [2J ?xxx")
    assert len(rejection.detail) <= 500
    rejection.detail.encode()


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_a_sentence_where_nothing_more_is_known(reason: Reason) -> None:
    assert str(Rejection("7", reason)).startswith("client 7: it")


# Fuzzing: any combination of records of any kind, of which some are nearly right.

NAMES = st.sampled_from(["pack", "metrics", "update", "arrays", "config", "more"])
KEYS = st.sampled_from(
    [
        "version",
        "summed",
        "clients",
        "reasons",
        "details",
        "num-examples",
        "loss",
        "total",
        "weights",
        "0/delta",
        "1/delta",
        "delta",
        "kernel",
        "bias",
        "0",
        "1",
    ]
)
SCALARS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.text(max_size=3), st.binary(max_size=3)
)
TEXTS = st.lists(st.sampled_from(["a", "b", "c", "", "norm"]), max_size=3)
VALUES = st.one_of(SCALARS, TEXTS, st.lists(st.floats(), max_size=3), st.lists(st.integers(0, 9), max_size=3))
NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats())
METRICS = st.dictionaries(KEYS, st.one_of(NUMBERS, st.lists(st.floats(), max_size=3)), max_size=4)
ARRAYS = st.one_of(
    st.builds(
        lambda shape, dtype, value: Array(np.full(shape, value).astype(dtype)),
        st.sampled_from([(), (0,), (1,), (2,), (SIZE,), (2, 2), (SIZE + 1,)]),
        st.sampled_from(["f4", "f8", "i8", ">f4", "f2", "?", "S2"]),
        st.sampled_from([0, 1, 120]),
    ),
    st.sampled_from([GIANT, npy(header("(1,)", "'|O'"), b"\0" * 8), npy("(((("), npy(header("(-1, -5)"), b"\0" * 20)]),
    st.builds(lambda data: Array("float32", (SIZE,), "numpy.ndarray", data), st.binary(max_size=40)),
)
FLOATS = st.builds(Array, st.lists(st.floats(width=32), min_size=SIZE, max_size=SIZE).map(lambda v: np.float32(v)))


@st.composite
def contents(draw: st.DrawFn) -> RecordDict:
    """A good pack, sum or plain reply, with up to three of its records put out of order."""
    content = draw(
        st.sampled_from(
            [
                lambda: pack(["a", "b"]),
                lambda: sum_of(["a", "b"], TOTAL.copy(), TWO_WEIGHTS),
                lambda: honest_content("1"),
                RecordDict,
            ]
        )
    )()
    for _ in range(draw(st.integers(0, 3))):
        name = draw(NAMES)
        kind = draw(st.integers(0, 5))
        record = content.get(name)
        if kind == 0:
            content[name] = ConfigRecord(draw(st.dictionaries(KEYS, VALUES, max_size=4)))
        elif kind == 1:
            content[name] = MetricRecord(draw(METRICS))
        elif kind == 2:
            content[name] = ArrayRecord(draw(st.dictionaries(KEYS, st.one_of(ARRAYS, FLOATS), max_size=4)))
        elif kind == 3 and name in content:
            del content[name]
        elif isinstance(record, ArrayRecord):
            record[draw(KEYS)] = draw(st.one_of(ARRAYS, FLOATS))
        elif isinstance(record, MetricRecord):
            record.update(draw(METRICS))
        elif isinstance(record, ConfigRecord):
            record[draw(KEYS)] = draw(VALUES)
    return content


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(contents(), st.sampled_from([["a", "b"], ["b"]]), st.booleans(), st.sampled_from(["examples", "uniform"]))
def test_any_reply_is_an_outcome_for_each_client_and_leaves_a_finite_mean(
    content: RecordDict, asked: list[str], summed: bool, weighting: str
) -> None:
    aggregator = WeightedMean(weighting)
    step, progress = StepFold(aggregator, aggregator.start(SIZE), Unobserved()), RoundProgress(1, asked)
    step.take(Update("honest", np.full(SIZE, 0.5, np.float32), 10.0))
    found = reader(summed=summed).read(over_the_wire(reply_with(content)), asked)
    named = (outcome.clients if isinstance(outcome, PartialSum) else (outcome.client,) for outcome in found)
    assert sorted(client for clients in named for client in clients) == sorted(asked)
    for outcome in found:
        progress.take(outcome, step)
    assert len(progress.counted) + progress.rejected.total() == len(asked)
    mean = step.fold.result()
    assert np.isfinite(mean).all()
    # Whoever counts keeps the limits, so the mean stays within what such clients can do.
    assert float(np.linalg.norm(mean)) <= LIMITS.max_norm * 1.0001
    if not progress.counted:
        np.testing.assert_array_equal(mean, np.full(SIZE, 0.5, np.float32))
    assert all(math.isfinite(value) for value in progress.train_metrics().values())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(contents())
def test_any_reply_leaves_the_others_as_they_were_or_counts_itself(content: RecordDict) -> None:
    def tamper(reply: Message, clients: list[str]) -> Iterable[Message]:
        return [over_the_wire(instead_of(reply, content))] if BAD in clients else [reply]

    weights, records = run(app(), rounds=1, clients_per_message=1, tamper=tamper)
    assert set(IDS) - {BAD} <= set(records[1].accepted)
    if BAD not in records[1].accepted:
        assert sum(records[1].rejected.values()) == 1
        assert same(weights, without(BAD, rounds=1))
    assert all(np.isfinite(array).all() for array in weights)


@pytest.mark.parametrize(
    ("claimed", "reason"),
    [(10.0, {"a": "", "b": ""}), (10.5, {"a": "weight", "b": ""}), (9.0, {"a": "", "b": ""})],
)
def test_who_claims_more_examples_than_it_described_does_not_count(claimed: float, reason: dict[str, str]) -> None:
    """Client b did not say how many it has."""
    assert reasons(pack(["a", "b"], weights=[claimed, 900.0]), ["a", "b"], a=10) == reason
    plain = honest_content("0")
    plain["metrics"] = MetricRecord({"num-examples": claimed})
    assert reasons(plain, ["a"], a=10) == {"a": reason["a"]}


@pytest.mark.parametrize(("described", "reason"), [(10, ""), (11, ""), (9, "weight")])
def test_a_sum_in_which_a_client_weighs_more_than_it_described_is_rejected(described: int, reason: str) -> None:
    content = sum_of(["a", "b"], TOTAL, TWO_WEIGHTS)
    assert reasons(content, ["a", "b"], b=described) == {"a": reason, "b": reason}
