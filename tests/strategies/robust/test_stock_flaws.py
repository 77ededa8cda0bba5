"""What flwr's own strategies get wrong, on the same clients as ours: each test fails stock code and passes ours.

`tests.strategies.test_flower_probes` holds the flaws that are no matter of aggregation.
"""

import random
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.exception import AppExitException
from flwr.serverapp.strategy import Bulyan, FedAvg, FedMedian, FedTrimmedAvg, Krum
from flwr.serverapp.strategy.multikrum import compute_distances, select_multikrum
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from simulation.inline import InlineGrid
from strategies import registry
from strategies.admission import Limits
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.records import RoundRecord
from strategies.robust import CoordinateMedian, TrimmedMean
from strategies.robust import Krum as OurKrum
from strategies.robust.bulyan import select
from strategies.robust.distances import squared_distances
from strategies.terms import RoundRules
from tests.strategies.robust.federations import aggregated, normal, rows_of, updates_of

START = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
Answers = Mapping[int, tuple[np.ndarray, Mapping[str, float]]]


def app(answers: Answers) -> ClientApp:
    """Clients of Flower's own kind: client k answers with these arrays and metrics."""
    client_app = ClientApp()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        array, metrics = answers[int(context.node_config["partition-id"])]
        content = {"arrays": ArrayRecord([array]), "metrics": MetricRecord(dict(metrics))}
        return Message(RecordDict(content), reply_to=message)

    return client_app


def stock(strategy: type[FedAvg], answers: Answers, **keys: float) -> np.ndarray:
    count = len(answers)
    random.seed(1)  # from which stock draws the order of clients; the last one does not come first
    built = strategy(fraction_evaluate=0.0, min_train_nodes=count, min_available_nodes=count, **keys)  # type: ignore[arg-type]
    result = built.start(InlineGrid.of(app(answers), count), ArrayRecord([START]), num_rounds=1)
    return result.arrays.to_numpy_ndarrays()[0]


def ours(name: str, answers: Answers, **keys: Option) -> tuple[np.ndarray, RoundRecord]:
    records: list[RoundRecord] = []
    options = {key.replace("_", "-"): value for key, value in keys.items()}
    strategy = FederatedStrategy(
        registry.build(name, options), RoundRules(limits=Limits(10_000.0)), observers=[records.append]
    )
    result = strategy.start(InlineGrid.of(app(answers), len(answers)), ArrayRecord([START]), num_rounds=1)
    return result.arrays.to_numpy_ndarrays()[0], records[1]


def honest(count: int, step: float = 1.0) -> dict[int, tuple[np.ndarray, dict[str, float]]]:
    return {client: (START + np.float32(step), {"num-examples": 10, "loss": 0.5}) for client in range(count)}


