"""What travels in messages: arrays without copies or trust, metrics in columns, and bytes as Flower counts them."""

import io
import math
import tracemalloc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies import wire
from strategies.admission import Limits
from strategies.errors import LayoutError, StrategyError
from strategies.fixed_point import MAX_WEIGHT
from strategies.layout import ModelLayout
from tests.strategies.toy_federation import header, honest_content, message_with, npy, over_the_wire, start_arrays

DTYPES = st.sampled_from([np.float32, np.float64, np.float16, np.int8, np.uint8, np.int64, np.bool_])


@given(DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))))
def test_arrays_travel_with_shape_dtype_and_every_bit(array: np.ndarray) -> None:
    (travelled,) = wire.array_record({"a": array}).values()
    decoded = wire.decode(travelled)
    assert (decoded.shape, decoded.dtype, decoded.tobytes()) == (array.shape, array.dtype, array.tobytes())
    assert not decoded.flags.writeable


def test_a_scalar_weight_stays_a_scalar() -> None:
    """``np.ascontiguousarray`` would make it one-dimensional, and no client's reply would fit the model any more."""
    (array,) = wire.array_record({"seed": np.array(3, np.int64)}).values()
    assert array.shape == () and wire.decode(array).shape == ()


def test_arrays_in_fortran_order_and_of_old_and_new_format_versions_are_read_as_numpy_does() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(wire.decode(Array(np.asfortranarray(array))), array)
    for version in ((1, 0), (2, 0), (3, 0)):
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array, version)
        data = Array("float32", (2, 3), "numpy.ndarray", stream.getvalue())
        np.testing.assert_array_equal(wire.decode(data), array)


GIANT = "(" + ", ".join(["1000000"] * 3) + ")"
HOSTILE_HEADERS = {
    "terabytes": npy(header(GIANT), b"\0" * 4),
    "gigabytes": npy(header("(4000000000,)"), b"\0" * 4),
    "beyond-64-bits": npy(header(f"({10**40},)"), b"\0" * 4),
    "beyond-64-bits-but-empty": npy(header(f"(0, {10**40})")),
    "negative": npy(header("(-1, -1)"), b"\0" * 4),
    "guessed": npy(header("(-1,)"), b"\0" * 4),
    "too-few-bytes": npy(header("(2,)"), b"\0" * 4),
    "too-many-bytes": npy(header("(1,)"), b"\0" * 8),
    "objects": npy(header("(1,)", "'|O'"), b"\0" * 8),
    "objects-inside": npy(header("(1,)", "[('a', '|O')]"), b"\0" * 8),
    "no-size": npy(header("(1000000000,)", "'|S0'")),
    "sub-array": npy(header("(1,)", "('<f4', (2,))"), b"\0" * 8),
    "sub-array-giant": npy(header("(1,)", "('<f4', (4000000000,))"), b"\0" * 8),
    "no-shape": npy("{'descr': '<f4', 'fortran_order': False}"),
    "not-a-mapping": npy("[1, 2, 3]"),
    "code": npy("__import__('os').getpid()"),
    "parentheses": npy("(" * 9000),
    "nested": npy("[" * 4000 + "]" * 4000),
    "nulls": npy("\0" * 64),
    "long": npy(" " * 60_000 + "{}"),
    "empty": Array("float32", (1,), "numpy.ndarray", b""),
    "magic-only": Array("float32", (1,), "numpy.ndarray", b"\x93NUMPY"),
    "version-9": Array("float32", (1,), "numpy.ndarray", b"\x93NUMPY\x09\x00" + b"\0" * 100),
    "zip": Array("float32", (1,), "numpy.ndarray", b"PK\x03\x04" + b"\0" * 100),
    "pickle": Array("float32", (1,), "numpy.ndarray", b"\x80\x04" + b"\0" * 100),
    "stype": Array("float32", (1,), "pickle", b""),
}


@pytest.mark.parametrize("case", HOSTILE_HEADERS)
def test_a_header_is_never_believed(case: str) -> None:
    array = HOSTILE_HEADERS[case]
    tracemalloc.start()
    try:
        with pytest.raises(LayoutError) as raised:
            wire.decode(array)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert raised.value.reason == "malformed"
    assert peak < 4_000_000 + 2 * len(array.data)
    assert len(str(raised.value)) < 500


