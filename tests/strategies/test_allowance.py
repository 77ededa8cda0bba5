"""What a reply may hold: all that honest clients send, and nothing that would cost more than it weighs."""

import pkgutil
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zstandard
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.admission import Limits, Reason
from strategies.allowance import Allowance, bytes_held
from strategies.client import Row, pack_content
from strategies.compression import payload
from strategies.compression.codec import Codec
from strategies.compression.compressed import Compressed
from strategies.compression.header import SHORTENED, Header
from strategies.compression.registry import codec_of
from strategies.fedbuff import strategy_class
from strategies.fixed_point import FixedPointSum
from strategies.layout import ModelLayout
from strategies.replies import Rejection, ReplyReader
from strategies.requests import Correspondence, bytes_of, weighed
from strategies.terms import RoundRules
from tests.strategies.compression.test_compressed import COMBINATIONS, named
from tests.strategies.toy_federation import LIMITS, SIZE, app, header, npy, start_arrays

LAYOUT = ModelLayout(("kernel", "bias"), ((3000, 10), (10,)), ("float32", "float32"))
ASKED = ["1", "2"]
TOY = wire.read_weights(start_arrays())


def request() -> Message:
    InlineGrid.of(app(), 1)
    message = Message(RecordDict(), 1, "train")
    message.metadata.__dict__["_message_id"] = "request"
    return message


def reply_with(content: RecordDict | Error) -> Message:
    return Message(content, reply_to=request())


def packed(update: dict[str, Array], **changes: object) -> RecordDict:
    """An answer of the clients 1 and 2 to a request of a model of five values."""
    content = pack_content([Row(client, metrics={"num-examples": 10.0}) for client in ASKED], None)
    content["pack"] = ConfigRecord({**dict(content["pack"]), **changes})  # type: ignore[arg-type]
    content["update"] = wire.record_of(update)
    return content


# Whatever honest clients send is allowed, and not by far more.


def talkative(client: str) -> Row:
    """A client with as many metrics as are taken, of names as long as are taken."""
    return Row(client, "", "d" * 500, {f"{k:0300d}": 0.5 for k in range(1000)})


@pytest.mark.parametrize("clients", [1, 7])
@pytest.mark.parametrize("codec", COMBINATIONS, ids=named)
def test_updates_of_every_codec_are_allowed(codec: Compressed, clients: int) -> None:
    values = np.random.default_rng(0).standard_normal(LAYOUT.size, np.float32)
    array = payload.written(codec.encode(values, 1, 2))
    rows = [Row(str(client), update={wire.DELTA: array}) for client in range(clients)]
    assert Allowance.of(LAYOUT, clients).excess(reply_with(pack_content(rows, None))) == ""


@pytest.mark.parametrize("clients", [1, 7, 200])
def test_dense_updates_and_sums_are_allowed_with_all_that_may_be_told_beside(clients: int) -> None:
    delta = wire.array_record({wire.DELTA: np.ones(LAYOUT.size, np.float32)})
    rows = [talkative(str(client)) for client in range(clients)]
    total = FixedPointSum(LAYOUT.size)
    for _ in rows:
        total.add(np.ones(LAYOUT.size, np.float32), 10.0)
    singles = [Row(row.client, "", row.detail, row.metrics, dict(delta)) for row in rows]
    for content in (pack_content(singles, None), pack_content(rows, total)):
        assert Allowance.of(LAYOUT, clients).excess(reply_with(content)) == ""


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
def test_the_arrays_of_a_model_are_allowed_with_two_moments_of_an_optimizer_and_not_with_three(dtype: str) -> None:
    sides = [(10**6,), (), *[(0, 3)] * 200]  # of which most take nothing but their headers
    arrays = [Array(np.zeros(side, dtype)) for side in sides]
    names = [f"{'layer' * 20}-{k}" for k in range(len(arrays))]
    layout = ModelLayout(tuple(names), tuple(sides), (dtype,) * len(sides))
    content = RecordDict({"arrays": wire.record_of(dict(zip(names, arrays, strict=True)))})
    for moment in ("m", "v"):
        content[moment] = content["arrays"]
        assert Allowance.of(layout, 1).excess(reply_with(content)) == ""
    content["vhat"] = content["arrays"]
    assert Allowance.of(layout, 1).excess(reply_with(content)) == (
        "Its reply holds 808 arrays, but at most 609 were to be expected: send the weights and their metrics alone."
    )


