"""Norms of updates: right for any update, the same however clients travel, not told where they are to stay private."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from strategies import registry, wire
from strategies.federated import FederatedStrategy
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from strategies.update_norms import BLOCK, norms_told, told_norm
from tests.strategies.toy_federation import IDS, LIMITS, SIZE, WireGrid, app, run, start_arrays

INF, NAN = math.inf, math.nan
STEPS = [(int(client) + 1) / 3 * math.sqrt(SIZE) for client in IDS]  # what the toy clients train


@given(
    st.sampled_from([0, 1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7]),
    st.sampled_from([0.0, 1e-38, 1e-25, 1e-23, 1e-22, 1e-21, 1e-20, 1e-3, 1.0, 1e15, 1e25, 1e38]),
    st.integers(0, 2**32 - 1),
)
def test_it_is_the_euclidean_norm_of_any_length_and_size(size: int, scale: float, seed: int) -> None:
    delta = (np.random.default_rng(seed).uniform(-1, 1, size) * scale).astype(np.float32)
    assert told_norm(delta) == pytest.approx(math.hypot(*delta.tolist()), rel=1e-6, abs=1e-45)


@pytest.mark.parametrize("value", [1e-15, 1e-17, 1e-19, 1e-20, 3e-22, 1e-22, 5e-23, 3e-23])
@pytest.mark.parametrize("size", [4, 2 * BLOCK + 1])
def test_values_whose_squares_float32_holds_in_part_only(value: float, size: int) -> None:
    delta = np.full(size, value, np.float32)
    assert told_norm(delta) == pytest.approx(math.hypot(*delta.tolist()), rel=1e-6)


def test_it_does_not_depend_on_where_the_update_lies_in_memory() -> None:
    room = np.random.default_rng(0).normal(size=5 * BLOCK + 20).astype(np.float32)
    here = told_norm(room[: 4 * BLOCK + 3].copy())
    for offset in range(1, 17):
        room[offset : offset + 4 * BLOCK + 3] = room[: 4 * BLOCK + 3].copy()
        assert told_norm(room[offset : offset + 4 * BLOCK + 3]) == here
        room[: 4 * BLOCK + 3] = room[offset : offset + 4 * BLOCK + 3].copy()


def test_what_no_norm_can_be_is_left_out() -> None:
    told = [1.5, 0.0, -1.0, NAN, INF, 1e39, None]
    assert norms_told({} if value is None else {wire.UPDATE_NORM: value} for value in told) == [1.5, 0.0]


# However clients travel.


def without_times_and_bytes(records: list[RoundRecord]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.to_json().items() if key not in ("seconds", "bytes", "uplink")}
        for record in records
    ]


@pytest.mark.parametrize("per_message", [0, 1, 2, 4])
@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_rounds_tell_the_same_however_clients_are_packed(nodes: int, per_message: int) -> None:
    _, alone = run(app(), nodes=6, clients_per_message=1, evaluate_every=1)
    _, records = run(app(), nodes=nodes, clients_per_message=per_message, evaluate_every=1)
    assert without_times_and_bytes(records) == without_times_and_bytes(alone)
    assert sorted(records[1].norms) == pytest.approx(STEPS, rel=1e-6)


def test_a_rejected_client_of_a_sum_has_no_norm() -> None:
    def endless(content: RecordDict) -> RecordDict:
        return RecordDict({**content, "metrics": wire.columns([{"num-examples": -1.0}])})

    for nodes in (1, 6):
        _, records = run(app(bad={"3": endless}), nodes=nodes)
        assert records[1].rejected == {"weight": 1} or records[1].rejected == {"malformed": 1}
        assert sorted(records[1].norms) == pytest.approx(STEPS[:3] + STEPS[4:], rel=1e-6)


def test_norms_are_no_metric_of_training() -> None:
    _, records = run(app(), nodes=1)
    assert set(records[1].train) == {"loss"}


def test_a_node_may_claim_what_it_likes_and_the_round_goes_on() -> None:
    def tamper(reply: Message, clients: list[str]) -> list[Message]:
        metrics = wire.metrics_of(reply.content)
        metrics[wire.UPDATE_NORM] = [NAN, -3.0, INF, 1e300, 7.0, 0.0]
        return [reply]

    _, records = run(app(), nodes=1, tamper=tamper)
    assert len(records[1].accepted) == 6 and sorted(records[1].norms) == [0.0, 7.0]


# Privacy.


def private_replies(nodes: int = 1, **rules: Any) -> tuple[list[Message], list[RoundRecord]]:
    options = {"clipping-norm": 1.0, "noise-multiplier": 1.0, "clients-per-round": 3}
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(
        registry.build("dp-fedavg", options), RoundRules(limits=LIMITS, **rules), observers=[records.append]
    )
    grid = WireGrid(app(), WireGrid.of(app(), nodes).node_configs, keep=True)
    strategy.start(grid, start_arrays(), num_rounds=6)
    return [reply for reply in grid.received if wire.UPDATE in reply.content], records


def test_under_privacy_clients_are_not_asked_for_their_norms() -> None:
    replies, records = private_replies()
    assert replies and not any(wire.UPDATE_NORM in wire.metrics_of(reply.content) for reply in replies)
    assert not any(record.norms for record in records)


@pytest.mark.parametrize("nodes", [1, 6])
def test_where_metrics_are_told_all_the_same_so_are_norms_as_they_are_clipped(nodes: int) -> None:
    """In the first round that has clients the model is still without noise."""
    _, records = private_replies(nodes, unprotected_metrics=True)
    assert [len(record.norms) for record in records] == [len(record.accepted) for record in records]
    first = next(record for record in records if record.accepted)
    clipped = sorted(min(1.0, STEPS[int(client)]) for client in first.accepted)
    assert sorted(first.norms) == pytest.approx(clipped, rel=1e-6)