@given(st.binary(max_size=200))
def test_any_bytes_are_an_array_or_malformed(data: bytes) -> None:
    for content in (data, b"\x93NUMPY\x01\x00" + data, Array(np.ones(3, np.float32)).data[:60] + data):
        try:
            wire.decode(Array("float32", (1,), "numpy.ndarray", content))
        except LayoutError as error:
            assert error.reason == "malformed"


def test_decoding_copies_nothing() -> None:
    array = Array(np.zeros(1_000_000, np.float32))
    tracemalloc.start()
    try:
        wire.decode(array)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000


LAYOUT = ModelLayout(("a/b", "a/c"), ((2,), (2,)), ("float32", "float32"))
ONE, TWO = np.full(2, 1, np.float32), np.full(2, 2, np.float32)


@pytest.mark.parametrize(
    "record",
    [
        wire.array_record({"a/b": ONE, "a/c": TWO}),
        wire.array_record({"a/c": TWO, "a/b": ONE}),
        ArrayRecord([ONE, TWO]),
        wire.array_record({"1": TWO, "0": ONE}),
    ],
)
def test_a_clients_arrays_are_matched_by_name_or_by_flowers_own_numbers(record: ArrayRecord) -> None:
    first, second = wire.arrays_like(LAYOUT, record)
    assert first.tolist() == [1, 1] and second.tolist() == [2, 2]


@pytest.mark.parametrize("names", [("a/b",), ("a/b", "a/d"), ("0", "2"), ("a/b", "1"), ("a/b", "a/c", "a/d"), ()])
def test_other_names_are_malformed(names: tuple[str, ...]) -> None:
    with pytest.raises(LayoutError) as raised:
        wire.arrays_like(LAYOUT, wire.array_record(dict.fromkeys(names, ONE)))
    assert raised.value.reason == "malformed"


def test_ten_arrays_are_matched_by_number_not_by_text() -> None:
    layout = ModelLayout.from_arrays([np.array([k], np.float32) for k in range(12)], [f"w{k}" for k in range(12)])
    record = ArrayRecord([np.array([k], np.float32) for k in range(12)])
    assert [int(array[0]) for array in wire.arrays_like(layout, record)] == list(range(12))


def test_the_weights_of_one_record_are_decoded_once() -> None:
    record = start_arrays()
    weights = wire.read_weights(record)
    assert wire.read_weights(record) is weights
    assert wire.read_weights(start_arrays()) is not weights
    with pytest.raises(ValueError, match="read-only"):
        weights.flat[0] = 1
    np.testing.assert_array_equal(weights.flat, np.array([1, -2, 0.5, 4, 0.25], np.float32))


@pytest.mark.parametrize("limits", [Limits(1000.0, 2.5, 2.0**30 / 7), Limits(1e7, 0.0, math.inf), Limits(2.0**53)])
def test_limits_survive_the_wire_to_the_bit(limits: Limits) -> None:
    content = RecordDict({"config": ConfigRecord(wire.limits_record(limits))})
    assert wire.limits_of(wire.config_of(over_the_wire(message_with(content)))) == limits


def test_without_limits_there_are_none_but_those_of_the_sum() -> None:
    assert wire.limits_of(ConfigRecord({"limit-max_norm": "no number"})) == Limits(MAX_WEIGHT)


def test_rows_of_metrics_become_columns_and_rows_again() -> None:
    table = [{"loss": 0.5, "n": 3.0}, {}, {"n": 1.0}]
    record = wire.columns(table)
    back = wire.rows(record, 3)
    assert back[0] == {"loss": 0.5, "n": 3.0}
    assert math.isnan(back[1]["loss"]) and math.isnan(back[1]["n"]) and math.isnan(back[2]["loss"])
    assert wire.rows(wire.columns([]), 0) == []


@pytest.mark.parametrize("values", [0.5, [0.5], [0.5, 0.5, 0.5], []])
def test_a_column_of_another_length_is_refused(values: object) -> None:
    with pytest.raises(StrategyError, match="'loss' of a reply for 2 clients"):
        wire.rows(MetricRecord({"loss": values}), 2)  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [None, "text", 3, [1], b"bytes", [True]])
def test_lists_of_text_are_lists_of_text(value: object) -> None:
    record = ConfigRecord({} if value is None else {"clients": value})  # type: ignore[dict-item]
    with pytest.raises(StrategyError, match="'clients' of a message must hold a list of strings"):
        wire.text_list(record, "clients")


@pytest.mark.parametrize("value", [None, "text", 3, ["1"], [1.5]])
def test_lists_of_integers_are_lists_of_integers(value: object) -> None:
    record = ConfigRecord({} if value is None else {"seeds": value})  # type: ignore[dict-item]
    with pytest.raises(StrategyError, match="'seeds' of a message must hold a list of integers"):
        wire.int_list(record, "seeds")


