"""Local privacy: the noise that a client puts on its own update, what the server believes, what each client pays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from scipy import stats

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.client import delta_mod, packing_mod
from strategies.errors import StrategyError
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.privacy import participations
from strategies.privacy.accounting import Release, epsilons, rdp_epsilon, renyi
from strategies.privacy.budget import Budget, BudgetSpentError, account
from strategies.privacy.clipping import PREFIX
from strategies.privacy.ledger import Ledger
from strategies.privacy.local_dp import DEVIATION, LocalDP, longest, noise_mod, own_noise, with_noise
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from strategies.updates import Update
from tests.strategies import toy_federation as toy
from tests.strategies.toy_federation import message_with, start_arrays

SIZE = 5
FREE = Budget()


def local(**keys: Option) -> Mapping[str, Option]:
    return {"clients-per-round": 4, **{key.replace("_", "-"): value for key, value in keys.items()}}


def seeded(seed: int = 1) -> Mod:
    return noise_mod(lambda message, context: np.random.default_rng(seed))


def answered(delta: list[float], settings: Mapping[str, float], mod: Mod | None = None, **metrics: float) -> RecordDict:
    """What the mod makes of a handler's reply to a request with these settings."""
    request = message_with(RecordDict({"arrays": start_arrays(), "config": ConfigRecord(dict(settings))}))

    def handler(message: Message, context: Context) -> Message:
        update = wire.array_record({wire.DELTA: np.array(delta, np.float32)})
        named = {name.replace("_", "-"): value for name, value in metrics.items()}
        return Message(RecordDict({"update": update, "metrics": MetricRecord(named)}), reply_to=message)

    mod = mod or seeded()
    return mod(request, Context(1, 1, {}, RecordDict(), {}), handler).content


def asked(mechanism: LocalDP) -> dict[str, float]:
    return {PREFIX + key: value for key, value in mechanism.config({}).items()}


# The noise


def test_the_noise_has_the_deviation_that_was_asked_for() -> None:
    """1e5 draws: the sample's deviation is within 1 % of z S but for a probability of 8e-6 (chi-square)."""
    mechanism = LocalDP(noise_multiplier=1.5, clipping_norm=0.4)
    delta = np.full(100_000, 0.25, np.float32)
    noised = with_noise(delta, mechanism.deviation, np.random.default_rng(3))
    assert noised.dtype == np.float32
    assert np.std(noised) == pytest.approx(0.6, rel=0.01)
    assert np.mean(noised) == pytest.approx(0.25, abs=4.5 * 0.6 / math.sqrt(1e5))
    assert stats.kstest((noised - 0.25) / 0.6, "norm").pvalue > 1e-3


def test_blocks_do_not_show() -> None:
    delta = np.linspace(-1, 1, 150_001, dtype=np.float32)
    drawn = np.random.default_rng(5).standard_normal(delta.size)
    expected = (delta + 0.7 * drawn).astype(np.float32)
    assert np.array_equal(with_noise(delta, 0.7, np.random.default_rng(5)), expected)


def test_a_client_s_own_noise_is_never_the_same() -> None:
    request = message_with(RecordDict({"config": ConfigRecord({"seed": 1})}))
    context = Context(1, 1, {}, RecordDict(), {})
    draws = {float(own_noise(request, context).standard_normal()) for _ in range(10)}
    assert len(draws) == 10


def check_mod(mod: Mod) -> None:
    """The mod of the seed 1 puts noise of the deviation 2 on, and says so and nothing of loss and accuracy."""
    content = answered([1.0] * SIZE, asked(LocalDP(1.0, 2.0)), mod, loss=0.5, accuracy=0.9, num_examples=7, steps=3)
    drawn = np.random.default_rng(1).standard_normal(SIZE)
    assert wire.decode(content["update"]["delta"]).tolist() == (1.0 + 2.0 * drawn).astype(np.float32).tolist()
    assert dict(content["metrics"]) == {"num-examples": 7, "steps": 3, "noise-deviation": 2.0}


def test_the_mod_puts_it_on_and_keeps_loss_and_accuracy_on_the_device() -> None:
    check_mod(seeded())


def test_a_request_without_noise_passes_through() -> None:
    content = answered([1.0] * SIZE, {}, loss=0.5)
    assert wire.decode(content["update"]["delta"]).tolist() == [1.0] * SIZE
    assert dict(content["metrics"]) == {"loss": 0.5}


@pytest.mark.parametrize("change", [{"clipping-norm": math.inf}, {"noise-deviation": -1.0}, {"clipping-norm": 0.0}])
def test_noise_without_a_norm_that_it_hides_is_refused(change: Mapping[str, float]) -> None:
    settings = {**asked(LocalDP()), **{PREFIX + key: value for key, value in change.items()}}
    with pytest.raises(StrategyError, match="cannot be clipped"):
        answered([1.0] * SIZE, settings)
    with pytest.raises(StrategyError, match="privacy-clipping-norm"):
        answered([1.0] * SIZE, {PREFIX + "noise-deviation": 1.0})


