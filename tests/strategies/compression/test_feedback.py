"""Error feedback: against the papers' recursions in float64, and what becomes of updates that do not count."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.client import client_mods
from strategies.client_state import ClientStates, file_name
from strategies.compression import payload
from strategies.compression.codec import Dense
from strategies.compression.feedback import COUNTED, LOST, ErrorFeedback, asked_codec, feeds_back, uplink_codec
from strategies.compression.registry import codec_of
from strategies.errors import StrategyError
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from tests.strategies import toy_federation as toy
from tests.strategies.scripted_updates import SIZE, Script, app, flat, start_arrays

TOP: dict[str, Option] = {"codec": "top-k", "codec-share": 0.25}
LOSSY: dict[str, dict[str, Option]] = {
    "top-k": TOP,
    "stc": {"codec": "stc", "codec-share": 0.25},
    "threshold": {"codec": "threshold", "codec-threshold": 1.5},
    "sign": {"codec": "sign"},
    "rotated sign": {"codec": "drive"},
    "top-k of few bits": {**TOP, "codec-quantization": "uniform", "codec-bits": 3},
}


class Federation:
    """A server and nodes over one folder, whose clients send updates that the test has written down."""

    def __init__(self, folder: Path, script: Script, options: dict[str, Option], **rules: object) -> None:
        self.folder, self.script = folder, script
        self.records: list[RoundRecord] = []
        self.arrays = wire.array_record(start_arrays())
        self.rules = RoundRules(**{"limits": toy.LIMITS, **rules})  # type: ignore[arg-type]
        self.options: dict[str, Option] = {"weighting": "uniform", **options}
        self.strategy = self.server()

    def server(self) -> FederatedStrategy:
        return FederatedStrategy(
            registry.build("fedavg", self.options),
            self.rules,
            round_config=lambda number: {"run": "a run", "learning-rate": 1.0},
            observers=[self.records.append],
        )

    def states(self, context: Context, run: str) -> ClientStates:
        return ClientStates(self.folder / file_name(run), durable=False)  # made anew each time, as by a new process

    def train(self, rounds: int, nodes: int = 2, **grid: object) -> np.ndarray:
        """Return the weights in the end."""
        client_app = app(self.script, client_mods(states=self.states))
        configs = InlineGrid.of(client_app, nodes).node_configs
        made = toy.WireGrid(client_app, configs, **grid)  # type: ignore[arg-type]
        result = self.strategy.start(made, self.arrays, num_rounds=rounds, timeout=0.3 if grid else 60.0)
        return flat(result.arrays)

    def left(self, client: str, number: int, key: str = COUNTED) -> np.ndarray:
        path = self.folder / file_name("a run") / file_name(client) / f"{number}.npz"
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[key][0], np.float64)


def summed(script: Script, rounds: Sequence[int]) -> np.ndarray:
    """What all updates of these rounds come to, over the number of clients."""
    every = [script.delta(client, number) for client in script.clients for number in rounds]
    return np.sum(every, axis=0, dtype=np.float64) / len(script.clients)


@pytest.mark.parametrize("options", LOSSY.values(), ids=LOSSY)
def test_what_was_sent_and_what_is_left_are_all_updates(tmp_path: Path, options: dict[str, Option]) -> None:
    script = Script()
    federation = Federation(tmp_path, script, options)
    moved = federation.train(7)
    left = np.mean([federation.left(client, 7) for client in script.clients], axis=0)
    assert np.abs(left).max() > 0.01
    np.testing.assert_allclose(moved + left, summed(script, range(1, 8)), atol=1e-5)


def largest_only(values: np.ndarray, count: int) -> np.ndarray:
    kept = np.zeros_like(values)
    places = np.argsort(-np.abs(values), kind="stable")[:count]
    kept[places] = values[places]
    return kept


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_it_is_the_papers_recursion(tmp_path: Path, momentum: float) -> None:
    """Karimireddy et al. 2019, algorithm 2, and Lin et al. 2018, algorithm 4: top-k, line by line."""
    script, rounds, count = Script(), 6, SIZE // 4
    moved = Federation(tmp_path, script, {**TOP, "error-feedback-momentum": momentum}).train(rounds)
    x = np.zeros(SIZE)
    u, v = ({client: np.zeros(SIZE) for client in script.clients} for _ in range(2))
    for number in range(1, rounds + 1):
        for client in script.clients:
            u[client] = momentum * u[client] + script.delta(client, number)
            v[client] = v[client] + u[client]
            sent = largest_only(v[client], count)
            v[client] = np.where(sent != 0, 0, v[client])
            u[client] = np.where(sent != 0, 0, u[client])
            x += sent / len(script.clients)
    np.testing.assert_allclose(moved, x, atol=1e-5)


def test_without_feedback_nothing_is_remembered(tmp_path: Path) -> None:
    script = Script()
    moved = Federation(tmp_path, script, {**TOP, "error-feedback": "off"}).train(3)
    sent = [largest_only(script.delta(client, number), SIZE // 4) for client in script.clients for number in (1, 2, 3)]
    np.testing.assert_allclose(moved, np.sum(sent, axis=0) / len(script.clients), atol=1e-5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("nodes", [1, 3])
def test_packing_and_wire_do_not_show_in_a_bit(tmp_path: Path, nodes: int) -> None:
    script, options = Script(), {**LOSSY["top-k of few bits"], "clients-per-round": 4}
    alone = Federation(tmp_path / "alone", script, options, clients_per_message=1).train(5)
    assert Federation(tmp_path / "packed", script, options).train(5, nodes).tobytes() == alone.tobytes()


# What does not count.


def failing(client: str, rounds: Sequence[int]) -> Callable[[str, int, RecordDict], RecordDict]:
    """Give the client's answers in these rounds a weight that no server takes: it has done all its work."""

    def misbehave(name: str, number: int, answer: RecordDict) -> RecordDict:
        if name == client and number in rounds:
            answer[wire.METRICS] = MetricRecord({"num-examples": -1.0})
        return answer

    return misbehave