@pytest.mark.parametrize("value", [None, "text", 0.5, ["1"], [1], [True]])
def test_lists_of_floats_are_lists_of_floats(value: object) -> None:
    record = ConfigRecord({} if value is None else {"shares": value})  # type: ignore[dict-item]
    with pytest.raises(StrategyError, match="'shares' of a message must hold a list of floats"):
        wire.float_list(record, "shares")
    assert wire.float_list(ConfigRecord({"shares": [0.5, 1.0]}), "shares") == [0.5, 1.0]


@pytest.mark.parametrize("value", [None, "0.5", [0.5]])
def test_a_number_is_a_number(value: object) -> None:
    record = ConfigRecord({} if value is None else {"learning-rate": value})  # type: ignore[dict-item]
    with pytest.raises(StrategyError, match="'learning-rate' of a message must hold a number"):
        wire.number(record, "learning-rate")


def test_a_record_of_another_kind_counts_as_missing() -> None:
    content = RecordDict({"arrays": MetricRecord({}), "metrics": ArrayRecord(), "config": MetricRecord({})})
    with pytest.raises(StrategyError, match="no arrays under 'arrays'"):
        wire.arrays_of(content, "arrays")
    with pytest.raises(StrategyError, match="no metrics under 'metrics'"):
        wire.metrics_of(content)
    assert dict(wire.config_of(message_with(content))) == {}


def test_everything_our_messages_hold_survives_flowers_serialization() -> None:
    config = {
        "n": 2**62,
        "neg": -(2**63),
        "nan": math.nan,
        "inf": math.inf,
        "": "",
        "e": [],
        "t": ["", "ü\n"],
        "b": b"",
    }
    metrics = {"nan": math.nan, "list": [math.nan, math.inf, 0.1], "none": [], "big": 2**62}
    arrays = {"0/delta": np.array([np.nan, -0.0, 1e-45], np.float32), "scalar": np.array(1, np.int64)}
    content = RecordDict(
        {"pack": ConfigRecord(config), "metrics": MetricRecord(metrics), "update": wire.array_record(arrays)}
    )
    back = over_the_wire(message_with(content)).content
    assert repr(dict(back["pack"])) == repr(config)
    assert repr(dict(back["metrics"])) == repr(metrics)
    assert list(back["update"]) == list(arrays)
    for name, array in arrays.items():
        decoded = wire.decode(back["update"][name])
        assert decoded.tobytes() == array.tobytes() and decoded.shape == array.shape


def pushed_bytes(message: Message) -> int:
    """What Flower's HttpGrid pushes for a message: every object of its tree once (``HttpGrid._try_push_messages``)."""
    return sum(len(obj.deflate()) for obj in get_all_nested_objects(message).values())


def test_bytes_are_those_that_flower_pushes() -> None:
    shared = wire.array_record({"a": np.arange(1000, dtype=np.float32), "same": np.arange(1000, dtype=np.float32)})
    requests = [
        message_with(RecordDict({"arrays": shared, "config": ConfigRecord({"clients": [str(k)], "round": k})}))
        for k in range(3)
    ]
    replies = [message_with(honest_content(str(k))) for k in range(3)] + [message_with(RecordDict())]
    down, up = wire.ByteCounter(shared), wire.ByteCounter()
    for request in requests:
        down.add(request)
    for reply in replies:
        up.add(reply)
    assert down.total == sum(map(pushed_bytes, requests))
    assert up.total == sum(map(pushed_bytes, replies))


def test_bytes_of_a_new_model_are_counted_anew() -> None:
    small, large = (wire.array_record({"a": np.zeros(size, np.float32)}) for size in (10, 10_000))
    totals = []
    for record in (small, large):
        counter = wire.ByteCounter(record)
        request = message_with(RecordDict({"arrays": record}))
        counter.add(request)
        totals.append((counter.total, pushed_bytes(request)))
    assert totals[0][0] == totals[0][1] and totals[1][0] == totals[1][1]
    assert totals[1][0] - totals[0][0] == pytest.approx(4 * 9_990, abs=50)


def test_a_text_of_another_process_becomes_one_short_line() -> None:
    assert wire.one_line("a\r\n\tb \x00 c\ud800", 100) == "a b c?"
    assert wire.one_line("x" * 10, 4) == "xxxx"
    assert wire.one_line("é", 9) == "é"