def test_a_plain_app_that_tells_the_loss_of_every_example_is_told_what_to_send() -> None:
    told = MetricRecord({"num-examples": 200_000, "losses": [0.5] * 200_000})
    content = RecordDict({"arrays": wire.array_record({"kernel": np.zeros(650, np.float32)}), "metrics": told})
    found = Allowance.of(ModelLayout(("kernel",), ((650,),), ("float32",)), 1).excess(reply_with(content))
    assert found.endswith("were to be expected: send the weights and their metrics alone.")


def test_bytes_are_those_of_names_and_values() -> None:
    content = RecordDict(
        {
            "a": ArrayRecord({"bc": Array("float32", (1,), "numpy.ndarray", b"\0" * 100)}),
            "d": wire.array_record({"ef": np.zeros(3, np.float64)}),
            "g": MetricRecord({"h": 1.0, "ij": [1, 2, 3]}),
            "k": ConfigRecord({"l": "four", "m": ["ab", "c"], "n": b"12345", "o": True}),
        }
    )
    claimed = [len(dtype) + len("numpy.ndarray") + 8 for dtype in ("float32", "float64")]
    arrays = (1 + 2 + claimed[0] + 100) + (1 + 2 + claimed[1] + 24)
    assert bytes_held(content) == arrays + (1 + 1 + 8 + 2 + 24) + (1 + 1 + 4 + 1 + 3 + 1 + 5 + 9)


def test_an_error_is_no_excess() -> None:
    assert Allowance(0, 0).excess(reply_with(Error(2, "x" * 10**6))) == ""


# What is more is refused unread, and what is less but unfolds is refused before it unfolds.


def zstandard_bomb() -> Array:
    frame = np.frombuffer(zstandard.ZstdCompressor().compress(bytes(2**26)), np.uint8)
    codec = codec_of({"codec": "zstd"})
    assert isinstance(codec, Compressed) and len(frame) < 10_000
    honest = Header.open(codec.encode(np.ones(SIZE, np.float32), 1, 2))[0]
    fields = {**vars(honest), "flags": SHORTENED}
    return payload.written(Header(**fields).seal(frame))


TINY = Array(np.zeros(1, np.float32))
UNREAD: dict[str, Callable[[], RecordDict]] = {
    "arrays-of-a-pack": lambda: packed({f"{k}/delta": TINY for k in range(300_000)}),
    "arrays-elsewhere": lambda: RecordDict(
        {**packed({}), "more": wire.record_of({str(k): TINY for k in range(300_000)})}
    ),
    "array": lambda: packed({"0/delta": Array("float32", (2**23,), "numpy.ndarray", bytes(2**25))}),
    "array-that-would-be-read": lambda: packed({"0/delta": npy(header(f"({2**23},)"), bytes(2**25))}),
    "claims-of-an-array": lambda: packed({"0/delta": Array("x" * 10**7, (1,) * 10**6, "numpy.ndarray", b"")}),
    "detail": lambda: packed({}, details=["x" * 10**7, ""]),
    "clients": lambda: packed({}, clients=["1"] * 10**6),
    "settings": lambda: packed({}, more=b"x" * 10**7),
    "metrics": lambda: RecordDict({**packed({}), "metrics": MetricRecord({"loss": [0.5] * 10**6})}),
}
UNFOLDED: dict[str, Callable[[], tuple[Array, Codec]]] = {
    "header-of-10-gigabytes": lambda: (npy(header("(2500000000,)"), b"\0" * 20), codec_of({})),
    "zstandard": lambda: (zstandard_bomb(), codec_of({"codec": "zstd"})),
}