def conserved(federation: Federation, moved: np.ndarray, rounds: int, last: dict[str, int]) -> None:
    """Sent and left are all updates, where the clients in ``last`` counted last in another round than the last."""
    script = federation.script
    left = [
        federation.left(client, rounds, COUNTED if last.get(client, rounds) == rounds else LOST)
        for client in script.clients
    ]
    np.testing.assert_allclose(moved + np.mean(left, axis=0), _in_shares(federation, rounds), atol=1e-5)


def _in_shares(federation: Federation, rounds: int) -> np.ndarray:
    return summed(federation.script, range(1, rounds + 1))


def test_a_rejected_update_goes_back_whole(tmp_path: Path) -> None:
    """One at a time: with all others' mean of fewer updates, what is conserved is each client's own sum."""
    script = Script(clients=("0",), misbehave=failing("0", (2, 3, 5)))
    federation = Federation(tmp_path, script, TOP)
    moved = federation.train(5)
    refused = {"weight": 1}
    assert [record.rejected for record in federation.records[1:]] == [{}, refused, refused, {}, refused]
    conserved(federation, moved, 5, {"0": 4})
    assert np.abs(federation.left("0", 5, LOST) - federation.left("0", 5)).max() > 0.1


def test_a_skipped_round_loses_nothing_and_sends_nothing_twice(tmp_path: Path) -> None:
    script = Script(misbehave=failing("1", (2, 4)))
    federation = Federation(tmp_path, script, TOP, min_replies=6)
    moved = federation.train(6)
    assert [record.skipped for record in federation.records[1:]] == [False, True, False, True, False, False]
    conserved(federation, moved, 6, {})


def test_a_reply_that_nobody_heard_goes_back_whole(tmp_path: Path) -> None:
    script = Script(clients=("0",))
    federation = Federation(tmp_path, script, TOP)

    def lose(reply: Message, clients: list[str]) -> list[Message]:
        return [] if int(reply.metadata.group_id) in (1, 3) else [reply]

    moved = federation.train(4, nodes=1, tamper=lose)
    assert [record.rejected for record in federation.records[1:]] == [{"late": 1}, {}, {"late": 1}, {}]
    conserved(federation, moved, 4, {})


