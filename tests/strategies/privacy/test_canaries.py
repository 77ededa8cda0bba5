"""Canaries and whoever watches for them: what they send, what is seen, and no proof of more than is accounted."""

import math
from collections.abc import Mapping
from functools import reduce
from itertools import product

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict

from strategies import wire
from strategies.client import client_mods, delta_mod
from strategies.errors import StrategyError
from strategies.options import Option
from strategies.privacy.audit import clopper_pearson
from strategies.privacy.canaries import Canaries, Watch
from strategies.privacy.clipping import PREFIX, WITHIN, Clipping
from tests.strategies.privacy.canary_federation import DELTA, SEED, audited
from tests.strategies.toy_federation import message_with, start_arrays


def test_directions_are_of_length_one_all_around_and_the_same_each_time() -> None:
    canaries = Canaries(5, 400)
    drawn = np.stack([canaries.direction(name, 900) for name in (*canaries.ids, *canaries.absent)])
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1.0, rtol=1e-6)
    products = (drawn @ drawn.T)[np.triu_indices(800, 1)]
    assert np.std(products) == pytest.approx(1 / 30, rel=0.01) and abs(np.mean(products)) < 1e-3
    assert np.array_equal(drawn[7], Canaries(5, 8).direction(canaries.ids[7], 900))
    assert not np.array_equal(drawn[7], Canaries(6, 8).direction(canaries.ids[7], 900))


def test_canaries_and_those_that_are_absent_have_names_of_their_own() -> None:
    canaries = Canaries(5, 12)
    assert canaries.ids == tuple(sorted(canaries.ids)) and len({*canaries.ids, *canaries.absent}) == 24


def answered(settings: Mapping[str, float], client: str) -> RecordDict:
    """What the mods of an app make of a request of one client, whose handler trains nobody but "other"."""
    config = ConfigRecord({"clients": [client], "seeds": [1], **settings})
    request = message_with(RecordDict({"arrays": start_arrays(), "config": config}))

    def handler(message: Message, context: Context) -> Message:
        assert wire.config_of(message)["client"] == "other"
        update = wire.array_record({wire.DELTA: np.full(5, 0.25, np.float32)})
        return Message(RecordDict({"update": update, "metrics": MetricRecord({})}), reply_to=message)

    *mods, innermost = client_mods(Canaries(5, 3, length=0.5, examples=7).mod)
    assert innermost is delta_mod
    app = reduce(lambda inner, mod: lambda *given: mod(*given, inner), reversed(mods), handler)
    return app(request, Context(1, 1, {}, RecordDict(), {})).content


def update_in(content: RecordDict) -> np.ndarray:
    return wire.decode(wire.arrays_of(content, wire.UPDATE)["0/delta"])


def asked(clipping: Clipping) -> dict[str, float]:
    return {PREFIX + key: value for key, value in clipping.to_config().items()}


def test_a_canary_sends_its_direction_clipped_to_the_norm_of_the_round() -> None:
    sent = update_in(answered(asked(Clipping(3.0)), "canary-000001"))
    np.testing.assert_allclose(sent, 3.0 * Canaries(5, 3).direction("canary-000001", 5), rtol=1e-6)
    assert np.linalg.norm(sent.astype(np.float64)) <= 3.0


def test_it_is_too_long_where_that_is_counted_and_as_large_as_it_says() -> None:
    content = answered(asked(Clipping(3.0, count_within=True)), "canary-000002")
    metrics = content[wire.METRICS]
    assert isinstance(metrics, Mapping) and metrics[WITHIN] == [0.0] and metrics["num-examples"] == [7.0]


def test_each_layer_is_clipped_where_layers_are() -> None:
    sent = update_in(answered(asked(Clipping(3.0, per_layer=True)), "canary-000000"))
    whole, each = 30.0 * Canaries(5, 3).direction("canary-000000", 5), 3 / math.sqrt(2)
    assert np.linalg.norm(whole[:4]) > each > abs(whole[4])  # the kernel is too long, the bias is not
    np.testing.assert_allclose(sent, [*(whole[:4] * each / np.linalg.norm(whole[:4])), whole[4]], rtol=1e-5)