# What the server believes


@pytest.mark.parametrize("size", [1, 10, 10_000])
def test_no_honest_update_is_too_long(size: int) -> None:
    """Chi-square's tail beyond the bound, for the longest update there is, is as good as nothing."""
    mechanism = LocalDP(noise_multiplier=0.7, clipping_norm=3.0)
    beyond = (longest(mechanism.config({}), size) - 3.0) / mechanism.deviation
    assert stats.chi(size).sf(beyond) < 1e-15


def test_what_noise_could_not_have_made_is_shortened() -> None:
    composition = registry.build("local-dp", local(noise_multiplier=0.5, clipping_norm=2.0))
    layout = wire.read_weights(start_arrays()).layout
    config = composition.privacy.config({})
    most = longest(config, layout.size)
    absurd = Update("a", np.full(layout.size, 1e6, np.float32), 1.0)
    shortened = composition.privacy.clip(absurd, config, layout).delta
    assert np.linalg.norm(shortened.astype(np.float64)) == pytest.approx(most, rel=1e-6)
    usual = Update("a", with_noise(np.ones(layout.size, np.float32), 1.0, np.random.default_rng(0)), 1.0)
    assert composition.privacy.clip(usual, config, layout) is usual


UNNOISED: dict[str, Callable[[], ClientApp]] = {
    "an app without mods": lambda: toy.app(mods=False),
    "an app that lacks the mod": lambda: silenced(delta_mod),
    "a client that claims other noise": lambda: silenced(claiming, delta_mod),
}


def silenced(*mods: Mod) -> ClientApp:
    """The toy's clients without noise: they answer for all clients of a message with what these mods make of it."""
    honest, app = toy.app(mods=False), ClientApp()
    app.query("describe")(lambda message, context: honest(message, context))
    app.train(mods=[packing_mod, *mods])(lambda message, context: honest(message, context))
    return app