def peak_of(content: RecordDict, codec: Codec) -> tuple[set[Reason], int]:
    """Read a reply and return under which reasons it is rejected, and the most bytes that this took."""
    reader = ReplyReader(TOY, codec, lambda update: update, Limits(1000.0), summed=True)
    letters = Correspondence(ArrayRecord(), [(request(), ASKED)], TOY.layout)
    reply = reply_with(content)
    tracemalloc.start()
    try:
        found = [outcome for one, asked in letters.answered([reply]) for outcome in reader.read(one, asked)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [outcome.client for outcome in found if isinstance(outcome, Rejection)] == ASKED
    return {outcome.reason for outcome in found if isinstance(outcome, Rejection)}, peak


def spy(name: str, calls: list[str]) -> Callable[..., Any]:
    """The function of this name in `strategies`, which takes down its calls."""
    original = pkgutil.resolve_name(f"strategies.{name}")

    def called(*given: Any) -> Any:
        calls.append(name)
        return original(*given)

    return called


@pytest.mark.parametrize("bomb", UNREAD)
def test_a_reply_above_its_allowance_is_refused_before_anything_reads_it(
    bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is decoded, nothing is written to count bytes, and no memory is taken."""
    content, touched = UNREAD[bomb](), []
    for name in ("wire.decode", "replies.read", "replies.Pack.of", "message_size._Tree.records", "uplink.size_of"):
        monkeypatch.setattr(f"strategies.{name}", spy(name, touched))
    reasons, peak = peak_of(content, codec_of({}))
    assert reasons == {Reason.TOO_LARGE}
    assert touched == [] and peak < 100_000
    peak_of(packed({"0/delta": TINY, "1/delta": TINY}), codec_of({}))
    assert len(set(touched)) == 5  # what is small enough is read by all of them


@pytest.mark.parametrize("bomb", UNFOLDED)
def test_a_reply_that_would_unfold_is_refused_before_it_does(bomb: str) -> None:
    array, codec = UNFOLDED[bomb]()
    content = packed({"0/delta": array, "1/delta": array})
    assert bytes_held(content) < 20_000
    reasons, peak = peak_of(content, codec)
    assert reasons == {Reason.MALFORMED} and peak < 200_000


def test_its_bytes_are_counted_all_the_same() -> None:
    content = UNREAD["arrays-of-a-pack"]()
    letters = Correspondence(ArrayRecord(), [(request(), ASKED)], TOY.layout)
    assert len(list(letters.answered([reply_with(content)]))) == 1
    assert letters.bytes_up == bytes_held(content) > 300_000 * len(TINY.data)
    assert letters.uplink.sizes == []
    honest = reply_with(packed({"0/delta": TINY, "1/delta": TINY}))
    assert weighed(honest, LAYOUT, 2) == weighed(honest, None, 2) == (honest, bytes_of(honest))


def test_what_is_too_large_is_an_error_to_the_same_message_and_its_content_is_let_go() -> None:
    swollen = reply_with(UNREAD["array"]())
    refused, _ = weighed(swollen, TOY.layout, 2)
    assert refused.has_error() and not refused.has_content()
    assert refused.error.reason == Allowance.of(TOY.layout, 2).excess(swollen) != ""
    assert refused.metadata.reply_to_message_id == "request"


@pytest.mark.parametrize("name", ["fedavg", "fedbuff"])
def test_every_reply_is_measured_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that of an evaluation; FedBuff takes two of the replies for its one step."""
    measured: list[Message] = []
    original = Allowance.excess
    monkeypatch.setattr(Allowance, "excess", lambda self, reply: measured.append(reply) or original(self, reply))
    composition = registry.build(name, {"buffer-size": 2, "concurrency": 2} if name == "fedbuff" else {})
    rules = RoundRules(limits=LIMITS, clients_per_message=1, federated_evaluate_every=1)
    strategy = strategy_class(composition)(composition, rules, seed=7)
    strategy.start(InlineGrid.of(app(), 2), start_arrays(), num_rounds=1, timeout=5.0)
    kinds = Counter(reply.metadata.message_type for reply in measured)
    assert kinds == {"train": 2 if name == "fedbuff" else 6, "evaluate": 6}
    assert len(measured) == len({id(reply) for reply in measured})
