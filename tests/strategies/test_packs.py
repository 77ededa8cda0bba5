"""A request split among workers is answered to the bit as by one: whatever the parts, their order and who fails."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from hypothesis import given
from hypothesis import strategies as st

from strategies import packs, wire
from strategies.admission import Limits, Reason
from strategies.client import delta_mod, packing_mod
from strategies.composition import Dense
from strategies.errors import StrategyError
from strategies.replies import Rejection, ReplyReader
from strategies.updates import PartialSum, Update
from tests.strategies.toy_federation import honest_content, local_arrays, message_with, start_arrays

CONTEXT = Context(1, 1, {}, RecordDict(), {})
CLIENTS = ["0", "1", "2", "3", "4"]


def train(message: Message, context: Context) -> Message:
    """Client 3 fails, client 1 has no examples, client 4 reports something that nobody else does."""
    client = str(wire.config_of(message)["client"])
    if client == "3":
        raise OSError("no disk")
    content = honest_content(client)
    if client == "1":
        content["metrics"]["num-examples"] = 0
    if client == "4":
        content["metrics"]["extra"] = 2.5
    return Message(content, reply_to=message)


def evaluate(message: Message, context: Context) -> Message:
    client = int(str(wire.config_of(message)["client"]))
    metrics = MetricRecord({"num-examples": client, "loss": client / 3})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def answer(content: RecordDict, handler: ClientAppCallable = train) -> RecordDict:
    message = message_with(content)
    message.metadata.__dict__["_message_id"] = "request"

    def with_delta(message: Message, context: Context) -> Message:
        return delta_mod(message, context, handler)

    return packing_mod(message, CONTEXT, with_delta).content


def request(summed: str = "examples", clients: list[str] = CLIENTS, **settings: object) -> RecordDict:
    config = {"clients": clients, "seeds": [10 + int(client) for client in clients], "summed": summed, "rate": 0.1}
    limits = wire.limits_record(Limits(1000.0))
    record = ConfigRecord({**config, **limits, **settings})  # type: ignore[dict-item]
    return RecordDict({"arrays": start_arrays(), "config": record})


def same(left: RecordDict, right: RecordDict) -> bool:
    """Equal in every byte that Flower would send."""
    return left.object_id == right.object_id


@st.composite
def partitions(draw: st.DrawFn) -> list[list[str]]:
    order = draw(st.permutations(CLIENTS))
    cuts = sorted(draw(st.sets(st.integers(1, len(order) - 1))))
    return [order[start:end] for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]


@pytest.mark.parametrize("summed", ["examples", "uniform", ""])
@given(groups=partitions(), random=st.randoms(use_true_random=False))
def test_any_parts_in_any_order_answer_as_one(summed: str, groups: list[list[str]], random: object) -> None:
    whole = answer(request(summed))
    parts = [answer(part) for part in packs.split(request(summed), groups)]
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert same(packs.merged(parts, CLIENTS), whole)


@given(partitions())
def test_an_evaluation_is_answered_as_one_too(groups: list[list[str]]) -> None:
    parts = [answer(part, evaluate) for part in packs.split(request(""), groups)]
    assert same(packs.merged(parts, CLIENTS), answer(request(""), evaluate))


def test_without_groups_each_client_is_a_part_and_its_answer_is_a_sum() -> None:
    parts = packs.split(request())
    assert [wire.text_list(wire.settings_of(part), "clients") for part in parts] == [[client] for client in CLIENTS]
    answers = [answer(part) for part in parts]
    assert [bool(wire.settings_of(one, "pack")["summed"]) for one in answers] == [True, False, True, False, True]
    assert same(packs.merged(answers), answer(request()))


def test_a_request_to_one_client_is_answered_with_its_own_update_still() -> None:
    alone = request(clients=["2"])
    (part,) = packs.split(alone)
    assert same(packs.merged([answer(part)]), answer(alone))
    assert not wire.settings_of(answer(part), "pack")["summed"]


def test_a_part_may_be_split_again() -> None:
    (left, right) = packs.split(request(), [["0", "2"], ["1", "3", "4"]])
    parts = [answer(part) for part in (*packs.split(left), right)]
    assert same(packs.merged(parts, CLIENTS), answer(request()))


def test_merging_is_associative() -> None:
    a, b, c = (answer(part) for part in packs.split(request(), [["0"], ["1", "2"], ["3", "4"]]))
    assert same(packs.merged([packs.merged([a, b]), c], CLIENTS), packs.merged([a, packs.merged([b, c])], CLIENTS))


def test_lists_are_cut_alike_and_all_else_is_shared() -> None:
    whole = request(shares=[1.0, 0.5, 0.25, 1.0, 0.75], committed=[0, 3, 0, 0, 2])
    part = packs.split(whole, [["4", "1"]])[0]
    config = wire.settings_of(part)
    assert (config["clients"], config["seeds"], config["shares"]) == (["4", "1"], [14, 11], [0.75, 0.5])
    assert config["committed"] == [2, 3]
    assert config["rate"] == 0.1 and part["arrays"] is whole["arrays"]
    assert wire.settings_of(whole)["clients"] == CLIENTS and "part" not in wire.settings_of(whole)


def test_a_client_that_is_not_listed_cannot_be_asked() -> None:
    with pytest.raises(StrategyError, match="cannot ask '9'"):
        packs.split(request(), [["0", "9"]])


@pytest.mark.parametrize("reason", [Reason.ERROR, Reason.DROPOUT])
def test_clients_that_were_not_run_are_rejected_for_the_reason_given(reason: Reason) -> None:
    lost, run = packs.split(request(), [["0", "4"], ["1", "2", "3"]])
    content = packs.merged([packs.rejected(lost, "its worker died", reason), answer(run)], CLIENTS)
    pack = wire.settings_of(content, "pack")
    assert pack["reasons"] == [str(reason), "weight", "", "error", str(reason)]
    assert wire.text_list(pack, "details")[0] == "its worker died"
    assert bool(pack["summed"])


def outcomes(content: RecordDict) -> list[object]:
    message = message_with(RecordDict())
    message.metadata.__dict__["_message_id"] = "request"
    weights = wire.read_weights(start_arrays())
    reader = ReplyReader(weights, Dense(), lambda update: update, Limits(1000.0), summed=True)
    return list(reader.read(Message(content, reply_to=message), CLIENTS))


def test_the_server_reads_a_merged_answer() -> None:
    parts = [answer(part) for part in packs.split(request(), [["4", "0"], ["3", "2", "1"]])]
    found = outcomes(packs.merged(parts))
    assert {one.client: str(one.reason) for one in found if isinstance(one, Rejection)} == {"1": "weight", "3": "error"}
    (partial,) = (one for one in found if isinstance(one, PartialSum))
    assert partial.weights == {"0": 10.0, "2": 30.0, "4": 50.0}
    deltas = [
        np.concatenate([(local_arrays(c)[k] - start_arrays()[k].numpy()).ravel() for k in ("kernel", "bias")])
        for c in ("0", "2", "4")
    ]
    np.testing.assert_allclose(partial.total.mean(), np.average(deltas, axis=0, weights=[10, 30, 50]), rtol=1e-6)


def test_single_updates_keep_their_clients() -> None:
    parts = [answer(part) for part in packs.split(request(""), [["4", "0"], ["2", "1", "3"]])]
    found = {one.client: one.delta[0] for one in outcomes(packs.merged(parts)) if isinstance(one, Update)}
    expected = {client: local_arrays(client)["kernel"][0, 0] - np.float32(1) for client in ("0", "2", "4")}
    assert found == expected


MISFITS: dict[str, Callable[[RecordDict], list[RecordDict]]] = {
    "missing": lambda part: [part],
    "nothing": lambda part: [],
    "plain": lambda part: [part, honest_content("4")],
}


@pytest.mark.parametrize("case", MISFITS)
def test_parts_that_do_not_answer_for_all_are_refused(case: str) -> None:
    (part, _) = packs.split(request(), [["0", "1", "2", "3"], ["4"]])
    with pytest.raises(StrategyError, match=r"speak for|one of our mods"):
        packs.merged(MISFITS[case](answer(part)), CLIENTS)
