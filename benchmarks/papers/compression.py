"""Compressed updates: MNIST, the 2NN, 20 clients all taking part, E = 1, B = 32, learning rate 0.1, 20 rounds.

Codecs of Alistarh et al. (2017: stochastic levels), Aji and Heafield (2017: top-k), Sattler et al. (2019: sparse
ternary) and Bernstein et al. (2018: signs), with and without error feedback (Karimireddy et al., 2019), IID and with
two shards a client. Figures are test accuracies at the end, and how many times fewer bytes a client's update takes than
a dense one, both as Flower sends them; every client travels alone, as in a deployment. The preset is tried on the
digits of 190 writers of FEMNIST too, 50 of them in each of 100 rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.papers.lab import Keys, Lab, accuracy, data_folder, preset
from benchmarks.papers.table import Line
from strategies.records import RoundRecord

TITLE = "Compression, MNIST, the 2NN, 20 clients, 20 rounds: accuracy (IID / 2 shards) and how much smaller updates"

NAMED = "presets/few-bytes.toml"
PRESET: Keys = preset("few-bytes")
DENSE: Keys = {**PRESET, "codec": "none", "codec-share": 0.01}
PARTITIONS: Mapping[str, Keys] = {"IID": {"partition": "iid"}, "2 shards": {"partition": "shards"}}
NO_FEEDBACK: Keys = {"error-feedback": "off"}
TOP: Keys = {"codec": "top-k", "codec-share": 0.01}
RARE: Keys = {"codec": "top-k", "codec-share": 0.001}
CODECS: Mapping[str, Keys] = {
    "dense": {},
    NAMED: PRESET,
    f"{NAMED}, downlink of 8 bits": {**PRESET, "downlink": "qsgd"},
    f"{NAMED}, differences of 4 bits": {**PRESET, "downlink": "difference", "downlink-bits": 4},
    f"{NAMED}, differences of 2 bits": {**PRESET, "downlink": "difference", "downlink-bits": 2},
    "8 bits": {"codec": "qsgd", "codec-bits": 8},
    "4 bits": {"codec": "qsgd", "codec-bits": 4},
    "2 bits": {"codec": "qsgd", "codec-bits": 2},
    "2 bits, fed back": {"codec": "qsgd", "codec-bits": 2, "error-feedback": "on"},
    "top 1 %, not fed back": {**TOP, **NO_FEEDBACK},
    "top 1 %": TOP,
    "top 0.1 %, not fed back": {**RARE, **NO_FEEDBACK},
    "top 0.1 %": RARE,
    "sign, not fed back": {"codec": "sign", **NO_FEEDBACK},
    "sign": {"codec": "sign"},
    "sparse ternary 1 %": {"codec": "stc", "codec-share": 0.01},
    "sparse ternary 0.25 %": {"codec": "stc", "codec-share": 0.0025},
}
LANDMARKS: Mapping[str, tuple[float, float]] = {
    "dense": (0.967, 0.906),
    "8 bits": (0.967, 0.907),
    "4 bits": (0.966, 0.908),
    "2 bits": (0.967, 0.907),
    "2 bits, fed back": (0.955, 0.830),
    "top 1 %, not fed back": (0.938, 0.855),
    "top 1 %": (0.955, 0.889),
    "top 0.1 %, not fed back": (0.880, 0.647),
    "top 0.1 %": (0.930, 0.842),
    "sign, not fed back": (0.947, 0.682),
    "sign": (0.960, 0.871),
    "sparse ternary 1 %": (0.955, 0.889),
    "sparse ternary 0.25 %": (0.941, 0.869),
}
"""Accuracies with IID clients and with two shards each."""

WRITERS: Keys = {
    "partition": "natural",
    "test-fraction": 0.0,
    "client-test-fraction": 0.2,
    "learning-rate": 0.05,
    "batch-size": 16,
    "clients-per-round": 50,
    "num-rounds": 100,
    "evaluate-every": 0,
    "federated-evaluate-every": 100,
}

QUICK = ("dense", NAMED)

LEAST_SMALLER, CLOSE = 100.0, 0.015


@dataclass(frozen=True)
class Run:
    """What came of one codec: accuracy at the end by partition, and how many times fewer bytes its updates take."""

    accuracies: Mapping[str, float]
    smaller: float


Judged = Callable[[Mapping[str, Run]], tuple[str, bool]]


def trained(lab: Lab, keys: Keys, partitions: Sequence[str]) -> Run:
    """Train with one codec."""
    runs = {name: lab.records({**DENSE, **keys, **PARTITIONS[name]}) for name in partitions}
    smaller = min(_smaller(records) for records in runs.values())
    return Run({name: accuracy(records[-1]) for name, records in runs.items()}, smaller)


def _smaller(records: Sequence[RoundRecord]) -> float:
    uplinks = [record.uplink for record in records if record.uplink is not None]
    return sum(uplink["dense"] for uplink in uplinks) / sum(uplink["mean"] for uplink in uplinks)


def lines(
    lab: Lab, codecs: Sequence[str] = tuple(CODECS), partitions: Sequence[str] = tuple(PARTITIONS)
) -> Iterator[Line]:
    """Yield a line for each codec."""
    done: dict[str, Run] = {}
    for name in codecs:
        run = done[name] = trained(lab, CODECS[name], partitions)
        landmark = " / ".join(f"{value:.3f}" for value in LANDMARKS.get(name, ()))
        found = " / ".join(f"{value:.3f}" for value in run.accuracies.values())
        rule, passed = RULES[name](done) if name in RULES else ("", None)
        yield Line(name, "", landmark, f"{found}, {run.smaller:.0f} times", rule, passed)
    if "2 shards" in partitions:
        yield writers(lab)


def writers(lab: Lab) -> Line:
    """Return the line of the preset on FEMNIST, beside dense updates."""
    file = data_folder() / "femnist_digits_by_writer" / "femnist_digits_190.npz"
    data: Keys = {**WRITERS, "dataset": f"npz:{file}"}
    runs = [lab.records({**keys, **data}) for keys in (DENSE, PRESET)]
    dense, sparse = (_of_writers(records[-1]) for records in runs)
    smaller, rule = _smaller(runs[1]), f"within {CLOSE} of dense, {LEAST_SMALLER:.0f} times smaller"
    passed = dense - sparse <= CLOSE and smaller >= LEAST_SMALLER
    ours = f"dense {dense:.3f}, {sparse:.3f}, {smaller:.0f} times"
    return Line(f"{NAMED} on FEMNIST", "", "", ours, rule, passed)


def _of_writers(record: RoundRecord) -> float:
    assert record.federated is not None  # by the setting
    return float(record.federated.summary()["accuracy"])


def quick_lines(lab: Lab) -> Iterator[Line]:
    """Yield what is judged of the preset with IID clients."""
    return lines(lab, QUICK, ["IID"])


def _near(name: str, within: float) -> Judged:
    def judge(done: Mapping[str, Run]) -> tuple[str, bool]:
        losses = [done["dense"].accuracies[key] - value for key, value in done[name].accuracies.items()]
        return f"within {within} of dense", max(losses) <= within

    return judge


def _far_smaller(done: Mapping[str, Run]) -> tuple[str, bool]:
    rule, near = _near(NAMED, CLOSE)(done)
    return f"{rule}, {LEAST_SMALLER:.0f} times smaller", near and done[NAMED].smaller >= LEAST_SMALLER


def _better(name: str, by: float, partitions: Sequence[str], least: float = 0.0) -> Judged:
    """Judge a codec beside the same without error feedback; ``least`` is asked of it with IID clients."""

    def judge(done: Mapping[str, Run]) -> tuple[str, bool]:
        with_it, without = done[name].accuracies, done[f"{name}, not fed back"].accuracies
        passed = with_it["IID"] >= least and all(with_it[key] - without[key] >= by for key in partitions)
        floor = f", at least {least}" if least else ""
        return f"{by} better than not fed back ({', '.join(partitions)}){floor}", passed

    return judge


RULES: Mapping[str, Judged] = {
    NAMED: _far_smaller,
    "8 bits": _near("8 bits", 0.003),
    "4 bits": _near("4 bits", 0.005),
    "top 1 %": _better("top 1 %", 0.008, ("IID", "2 shards"), 0.945),
    "top 0.1 %": _better("top 0.1 %", 0.03, ("IID", "2 shards")),
    "sign": _better("sign", 0.10, ("2 shards",)),
}