BAD: dict[str, tuple[np.ndarray, dict[str, float], str]] = {
    "NaN": (START * np.nan, {"num-examples": 10, "loss": 0.5}, "not-finite"),
    "the shape (1,)": (np.zeros(1, np.float32), {"num-examples": 10, "loss": 0.5}, "shape"),
    "a weight of -5": (START + 9, {"num-examples": -5, "loss": 0.5}, "weight"),
    "a weight of 1e12": (START + 9, {"num-examples": 10**12, "loss": 0.5}, "weight"),
}
STOCK_MEANS: dict[str, Callable[[np.ndarray], bool]] = {
    "NaN": lambda mean: bool(np.isnan(mean).all()),
    "the shape (1,)": lambda mean: np.allclose(mean, (START + 1) * 3 / 4),
    "a weight of -5": lambda mean: np.allclose(mean, START + (30 - 45) / 25),
    "a weight of 1e12": lambda mean: np.allclose(mean, START + 9),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", ["fedavg", "trimmed-mean", "median"])
def test_one_bad_reply_ends_in_the_stock_mean_and_is_rejected_by_ours(case: str, name: str) -> None:
    array, metrics, reason = BAD[case]
    answers = {**honest(3), 3: (array, metrics)}
    assert STOCK_MEANS[case](stock(FedAvg, answers))
    arrays, record = ours(name, answers)
    assert arrays.tolist() == (START + 1).tolist()
    assert record.rejected == {reason: 1} and len(record.accepted) == 3


@pytest.mark.parametrize("strategy", [FedTrimmedAvg, FedMedian])
def test_a_nan_ends_in_stock_s_robust_rules_too(strategy: type[FedAvg]) -> None:
    assert np.isnan(stock(strategy, {**honest(3), 3: (START * np.nan, {"num-examples": 10, "loss": 0.5})})).any()


@pytest.mark.parametrize("name", ["fedavg", "trimmed-mean"])
def test_one_more_metric_ends_a_stock_run(name: str) -> None:
    answers = {**honest(3), 3: (START + 1, {"num-examples": 10, "loss": 0.5, "f1": 0.25})}
    with pytest.raises(AppExitException):
        stock(FedAvg, answers)
    with pytest.raises(AppExitException):
        stock(FedTrimmedAvg, answers)
    arrays, record = ours(name, answers)
    assert arrays.tolist() == (START + 1).tolist()
    assert record.train == {"loss": 0.5, "f1": 0.25} and not record.rejected


def test_stock_s_trimmed_mean_trims_nothing_with_four_replies() -> None:
    answers = {**honest(3), 3: (START + 1e6, {"num-examples": 10, "loss": 0.5})}
    assert stock(FedTrimmedAvg, answers, beta=0.2).min() > 2e5
    arrays, record = ours("trimmed-mean", answers, trim_beta=0.2)
    assert arrays.tolist() == (START + 1).tolist() and len(record.accepted) == 4


def test_stock_s_mean_depends_on_the_order_of_arrival() -> None:
    vectors = normal(1, 20, 1000)
    replies = [RecordDict({"arrays": ArrayRecord([v]), "metrics": MetricRecord({"num-examples": 3})}) for v in vectors]
    forth, back = (
        aggregate_arrayrecords(some, "num-examples").to_numpy_ndarrays()[0].tobytes()
        for some in (replies, replies[::-1])
    )
    assert forth != back
    updates = updates_of(vectors, [3.0] * 20)
    for rule in (TrimmedMean(), CoordinateMedian()):
        assert aggregated(rule, updates).tobytes() == aggregated(rule, updates[::-1]).tobytes()


def test_stock_s_krum_runs_with_more_attackers_than_krum_can_stand() -> None:
    """Three of four collude: stock takes theirs, ours refuses to begin."""
    answers = {0: honest(1)[0], **{k: (START + 100, {"num-examples": 10, "loss": 0.5}) for k in (1, 2, 3)}}
    assert stock(Krum, answers, num_malicious_nodes=3).tolist() == (START + 100).tolist()
    assert "only among 2f + 3 = 9 updates or more, but a round has 4" in OurKrum(3).shortfall(4)


def test_stock_s_distances_drown_in_the_norm_of_the_model() -> None:
    """They are taken of whole models in float32: with weights near 100 and steps of 0.001, what is left is noise."""
    steps = normal(2, 8, 400, 1e-3)
    steps[0] += 5e-3  # the one that Krum must not choose
    truth = np.square(steps[:, None].astype(float) - steps[None].astype(float)).sum(axis=2)
    models = [ArrayRecord([np.float32(100) + step]) for step in steps]
    assert np.abs(compute_distances(models) - truth).max() > 10 * truth.max()
    np.testing.assert_allclose(squared_distances(rows_of(steps)), truth, rtol=1e-8)


def test_stock_s_bulyan_selects_all_at_once() -> None:
    """And so not what repeated Krum selects (section 4 of the paper), on which its guarantee rests."""
    differ = 0
    for seed in range(20):
        vectors = normal(seed, 11, 3)
        contents = [RecordDict({"arrays": ArrayRecord([vector])}) for vector in vectors]
        at_once = {id(content) for content in select_multikrum(contents, 2, 7)}
        chosen = [place for place, content in enumerate(contents) if id(content) in at_once]
        differ += chosen != select(squared_distances(rows_of(vectors)), 2)
    assert differ > 5
    assert Bulyan(num_malicious_nodes=2).selection_rule is select_multikrum