def test_without_privacy_its_length_is_its_own() -> None:
    np.testing.assert_allclose(
        update_in(answered({}, "canary-000000")), 0.5 * Canaries(5, 3).direction("canary-000000", 5), rtol=1e-6
    )


def test_other_clients_are_let_through() -> None:
    assert update_in(answered({}, "other")).tolist() == [0.25] * 5


def test_the_watch_knows_whom_the_model_has_followed() -> None:
    """The model moves once along canary 0 and once along one that is absent: cosines 1 and 1 / sqrt(2)."""
    canaries = Canaries(5, 10)
    watch, flat = Watch(canaries, np.zeros(10_000, np.float32)), np.zeros(10_000, np.float32)
    for name in (canaries.ids[0], canaries.absent[3]):
        flat = flat + canaries.direction(name, 10_000)
        watch.see(flat)
        watch.see(flat)  # a round that was skipped
    assert (watch.looks, watch.size) == (2, 10_000)
    best = watch._best
    assert best[canaries.ids[0]] == pytest.approx(1, rel=1e-4) == best[canaries.absent[3]]
    others = [best[name] for name in best if name not in (canaries.ids[0], canaries.absent[3])]
    assert max(others) < 0.05
    by_hand = math.log((clopper_pearson(1, 10, 0.05 / 8) - DELTA) / 1e-15)  # one of ten is beyond every threshold
    assert watch.final_model(DELTA).bound == pytest.approx(by_hand)


def test_a_model_that_has_not_moved_cannot_be_audited() -> None:
    watch = Watch(Canaries(5, 10), np.ones(4, np.float32))
    watch.see(np.ones(4, np.float32))
    with pytest.raises(StrategyError, match="nothing to audit"):
        watch.final_model(DELTA)
    with pytest.raises(StrategyError, match="nothing to audit"):
        watch.all_models(DELTA)


def private(z: float, per_round: int, selection: str, **more: Option) -> dict[str, Option]:
    return {"noise-multiplier": z, "clients-per-round": per_round, "selection": selection, **more}


GRID = list(product((0.5, 1.0, 2.0), (20, 110), (1, 6), ("poisson", "uniform")))
"""Noise multiplier, clients per round (of 110), rounds, sampling."""


@pytest.mark.parametrize(("z", "per_round", "rounds", "selection"), GRID)
def test_the_bound_never_exceeds_what_is_accounted(z: float, per_round: int, rounds: int, selection: str) -> None:
    """Fixed seeds. With others, one of the 24 would with a probability of 24 x 5 % at most, and in fact far less."""
    found = audited(private(z, per_round, selection), rounds)
    assert 0 <= found.proved <= found.promised < math.inf


@pytest.mark.parametrize("privacy", ["dp-fedavg", "dp-fedavg-adaptive"])
def test_without_noise_bound_and_estimate_are_large(privacy: str) -> None:
    found = audited(private(0, 20, "poisson", privacy=privacy), rounds=20)
    assert found.promised == math.inf
    assert found.watch.final_model(DELTA).estimate > 10 and found.watch.all_models(DELTA).estimate > 10
    assert found.proved > 5


def test_adaptive_clipping_keeps_its_promise_too() -> None:
    found = audited(private(1, 40, "poisson", privacy="dp-fedavg-adaptive"), rounds=6)
    assert 0 <= found.proved <= found.promised < math.inf


def test_the_audit_does_not_depend_on_packing_and_nodes() -> None:
    one, three = (audited(private(1, 20, "poisson"), 3, nodes=nodes) for nodes in (1, 3))
    assert one.weights.tobytes() == three.weights.tobytes() and one.accepted == three.accepted
    assert one.watch.all_models(DELTA) == three.watch.all_models(DELTA)
    other = audited(private(1, 20, "poisson"), 3, seed=SEED + 1)
    assert other.weights.tobytes() != one.weights.tobytes()
