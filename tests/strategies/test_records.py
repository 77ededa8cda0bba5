"""Round records: summaries against numpy and by hand, and JSON that holds plain values only."""

import json
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.privacy.spending import Spending
from strategies.records import ClientScores, RoundRecord


def scores(accuracies: list[float], examples: list[int] | None = None) -> ClientScores:
    count = len(accuracies)
    losses = tuple(2.0 - value for value in accuracies)
    return ClientScores(tuple(map(str, range(count))), tuple(examples or [1] * count), losses, tuple(accuracies))


def test_means_are_weighted_by_examples() -> None:
    summary = scores([0.0, 1.0], [1, 3]).summary()
    assert summary["accuracy"] == 0.75
    assert summary["loss"] == 1.25
    assert summary["clients"] == 2


def test_deciles_are_interpolated_between_clients() -> None:
    assert scores([1.0, 0.0]).summary()["accuracy-deciles"] == pytest.approx([k / 10 for k in range(11)])
    ten = scores([k / 10 for k in range(11)][::-1]).summary()["accuracy-deciles"]
    assert ten == pytest.approx([k / 10 for k in range(11)])


@pytest.mark.parametrize(("count", "worst"), [(1, 1), (9, 1), (10, 1), (11, 2), (20, 2), (21, 3), (100, 10)])
def test_the_worst_tenth_is_rounded_up(count: int, worst: int) -> None:
    accuracies = [(37 * k % count) / count for k in range(count)]
    expected = sum(sorted(accuracies)[:worst]) / worst
    assert scores(accuracies).summary()["accuracy-worst-10"] == pytest.approx(expected)


def test_the_worst_tenth_counts_each_client_once_whatever_its_size() -> None:
    accuracies, examples = [0.1, 0.3] + [0.9] * 18, [1000, 1] + [5] * 18
    assert scores(accuracies, examples).summary()["accuracy-worst-10"] == pytest.approx(0.2)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 1000)), min_size=2, max_size=60))
def test_summary_against_the_standard_library(rows: list[tuple[float, int]]) -> None:
    accuracies, examples = [row[0] for row in rows], [row[1] for row in rows]
    summary = scores(accuracies, examples).summary()
    repeated = [value for value, count in rows for _ in range(count)]
    assert summary["accuracy"] == pytest.approx(statistics.fmean(repeated))
    inner = statistics.quantiles(accuracies, n=10, method="inclusive")
    assert summary["accuracy-deciles"] == pytest.approx([min(accuracies), *inner, max(accuracies)])
    assert summary["accuracy-worst-10"] <= summary["accuracy-deciles"][10]


@given(st.permutations(list(range(12))))
def test_the_order_of_clients_does_not_matter(order: list[int]) -> None:
    accuracies, examples = np.linspace(0, 1, 12), np.arange(1, 13)
    shuffled = scores([float(accuracies[k]) for k in order], [int(examples[k]) for k in order]).summary()
    for key, value in scores(accuracies.tolist(), examples.tolist()).summary().items():
        assert shuffled[key] == pytest.approx(value)


def test_participation() -> None:
    assert RoundRecord(1, selected=("a", "b", "c", "d"), accepted=("a",)).participation() == 0.25
    assert RoundRecord(0).participation() == 1.0


def test_a_line_of_metrics_by_hand() -> None:
    record = RoundRecord(
        round=2,
        selected=("a", "b"),
        accepted=("a",),
        rejected={"late": 1},
        repeated=4,
        banned=3,
        learning_rate=0.1,
        train={"loss": 1.5},
        central={"accuracy": 0.5},
        federated=scores([0.5]),
        bytes_down=10,
        bytes_up=20,
        seconds={"train": 0.5, "total": 1.0},
        simulated_seconds=90.0,
        staleness={"mean": 0.5, "largest": 2.0},
        privacy=Spending(1.5, 1e-5, "RDP", "replace one", "fixed", 0.1, 2, 0.5, {"clipping-norm": 3.0}, "is none"),
        checkpoint=1,
        example_privacy={"epsilon": 2.5, "delta": 1e-4},
        offered=5,
        diversity={"regions": {"effective": 1.0, "groups": {"": {"clients": 5, "selected": 2, "counted": 1}}}},
        norms=(4.0, 1.0, 3.0, 2.0, 5.0),
    )
    assert record.to_json() == {
        "round": 2,
        "offered": 5,
        "selected": 2,
        "accepted": 1,
        "participation": 0.5,
        "rejected": {"late": 1},
        "repeated": 4,
        "banned": 3,
        "skipped": False,
        "learning-rate": 0.1,
        "train": {"loss": 1.5},
        "central": {"accuracy": 0.5},
        "federated": {
            "clients": 1,
            "loss": 1.5,
            "accuracy": 0.5,
            "accuracy-deciles": [0.5] * 11,
            "accuracy-worst-10": 0.5,
        },
        "bytes": {"down": 10, "up": 20},
        "uplink": None,
        "seconds": {"train": 0.5, "total": 1.0},
        "simulated-seconds": 90.0,
        "staleness": {"mean": 0.5, "largest": 2.0},
        "privacy": {
            "epsilon": 1.5,
            "delta": 1e-5,
            "accountant": "RDP",
            "adjacency": "replace one",
            "sampling": "fixed",
            "sampling-rate": 0.1,
            "releases": 2,
            "epsilon-left": 0.5,
            "clipping-norm": 3.0,
            "caveat": "is none",
        },
        "checkpoint": 1,
        "failed-checkpoints": 0,
        "example-privacy": {"epsilon": 2.5, "delta": 1e-4},
        "diversity": {"regions": {"effective": 1.0, "groups": {"": {"clients": 5, "selected": 2, "counted": 1}}}},
        "update-norms": {"updates": 5, "min": 1.0, "q25": 2.0, "median": 3.0, "q75": 4.0, "max": 5.0},
    }


def test_lines_are_plain_json_also_of_an_empty_record() -> None:
    line = RoundRecord(0).to_json()
    assert json.loads(json.dumps(line)) == line
    assert line["central"] is None
    assert line["federated"] is None
    assert line["simulated-seconds"] is None and line["staleness"] is None and line["privacy"] is None
    with_scores = RoundRecord(1, federated=scores([0.25, 0.5])).to_json()
    assert json.loads(json.dumps(with_scores)) == with_scores