@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_server_that_goes_on_from_an_older_round_repeats_it_to_the_bit(tmp_path: Path, killed_after: int) -> None:
    """Killed after a round and before its checkpoint: clients have committed what the server has forgotten."""
    script = Script()
    straight = Federation(tmp_path / "straight", script, TOP)
    whole = straight.train(killed_after + 2)
    federation = Federation(tmp_path / "killed", script, TOP)
    federation.train(killed_after)
    arrays, committed = federation.strategy.arrays, dict(federation.strategy.model.committed)
    assert arrays is not None
    for rounds in (1, 2):  # the first server dies after one more round
        strategy, weights = federation.server(), arrays
        strategy.model.weights_of(weights)
        strategy.model.committed = dict(committed)
        client_app = app(script, client_mods(states=federation.states))
        grid = InlineGrid.of(client_app, 2)
        for number in range(killed_after + 1, killed_after + 1 + rounds):
            messages = list(strategy.configure_train(number, weights, wire.settings_of(RecordDict()), grid))
            moved, _ = strategy.aggregate_train(number, list(grid.pull_messages(grid.push_messages(messages))))
            assert moved is not None
            weights = moved
    assert flat(weights).tobytes() == whole.tobytes()


def test_what_nobody_would_believe_is_sent_alone_and_not_kept(tmp_path: Path) -> None:
    script = Script(clients=("0",), spoilt={("0", 2): np.nan, ("0", 4): np.inf, ("0", 5): 3e38, ("0", 6): 1e3})
    federation = Federation(tmp_path, script, TOP, max_skipped_rounds=9)
    moved = federation.train(7)
    reasons = [record.rejected for record in federation.records[1:]]
    assert reasons == [{}, {"not-finite": 1}, {}, *[{"not-finite": 1}] * 2, {"norm": 1}, {}]
    np.testing.assert_allclose(moved + federation.left("0", 7), summed(script, (1, 3, 7)), atol=1e-5)


def test_a_residual_never_makes_an_update_too_long_to_be_believed(tmp_path: Path) -> None:
    """What was left out of some updates is longer than one may be: it is sent in parts, and nothing is rejected."""
    script = Script(clients=("0",))
    norms = [float(np.linalg.norm(script.delta("0", number))) for number in range(1, 9)]
    limits = toy.Limits(max_weight=1000.0, max_norm=1.001 * max(norms))
    federation = Federation(tmp_path, script, {"codec": "sign"}, limits=limits)
    moved = federation.train(8)
    assert all(not record.rejected for record in federation.records[1:])
    conserved(federation, moved, 8, {})


def test_a_client_whose_files_are_lost_goes_on_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def lose(name: str, number: int, answer: RecordDict) -> RecordDict:
        if (name, number) == ("1", 3):
            for path in tmp_path.rglob("2.npz"):
                path.unlink()
        return answer

    federation = Federation(tmp_path, Script(misbehave=lose), TOP)
    federation.train(4, nodes=1)
    assert "starts anew, as its state of round 2 is missing" in caplog.text
    assert all(not record.rejected for record in federation.records[1:])


def test_an_app_without_a_place_for_states_says_so(tmp_path: Path) -> None:
    federation = Federation(tmp_path, Script(), TOP, max_skipped_rounds=1)
    client_app = app(federation.script, client_mods())
    with pytest.raises(StrategyError, match=r"keeps no state of its clients.*'states', or set the key to 'off'"):
        federation.strategy.start(InlineGrid.of(client_app, 2), federation.arrays, num_rounds=1)


# Which codecs, and with what.


@pytest.mark.parametrize(
    ("options", "fed"),
    [
        ({}, False),
        ({"codec": "top-k"}, True),
        ({"codec": "top-k", "error-feedback": "off"}, False),
        ({"codec": "sign"}, True),
        ({"codec": "random-k"}, False),
        ({"codec": "random-k", "error-feedback": "on"}, True),
        ({"codec": "qsgd", "codec-bits": 2}, False),
        ({"codec": "zstd"}, False),
        ({"codec": "float16"}, False),
        ({"codec": "float16", "codec-lossless": "none"}, False),
        ({"codec": "float16", "error-feedback": "on"}, True),
        ({"codec": "top-k", "codec-quantization": "float16"}, True),
    ],
)
def test_auto_is_where_a_codec_is_biased(options: dict[str, Option], fed: bool) -> None:
    assert feeds_back(options) == fed == isinstance(uplink_codec(options), ErrorFeedback)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_clients_are_told_the_same_codec(momentum: float) -> None:
    codec = uplink_codec({**TOP, "error-feedback-momentum": momentum})
    assert codec == ErrorFeedback(codec_of(TOP), momentum) == asked_codec(codec.settings)
    assert asked_codec({}) == Dense() == uplink_codec({})


