"""FedAvg on MNIST: rounds to a test accuracy.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017, tables 1 and 2: 100
clients, 10 a round, B = 10. The paper tunes its learning rate for each entry; here it is 0.1.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.papers.lab import Keys, Lab, accuracy, preset
from benchmarks.papers.table import Line
from strategies.records import RoundRecord

TITLE = "FedAvg, MNIST, the 2NN (199,210 parameters): rounds to 97 %"
CNN_TITLE = "FedAvg, MNIST, the CNN (1,663,370 parameters), E = 1: test accuracy"
PAPER_IID, PAPER_SHARDS = 87, 664


def rounds_to(target: float, records: list[RoundRecord]) -> int | None:
    """Return the first round at the target, None if there is none."""
    return next((record.round for record in records if accuracy(record) >= target), None)


def iid(lab: Lab, **more: int) -> int | None:
    """Return the rounds of the 2NN to 97 % on IID clients, at most the paper's number."""
    return _rounds(lab, {"partition": "iid", "num-rounds": PAPER_IID, **_keys(more)})


def shards(lab: Lab) -> int | None:
    """Return those on clients with two shards each of images sorted by label."""
    return _rounds(lab, {"partition": "shards", "num-rounds": PAPER_SHARDS})


def lines(lab: Lab) -> Iterator[Line]:
    """Yield the lines of the 2NN."""
    one = iid(lab)
    yield iid_line(one)
    ten = iid(lab, local_epochs=10)
    fewer = ten is not None and one is not None and ten < one
    yield Line("IID, E = 10", "34 (quoted from memory)", "22", str(ten), "fewer than with E = 1", fewer)
    skewed = shards(lab)
    slower = skewed is not None and one is not None and skewed > 2 * one
    rule = f"at most {PAPER_SHARDS}, more than twice IID"
    yield Line("two shards a client, E = 1", str(PAPER_SHARDS), "223", str(skewed), rule, slower)


def quick_lines(lab: Lab) -> Iterator[Line]:
    """Yield the first of them."""
    yield iid_line(iid(lab))


def iid_line(rounds: int | None) -> Line:
    """Return the line of the 2NN on IID clients with one local epoch."""
    return Line("IID, E = 1", str(PAPER_IID), "50", str(rounds), f"at most {PAPER_IID}", rounds is not None)


def cnn_lines(lab: Lab) -> Iterator[Line]:
    """Yield the lines of the CNN; the paper's is rounds to 99 %."""
    keys: Keys = {**preset("fedavg-cnn"), "local-epochs": 1, "num-rounds": 55}
    records = lab.records(keys, lambda records: accuracy(records[-1]) >= 0.99 and records[-1].round >= 25)
    early, rounds = max(accuracy(record) for record in records[:26]), rounds_to(0.99, records)
    yield Line("best accuracy by round 25", "", "", f"{early:.4f}", "at least 0.985", early >= 0.985)
    yield Line("rounds to 99 %", "34", "46", str(rounds), "at most 55", rounds is not None)


def _rounds(lab: Lab, keys: Keys) -> int | None:
    records = lab.records({**preset("fedavg-2nn"), **keys}, lambda records: accuracy(records[-1]) >= 0.97)
    return rounds_to(0.97, records)


def _keys(more: dict[str, int]) -> Keys:
    return {name.replace("_", "-"): value for name, value in more.items()}
