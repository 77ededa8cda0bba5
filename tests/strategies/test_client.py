"""What the mods around a handler do, and that one client of a message cannot spoil the others', packed or not."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict

from strategies import wire
from strategies.client import asked_together, client_errors_raised, delta_mod, each_client, packing_mod
from strategies.errors import StrategyError
from strategies.seeding import child_seed
from tests.strategies.toy_federation import (
    BAD,
    BIAS,
    IDS,
    KERNEL,
    app,
    header,
    honest_content,
    local_arrays,
    npy,
    run,
    same,
    start_arrays,
    without,
)

CONTEXT = Context(1, 1, {}, RecordDict(), {})


def arrays(**changes: object) -> Callable[[RecordDict], RecordDict]:
    """Replace arrays of a result; None removes one, a Flower Array is put in as it is."""

    def misbehave(content: RecordDict) -> RecordDict:
        named: dict[str, Array] = {name: Array(array) for name, array in local_arrays(BAD).items()}
        for name, array in changes.items():
            if array is None:
                named.pop(name)
            else:
                named[name] = array if isinstance(array, Array) else Array(np.asarray(array))
        content["arrays"] = ArrayRecord(named)
        return content

    return misbehave


def metrics(**values: object) -> Callable[[RecordDict], RecordDict]:
    def misbehave(content: RecordDict) -> RecordDict:
        content["metrics"] = MetricRecord({name.replace("_", "-"): value for name, value in values.items()})
        return content

    return misbehave


def without_record(name: str) -> Callable[[RecordDict], RecordDict]:
    def misbehave(content: RecordDict) -> RecordDict:
        del content[name]
        return content

    return misbehave


def raising(content: RecordDict) -> RecordDict:
    raise OSError("no disk")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle of a client was loaded",))


def with_nan(value: float) -> np.ndarray:
    broken = KERNEL.copy()
    broken[1, 0] = value
    return broken


MISBEHAVIOUR = {
    "raises": (raising, "error"),
    "nan": (arrays(kernel=with_nan(np.nan)), "not-finite"),
    "infinite": (arrays(kernel=with_nan(np.inf)), "not-finite"),
    "minus-infinite": (arrays(kernel=with_nan(-np.inf)), "not-finite"),
    "overflowing": (arrays(kernel=with_nan(3e38)), "norm"),
    "broadcastable": (arrays(kernel=np.ones(1, np.float32)), "shape"),
    "scalar": (arrays(bias=np.float32(1)), "shape"),
    "flat": (arrays(kernel=np.ones(4, np.float32)), "shape"),
    "empty": (arrays(kernel=np.empty((0, 2), np.float32)), "shape"),
    "more-dimensions": (arrays(bias=np.ones((1, 1), np.float32)), "shape"),
    "float64": (arrays(kernel=KERNEL.astype(np.float64)), "dtype"),
    "float16": (arrays(kernel=KERNEL.astype(np.float16)), "dtype"),
    "int32": (arrays(kernel=KERNEL.astype(np.int32)), "dtype"),
    "complex": (arrays(kernel=KERNEL.astype(np.complex64)), "dtype"),
    "text": (arrays(bias=np.array(["boo"])), "dtype"),
    "missing": (arrays(bias=None), "malformed"),
    "additional": (arrays(more=np.ones(3, np.float32)), "malformed"),
    "renamed": (arrays(bias=None, offset=BIAS), "malformed"),
    "no-arrays": (without_record("arrays"), "malformed"),
    "no-metrics": (without_record("metrics"), "malformed"),
    "many-metrics": (metrics(num_examples=40, **{f"m{k}": 0.0 for k in range(1001)}), "malformed"),
    "long-metric": (metrics(num_examples=40, **{"m" * 301: 0.0}), "malformed"),
    "negative-weight": (metrics(num_examples=-5), "weight"),
    "zero-weight": (metrics(num_examples=0), "weight"),
    "tiny-weight": (metrics(num_examples=1e-300), "weight"),
    "huge-weight": (metrics(num_examples=10**12), "weight"),
    "greatest-integer": (metrics(num_examples=2**63 - 1), "weight"),
    "nan-weight": (metrics(num_examples=float("nan")), "weight"),
    "infinite-weight": (metrics(num_examples=float("inf")), "weight"),
    "missing-weight": (metrics(loss=1.0), "weight"),
    "weight-in-a-list": (metrics(num_examples=[40]), "weight"),
    "norm": (arrays(kernel=KERNEL + 100), "norm"),
    "giant-header": (arrays(bias=npy(header("(10**6, 10**6)".replace("10**6", "1000000")))), "malformed"),
    "negative-shape": (arrays(bias=npy(header("(-1, -1)"), b"\0" * 4)), "malformed"),
    "nonsense-header": (arrays(bias=npy("(" * 900)), "malformed"),
    "cut-off": (arrays(bias=Array("float32", (1,), "numpy.ndarray", Array(BIAS).data[:-1])), "malformed"),
    "no-bytes": (arrays(bias=Array("float32", (1,), "numpy.ndarray", b"")), "malformed"),
    "other-stype": (arrays(bias=Array("float32", (1,), "pickle", pickle.dumps(Bomb()))), "malformed"),
    "objects": (arrays(bias=npy(header("(1,)", "'|O'"), pickle.dumps(Bomb()))), "malformed"),
}


@pytest.mark.parametrize("clients_per_message", [0, 1])
@pytest.mark.parametrize("case", MISBEHAVIOUR)
def test_a_bad_client_is_rejected_and_the_others_are_what_they_were(case: str, clients_per_message: int) -> None:
    misbehave, reason = MISBEHAVIOUR[case]
    weights, records = run(app(bad={BAD: misbehave}), clients_per_message=clients_per_message)
    assert same(weights, without(BAD))
    assert [record.rejected for record in records[1:]] == [{reason: 1}, {reason: 1}]
    assert BAD not in records[1].accepted and len(records[1].accepted) == 5
    assert records[1].participation() == pytest.approx(5 / 6)


@pytest.mark.parametrize("case", MISBEHAVIOUR)
def test_a_bad_client_of_a_stock_app_is_rejected_for_the_same_reason(case: str) -> None:
    misbehave, reason = MISBEHAVIOUR[case]
    weights, records = run(app(bad={BAD: misbehave}, mods=False), clients_per_message=1)
    assert same(weights, without(BAD))
    assert records[1].rejected == {reason: 1}


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_packed_equals_unpacked_with_several_kinds_of_rejections(weighting: str, nodes: int) -> None:
    cases = ["raises", "nan", "negative-weight", "float64"]
    bad = dict(zip(("0", "2", "3", "5"), (MISBEHAVIOUR[case][0] for case in cases), strict=True))
    packed, records = run(app(bad=bad), nodes=nodes, weighting=weighting)
    unpacked, unpacked_records = run(app(bad=bad), nodes=3, weighting=weighting, clients_per_message=1)
    assert same(packed, unpacked)
    for left, right in zip(records, unpacked_records, strict=True):
        assert (left.accepted, left.rejected, left.train) == (right.accepted, right.rejected, right.train)
    assert records[1].rejected == {"error": 1, "not-finite": 1, "weight": 1, "dtype": 1}


def request(clients: list[str], arrays: ArrayRecord | None = None, **config: object) -> Message:
    seeds = [child_seed(0, 1, client, "train") for client in clients]
    record = ConfigRecord({"clients": clients, "seeds": seeds, **config})  # type: ignore[dict-item]
    content = RecordDict({"arrays": arrays or start_arrays(), "config": record})
    message = Message(content, 1, "train")
    message.metadata.__dict__["_message_id"] = "request"
    return message


def test_the_delta_is_local_minus_global_as_one_flat_vector() -> None:
    reply = delta_mod(request(["2"]), CONTEXT, lambda message, _: Message(honest_content("2"), reply_to=message))
    assert "arrays" not in reply.content
    delta = reply.content["update"]["delta"].numpy()
    np.testing.assert_array_equal(delta, np.array([-1, -1, -1, -1, 1], dtype=np.float32))


def test_arrays_that_keep_their_names_may_come_in_any_order_and_a_list_in_its_own() -> None:
    two = {"first": np.zeros(2, np.float32), "second": np.zeros(2, np.float32)}
    local = {"second": np.full(2, 2, np.float32), "first": np.full(2, 1, np.float32)}
    for record in (wire.array_record(local), ArrayRecord([local["first"], local["second"]])):
        content = RecordDict({"arrays": record, "metrics": MetricRecord({})})
        message = request(["0"], wire.array_record(two))
        reply = delta_mod(message, CONTEXT, lambda message, _, content=content: Message(content, reply_to=message))
        np.testing.assert_array_equal(reply.content["update"]["delta"].numpy(), [1, 1, 2, 2])


def test_every_client_gets_its_own_name_and_seed_and_the_common_settings() -> None:
    message = request(["4", "1"], rate=0.5)
    configs = dict(each_client(wire.config_of(message)))
    assert list(configs) == ["4", "1"]
    assert dict(configs["4"]) == {"rate": 0.5, "client": "4", "seed": child_seed(0, 1, "4", "train"), "share": 1.0}


def test_every_client_learns_when_its_update_counted_last_where_the_request_says_so() -> None:
    configs = dict(each_client(wire.config_of(request(["4", "1"], committed=[7, 0]))))
    assert [config["committed-round"] for config in configs.values()] == [7, 0]
    assert all("committed" not in config for config in configs.values())
    with pytest.raises(StrategyError, match="2 clients but 1 committed"):
        list(each_client(wire.config_of(request(["4", "1"], committed=[7]))))


def test_as_many_seeds_as_clients_are_needed() -> None:
    with pytest.raises(StrategyError, match="2 clients but 1 seeds"):
        list(each_client(ConfigRecord({"clients": ["0", "1"], "seeds": [1]})))


def test_a_handler_cannot_change_what_the_next_client_of_the_message_sees() -> None:
    seen: list[list[str]] = []

    def greedy(message: Message, context: Context) -> Message:
        seen.append(sorted(message.content))
        client = str(wire.config_of(message)["client"])
        for name in list(message.content):
            del message.content[name]
        return Message(honest_content(client), reply_to=message)

    message = request(["0", "1", "2"])
    packing_mod(message, CONTEXT, greedy)
    assert seen == [["arrays", "config"]] * 3
    assert sorted(message.content) == ["arrays", "config"]
    assert wire.text_list(wire.config_of(message), "clients") == ["0", "1", "2"]


def test_a_request_without_clients_goes_to_the_handler_as_it_is() -> None:
    message = Message(RecordDict({"arrays": start_arrays(), "config": ConfigRecord({"lr": 0.1})}), 1, "train")
    reply = packing_mod(message, CONTEXT, lambda message, _: Message(message.content, reply_to=message))
    assert reply.content is message.content


def test_an_error_reply_of_the_handler_is_that_clients_error_in_its_words() -> None:
    def handler(message: Message, context: Context) -> Message:
        client = str(wire.config_of(message)["client"])
        if client == "1":
            return Message(Error(0, "out of battery"), reply_to=message)
        return Message(honest_content(client), reply_to=message)

    def with_delta(message: Message, context: Context) -> Message:
        return delta_mod(message, context, handler)

    pack = packing_mod(request(["0", "1"]), CONTEXT, with_delta).content["pack"]
    assert wire.text_list(pack, "reasons") == ["", "error"]
    assert "out of battery" in wire.text_list(pack, "details")[1]


def test_a_long_error_keeps_its_beginning_and_its_end() -> None:
    def handler(message: Message, context: Context) -> Message:
        raise ValueError("in user code:\n" + "    a frame of the call stack\n" * 100 + "the cause")

    (detail,) = wire.text_list(packing_mod(request(["0"]), CONTEXT, handler).content["pack"], "details")
    assert detail.startswith("ValueError: in user code:")
    assert detail.endswith("the cause")
    assert len(detail) == 500


def test_seeds_are_the_same_however_clients_are_packed() -> None:
    def seeds_of(nodes: int, clients_per_message: int) -> dict[tuple[int, str], int]:
        seen: dict[tuple[int, str], int] = {}
        run(app(seen=seen), nodes=nodes, clients_per_message=clients_per_message)
        return seen

    reference = seeds_of(1, 0)
    assert len(reference) == 2 * len(IDS) and len(set(reference.values())) == 2 * len(IDS)
    for nodes, clients_per_message in ((2, 0), (3, 1), (4, 2)):
        assert seeds_of(nodes, clients_per_message) == reference


def test_every_client_gets_its_share_of_the_work() -> None:
    configs = dict(each_client(wire.config_of(request(["4", "1"], shares=[0.25, 1.0]))))
    assert [wire.number(configs[client], "share") for client in ("4", "1")] == [0.25, 1.0]
    assert not {"shares", "clients", "seeds"} & set(configs["4"])


@pytest.mark.parametrize(
    "shares", [[0.5], [0.5, 0.5, 0.5], [], [0.5, 0.0], [1.5, 0.5], [0.5, -0.5], [0.5, float("nan")]]
)
def test_shares_that_cannot_be_meant_are_refused(shares: list[float]) -> None:
    with pytest.raises(StrategyError, match="shares"):
        list(each_client(wire.config_of(request(["4", "1"], shares=shares))))
    with pytest.raises(StrategyError, match="must hold a list of floats"):
        list(each_client(wire.config_of(request(["4", "1"], shares=["1", "1"]))))


def test_the_settings_of_a_client_are_its_own() -> None:
    (_, first), (_, second) = each_client(wire.config_of(request(["4", "1"], rate=0.5)))
    first["rate"] = 7.0
    assert second["rate"] == 0.5


def failing(message: Message, context: Context) -> Message:
    raise OSError("no disk")


def test_while_debugging_a_clients_error_comes_through_and_afterwards_no_longer() -> None:
    with client_errors_raised(), pytest.raises(OSError, match="no disk"):
        packing_mod(request(["0", "1"]), CONTEXT, failing)
    reply = packing_mod(request(["0", "1"]), CONTEXT, failing)
    assert wire.text_list(wire.settings_of(reply.content, "pack"), "reasons") == ["error", "error"]


def test_an_error_that_came_through_does_not_stay_open() -> None:
    with pytest.raises(OSError, match="no disk"), client_errors_raised():
        packing_mod(request(["0"]), CONTEXT, failing)
    assert packing_mod(request(["0"]), CONTEXT, failing).has_content()


@pytest.mark.parametrize(("part", "summed"), [(False, False), (True, True)])
def test_a_single_client_answers_with_a_sum_only_as_a_part_of_a_larger_request(part: bool, summed: bool) -> None:
    def with_delta(message: Message, context: Context) -> Message:
        return delta_mod(message, context, lambda message, _: Message(honest_content("2"), reply_to=message))

    content = packing_mod(request(["2"], summed="examples", part=part), CONTEXT, with_delta).content
    assert wire.settings_of(content, "pack")["summed"] is summed
    assert sorted(content["update"]) == (["total", "weights"] if summed else ["0/delta"])


def test_a_handler_may_write_into_its_arrays_again_once_its_client_is_summed() -> None:
    """All clients return one and the same array: each is taken in before the next writes into it."""
    reused = np.zeros(2, np.float32)

    def handler(message: Message, context: Context) -> Message:
        reused[:] = float(str(wire.config_of(message)["client"]))
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": wire.array_record({"a": reused}), "metrics": metrics}), reply_to=message)

    def with_delta(message: Message, context: Context) -> Message:
        return delta_mod(message, context, handler)

    start = wire.array_record({"a": np.zeros(2, np.float32)})
    for summed, expected in (("examples", [[6.0, 6.0]]), ("", [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])):
        content = packing_mod(request(["1", "2", "3"], start, summed=summed), CONTEXT, with_delta).content
        arrays = [wire.decode(array) for name, array in content["update"].items() if name != "weights"]
        found = [(array / (2**32 if summed else 1)).tolist() for array in arrays]
        assert found == expected


def test_what_a_message_carries_is_not_written_as_bytes_in_its_own_process() -> None:
    message = request(["1", "2"], summed="examples")
    reply = packing_mod(message, CONTEXT, lambda m, c: delta_mod(m, c, _honest))
    for record in (message.content["arrays"], reply.content["update"]):
        assert all("data" not in array.__dict__ for array in record.values())


def _honest(message: Message, context: Context) -> Message:
    return Message(honest_content(str(wire.config_of(message)["client"])), reply_to=message)


def test_a_handler_sees_who_comes_after_and_keeps_what_it_did_ahead_within_the_message() -> None:
    seen: list[tuple[str, list[str], list[str]]] = []

    def ahead(message: Message, context: Context) -> Message:
        client, together = str(wire.config_of(message)["client"]), asked_together()
        later = [str(settings["client"]) for settings in together.later]
        seen.append((client, later, sorted(together.ahead)))
        if client == "1":
            together.ahead["2"] = "done"
            raise OSError("no disk")  # which is nothing to the others
        return Message(honest_content(client), reply_to=message)

    for _ in range(2):
        packing_mod(request(["0", "1", "2"]), CONTEXT, ahead)
        assert seen == [("0", ["1", "2"], []), ("1", ["2"], []), ("2", [], ["2"])]
        seen.clear()


def test_what_comes_later_is_what_the_handler_is_then_given() -> None:
    foreseen: list[ConfigRecord] = []

    def handler(message: Message, context: Context) -> Message:
        config = wire.config_of(message)
        if foreseen:
            assert foreseen.pop(0) == config
        else:
            foreseen.extend(asked_together().later)
        return Message(honest_content(str(config["client"])), reply_to=message)

    reply = packing_mod(request(["4", "1", "2"], shares=[1.0, 0.5, 0.25], rate=0.5), CONTEXT, handler)
    assert wire.text_list(wire.settings_of(reply.content, "pack"), "reasons") == ["", "", ""]


def test_outside_a_packed_message_nothing_comes_later() -> None:
    asked_together().ahead["0"] = "kept nowhere"
    with client_errors_raised(), pytest.raises(OSError, match="no disk"):
        packing_mod(request(["0", "1"]), CONTEXT, failing)
    assert not asked_together().later and not asked_together().ahead