@pytest.mark.parametrize("options", [{"codec": "qsgd"}, {"codec": "random-k"}])
def test_an_unbiased_codec_is_not_to_be_fed_back(options: dict[str, Option], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(uplink_codec({**options, "error-feedback": "on"}), ErrorFeedback)
    assert f"The codec '{options['codec']}' is unbiased" in caplog.text and "costs accuracy" in caplog.text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"error-feedback": "on"}, "'error-feedback' is 'on', but the codec 'none' leaves out nothing"),
        ({"codec": "zstd", "error-feedback": "on"}, "the codec 'zstd' leaves out nothing"),
        ({"codec": "top-k", "error-feedback": "maybe"}, "'error-feedback' is 'maybe', but must be one of"),
        ({"codec": "top-k", "error-feedback-momentum": 1.0}, "'error-feedback-momentum' is 1.0, but must be 0"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(options: dict[str, Option], sentence: str) -> None:
    with pytest.raises(StrategyError, match=sentence):
        uplink_codec(options)


def test_it_needs_rounds_and_leaves_scaffold_alone() -> None:
    with pytest.raises(StrategyError, match=r"ErrorFeedback needs rounds that end for all at once.*'error-feedback'"):
        registry.build("fedbuff", {"codec": "top-k"})
    registry.build("fedbuff", {"codec": "top-k", "error-feedback": "off"})
    for codec in ("top-k", "qsgd"):
        with pytest.raises(StrategyError, match=r"Scaffold needs updates that reach the server exactly.*'codec'"):
            registry.build("scaffold", {"codec": codec})
    registry.build("scaffold", {"codec": "zstd"})


def test_a_newer_kind_of_update_is_a_counted_rejection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation(tmp_path, Script(), TOP, max_skipped_rounds=1)
    written = payload.written

    def newer(values: np.ndarray) -> payload.Array:
        array = written(values)
        array.stype = "fedkeras.update.v9"
        return array

    monkeypatch.setattr(payload, "written", newer)
    with pytest.raises(StrategyError, match=r"of the kind 'fedkeras.update.v9', but 'fedkeras.update.v1' is spoken"):
        federation.train(1)
    assert federation.records[1].rejected == {"malformed": 6}


# Beside differential privacy.


@pytest.mark.parametrize("privacy", ["dp-fedavg", "dp-fedavg-adaptive"])
@pytest.mark.parametrize("keys", [TOP, {"codec": "qsgd", "error-feedback": "on"}], ids=str)
def test_what_sampling_amplifies_goes_with_memory_only_where_clients_are_drawn_independently(
    privacy: str, keys: dict[str, Option]
) -> None:
    """Of a cohort of fixed size, what a client sends depends on the draws before: no sample of a round by itself."""
    options: dict[str, Option] = {"privacy": privacy, "weighting": "uniform", "clients-per-round": 20, **keys}
    with pytest.raises(StrategyError, match=r"cannot combine .* with ErrorFeedback: .* 'poisson', or 'error-feedback'"):
        registry.build("fedadam", {**options, "selection": "uniform"})
    assert isinstance(registry.build("fedadam", {**options, "selection": "poisson"}).codec, ErrorFeedback)
    registry.build("fedadam", {**options, "selection": "uniform", "error-feedback": "off"})


@pytest.mark.parametrize("name", ["dp-ftrl", "dp-mf", "local-dp", "fedavg"])
def test_what_needs_no_amplification_goes_with_memory(name: str) -> None:
    assert isinstance(registry.build(name, {**TOP, "clients-per-round": 2, "num-clients": 8}).codec, ErrorFeedback)