def claiming(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Put no noise on, and claim half of what was asked."""
    reply = call_next(message, context)
    claim = wire.number(wire.config_of(message), PREFIX + DEVIATION) / 2
    reply.content["metrics"] = MetricRecord({**wire.metrics_of(reply.content), DEVIATION: claim})
    return reply


def first_round(client_app: ClientApp, packed: int, noise_multiplier: float = 2.0) -> RoundRecord:
    records: list[RoundRecord] = []
    parts = registry.build("local-dp", {"noise-multiplier": noise_multiplier, "clipping-norm": 1.0})
    rules = RoundRules(limits=toy.LIMITS, clients_per_message=packed)
    strategy = FederatedStrategy(parts, rules, observers=[records.append])
    strategy.start(InlineGrid.of(client_app, 1 if packed == 0 else 2), toy.start_arrays(), num_rounds=1)
    return records[1]


@pytest.mark.parametrize(
    ("app", "packed", "noise_multiplier"),
    [
        ("an app without mods", 1, 2.0),  # it answers for one client at a time
        ("an app that lacks the mod", 1, 2.0),
        ("an app that lacks the mod", 1, 0.0),
        ("an app that lacks the mod", 0, 2.0),
        ("a client that claims other noise", 1, 2.0),
        ("a client that claims other noise", 0, 2.0),
    ],
)
def test_who_put_no_noise_on_does_not_count(app: str, packed: int, noise_multiplier: float) -> None:
    """Singly or in the sum of a node; whoever says nothing has not even read what was asked, be it no noise."""
    record = first_round(UNNOISED[app](), packed, noise_multiplier)
    assert (record.accepted, record.rejected) == ((), {"noise": 6})


@pytest.mark.parametrize("packed", [0, 1])
def test_who_put_it_on_counts(packed: int) -> None:
    record = first_round(toy.app(), packed)
    assert (len(record.accepted), record.rejected, record.train) == (6, {}, {})


# What it costs


def gaussian_delta(epsilon: float, ratio: float) -> float:
    """delta of the Gaussian mechanism, for sensitivity / deviation = ratio: Balle, Wang 2018, theorem 8."""
    left, right = ratio / 2 - epsilon / ratio, -ratio / 2 - epsilon / ratio
    return float(stats.norm.cdf(left) - math.exp(epsilon) * stats.norm.cdf(right))


@pytest.mark.parametrize(("z", "times"), [(2.0, 1), (5.0, 10), (20.0, 100)])
def test_epsilon_is_that_of_the_gaussian_mechanism_for_a_change_of_twice_the_norm(z: float, times: int) -> None:
    found = epsilons({Release("local", 1.0, z): times}, 1e-5)
    ratio = 2 / z * math.sqrt(times)  # of k releases together
    assert found.pld is not None
    assert gaussian_delta(found.pld, ratio) == pytest.approx(1e-5, rel=5e-3)
    assert found.rdp >= found.pld == found.tightest
    assert gaussian_delta(found.rdp, ratio) < 1e-5


def test_the_renyi_cost_is_the_closed_form() -> None:
    """alpha (2 S)^2 / (2 (z S)^2) = 2 alpha / z^2 (Mironov 2017, corollary 3)."""
    cost = renyi(Release("local", 1.0, 3.0))
    assert cost[99] == pytest.approx(2 * 11 / 9)
    assert rdp_epsilon(cost, 1e-5) < rdp_epsilon(2 * cost, 1e-5)


def test_the_run_pays_for_the_client_that_was_asked_most_often() -> None:
    parts, ledger = registry.build("local-dp", local(noise_multiplier=5.0)), {}
    for number, cohort in enumerate((["a", "b"], ["c"], ["b", "d"], [], ["b"]), 1):
        ledger = account(number, parts, FREE, ledger, 9, dict.fromkeys(cohort, number))
    assert participations.by_client(ledger) == {"a": {1: 1}, "b": {1: 1, 3: 1, 5: 1}, "c": {2: 1}, "d": {3: 1}}
    assert dict(Ledger.of(ledger).releases) == {Release("local", 1.0, 5.0): 3}


def test_no_round_asks_a_client_once_too_often() -> None:
    parts = registry.build("local-dp", local(noise_multiplier=5.0))
    twice = epsilons({Release("local", 1.0, 5.0): 2}, 1e-5).tightest
    budget, ledger = Budget(twice * 1.001), {}
    for number, cohort in enumerate((["a", "b"], ["a", "c"], ["b", "c"], ["c2", "d"]), 1):
        if cohort == ["b", "c"]:
            ledger = account(number, parts, budget, ledger, 9, dict.fromkeys(cohort, 7))  # each for the second time
            with pytest.raises(BudgetSpentError, match="The privacy budget is spent"):
                account(number + 1, parts, budget, ledger, 9, {"d": 7, "a": 8})
        else:
            ledger = account(number, parts, budget, ledger, 9, dict.fromkeys(cohort, 7))
    assert participations.most(ledger) == 2


def test_what_each_client_was_asked_can_be_read_back_from_plain_arrays(tmp_path: object) -> None:
    first = participations.after({}, {"client-with-a-long-name": 3, "ü": 4})
    second = participations.after(first, {"a": 0, "ü": 4})
    third = participations.after(second, {"ü": 400})
    assert all(not array.dtype.hasobject for array in third.values())
    assert participations.by_client(first) == {"client-with-a-long-name": {3: 1}, "ü": {4: 1}}  # unchanged
    assert participations.by_client(third) == {"a": {0: 1}, "client-with-a-long-name": {3: 1}, "ü": {4: 2, 400: 1}}
    assert participations.most(third) == 3
    assert participations.most({}) == 0 and participations.by_client({}) == {}


# With what it goes


@pytest.mark.parametrize(
    ("strategy", "keys"),
    [
        ("local-dp", {}),
        ("local-dp", {"selection": "weighted"}),
        ("trimmed-mean", {"privacy": "local-dp"}),
        ("median", {"privacy": "local-dp", "zeroing": True}),
        ("fedadam", {"privacy": "local-dp", "weighting": "uniform"}),
    ],
)
def test_whatever_the_server_does_with_noised_updates_is_free(strategy: str, keys: Mapping[str, Option]) -> None:
    assert isinstance(registry.build(strategy, {**local(), **keys}).privacy, LocalDP)


@pytest.mark.parametrize(
    ("strategy", "keys", "sentence"),
    [
        ("fedavg", {"privacy": "local-dp", "weighting": "examples"}, "every client to count the same"),
        ("scaffold", {"privacy": "local-dp"}, "nothing but the noised sum"),
        ("local-dp", {"selection": "power-of-choice"}, "nothing but the noised sum, which PowerOfChoice takes away"),
        ("fedbuff", {"privacy": "local-dp", "weighting": "uniform"}, "rounds whose clients are known"),
        ("local-dp", {"noise-multiplier": -1.0}, "'noise-multiplier' is -1"),
        ("local-dp", {"clipping-norm": 0.0}, "'clipping-norm' is 0"),
    ],
)
def test_what_would_say_more_is_refused(strategy: str, keys: Mapping[str, Option], sentence: str) -> None:
    with pytest.raises(StrategyError, match=sentence):
        registry.build(strategy, {**local(), **keys})


def test_no_noise_is_no_privacy() -> None:
    parts = registry.build("local-dp", local(noise_multiplier=0.0))
    ledger = account(1, parts, FREE, {}, 4, {"a": 1})
    assert Ledger.of(ledger).epsilon(1e-5) == math.inf
