"""The model as differences: one model for all, whatever each was sent, and whatever a node or the server has lost."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from app.checkpoint_file import Content, from_bytes, parts_of
from simulation.devices import Devices
from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.client import client_mods
from strategies.client_state import ClientStates
from strategies.compression import references
from strategies.compression.differences import BASE, MOST_KEPT, Chain, Differing, digest, seed_of
from strategies.compression.downlink import MODEL, Differences, downlink_of
from strategies.compression.registry import codec_of
from strategies.describe import NodeDescription
from strategies.errors import StrategyError
from strategies.federated import FederatedStrategy
from strategies.layout import ModelLayout
from strategies.options import Option
from strategies.population import ClientInfo
from strategies.records import RoundRecord
from strategies.seeding import generator
from strategies.snapshot import NoJournal, Snapshot
from strategies.terms import RoundRules
from tests.simulation.worlds import conditions, world
from tests.strategies import toy_federation as toy

SIZE = 2000
ROUNDS = 6
BITS = range(1, 9)


def codec(bits: int) -> Any:
    return codec_of({"codec": "qsgd", "codec-bits": bits})


def walk(steps: int, size: int = SIZE, tail: float = 1.0) -> list[np.ndarray]:
    """Weights after each of some rounds: a step is normal, to the power ``tail`` so that some values stand out."""
    random = np.random.default_rng(int(100 * tail) + steps)
    weights = [random.standard_normal(size).astype(np.float32)]
    for _ in range(steps - 1):
        step = random.standard_normal(size)
        moved = weights[-1] + 0.01 * np.sign(step) * np.abs(step) ** tail
        weights.append(moved.astype(np.float32))
    return weights


def chained(weights: list[np.ndarray], bits: int, seed: int = 5) -> list[Chain]:
    chains = [Chain(1, weights[0])]
    for version, moved in enumerate(weights[1:], 2):
        chains.append(chains[-1].moved(codec(bits), moved, version, seed))
    return chains


# The chain.


@pytest.mark.parametrize("bits", BITS)
def test_the_chain_is_that_of_the_formula(bits: int) -> None:
    """In float64, step by step, with the a_t that leaves the least as least squares find it."""
    weights = walk(12)
    chains, reference = chained(weights, bits), weights[0].astype(np.float64)
    for version, (before, after, moved) in enumerate(zip(chains, chains[1:], weights[1:], strict=False), 1):
        written = codec(bits).encode(moved - before.reference, seed_of(5, version), seed_of(5, version))
        sent = codec(bits).decode(written, SIZE, 0).astype(np.float64)
        (scale,), *_ = np.linalg.lstsq(sent[:, None], moved - reference, rcond=None)
        reference += scale * sent
        np.testing.assert_allclose(after.reference, reference, atol=1e-5)
        assert after.differences[version].written.tobytes() == written.tobytes()


@pytest.mark.parametrize("bits", BITS)
def test_what_was_sent_and_what_is_left_are_what_the_model_moved(bits: int) -> None:
    weights, sent = walk(12), np.zeros(SIZE)
    for chain in chained(weights, bits)[1:]:
        newest = chain.differences[chain.version - 1]
        sent += newest.scale * codec(bits).decode(newest.written, SIZE, 0).astype(np.float64)
        left = weights[chain.version - 1] - chain.reference
        np.testing.assert_allclose(sent + left, weights[chain.version - 1] - weights[0], atol=1e-5)


@given(st.integers(1, 8), st.floats(0.2, 6.0), st.integers(1, 1100))
def test_what_is_left_out_never_grows(bits: int, tail: float, size: int) -> None:
    """Whatever the values are like; but for the rounding of float32."""
    weights = walk(5, size, tail)
    for before, after, moved in zip(chained(weights, bits), chained(weights, bits)[1:], weights[1:], strict=False):
        lacked = np.linalg.norm(moved.astype(np.float64) - before.reference)
        left = np.linalg.norm(moved.astype(np.float64) - after.reference)
        assert left <= lacked * (1 + 1e-6) + 1e-6 * np.linalg.norm(moved)


def test_without_the_scale_few_bits_would_run_away() -> None:
    """Which is why it is there: what 1 bit adds is longer than what it writes, and is in the next difference."""
    weights = walk(12)
    reference = weights[0].copy()
    for version, moved in enumerate(weights[1:], 1):
        written = codec(1).encode(moved - reference, seed_of(5, version), 0)
        reference += codec(1).decode(written, SIZE, 0)
    step = np.linalg.norm(weights[-1] - weights[-2])
    assert np.linalg.norm(weights[-1] - reference) > 1000 * step
    assert np.linalg.norm(weights[-1] - chained(weights, 1)[-1].reference) < 20 * step


def test_a_chain_is_what_was_written_of_it() -> None:
    chain = chained(walk(5), 3)[-1].heard(["a", "b", "\N{SNOWMAN}"], ["\N{SNOWMAN}", "a"])
    groups = from_bytes(b"".join(parts_of(Content({}, {"downlink": chain.state()})))).groups
    again = Chain.of(groups["downlink"])
    assert again.held == {"a": 5, "\N{SNOWMAN}": 5} and again.version == 5
    assert again.reference.tobytes() == chain.reference.tobytes()
    further = walk(6)[-1]
    ours, theirs = (one.moved(codec(3), further, 6, 5) for one in (chain, again))
    assert digest(ours.reference) == digest(theirs.reference)
    assert [one.written.tobytes() for one in ours.differences.values()] == [
        one.written.tobytes() for one in theirs.differences.values()
    ]


def test_a_version_that_is_there_is_not_made_again() -> None:
    chain = chained(walk(3), 4)[-1]
    assert chain.moved(codec(4), np.zeros(SIZE, np.float32), 3, 5) is chain


@pytest.mark.parametrize("bits", BITS)
def test_what_is_kept_weighs_less_than_the_model(bits: int) -> None:
    *_, chain = chained(walk(40), bits)
    weight = sum(len(one.written) for one in chain.differences.values())
    assert weight < chain.reference.nbytes and len(chain.differences) <= MOST_KEPT
    oldest = min(chain.differences)
    assert list(chain.differences) == list(range(oldest, 40))
    assert len(chain.differences) == MOST_KEPT or weight * (1 + 1 / len(chain.differences)) >= chain.reference.nbytes


def test_who_has_what_follows_from_what_counted() -> None:
    weights = walk(4)
    chain = Chain(1, weights[0]).heard(["a", "b", "c"], ["a", "b"]).moved(codec(8), weights[1], 2, 0)
    chain = chain.heard(["a", "c"], ["c"]).moved(codec(8), weights[2], 3, 0)
    assert chain.held == {"b": 1, "c": 2}  # of what a's node has, nothing is known any more
    assert (chain.base(["b"]), chain.base(["c"]), chain.base(["b", "c"]), chain.base(["c", "a"])) == (1, 2, 1, 0)
    assert list(chain.since(1)) == [1, 2] and list(chain.since(2)) == [2]


def test_who_has_what_is_no_longer_kept_has_nothing() -> None:
    weights = walk(12)
    chain = Chain(1, weights[0]).heard(["a"], ["a"])
    for version, moved in enumerate(weights[1:], 2):
        chain = chain.moved(codec(8), moved, version, 0)
    assert chain.base(["a"]) == 0 and not chain.held


def test_a_model_that_no_difference_leads_to_is_sent_whole() -> None:
    """No codec writes values beyond 2^64."""
    weights = walk(2)
    diverged = weights[1] * np.float32(1e30)
    chain = Chain(1, weights[0]).heard(["a"], ["a"]).moved(codec(4), diverged, 2, 0)
    assert chain.base(["a"]) == 0 and not chain.differences
    layout = ModelLayout.from_arrays([diverged], names=["w"])
    np.testing.assert_array_equal(
        wire.decode(Differing.of(codec(4), chain, layout, 0, {}).to(["a"]).record[MODEL]), diverged
    )


def test_what_each_client_would_get_alone_does_not_depend_on_the_packing() -> None:
    weights = walk(3)
    chain = Chain(1, weights[0]).heard(["a"], ["a"]).moved(codec(4), weights[1], 2, 0)
    chain = chain.heard(["b"], ["b"]).moved(codec(4), weights[2], 3, 0)
    layout = ModelLayout.from_arrays([weights[0]], names=["w"])
    sent = Differing.of(codec(4), chain, layout, 0, {wire.RUN: "run"})
    together = sent.to(["a", "b", "new"])
    alone = [sent.to([client]) for client in ("a", "b", "new")]
    assert together.settings[wire.BYTES_DOWN] == [one.settings[wire.BYTES_DOWN][0] for one in alone]  # type: ignore[index]
    assert list(together.record) == [MODEL] and [len(one.record) for one in alone] == [2, 1, 1]
    assert sent.to(["a"]).record is alone[0].record


# A federation.


@dataclass
class Federation:
    """Six clients that move the model at random, and take down from which bits they began and what they were sent."""

    folder: Path
    options: dict[str, Option] = field(default_factory=lambda: {"downlink": "difference", "downlink-bits": 4})
    seed: int = 7
    begun: dict[tuple[str, int, str], bytes] = field(default_factory=dict)
    bases: dict[tuple[int, str], int] = field(default_factory=dict)
    records: list[RoundRecord] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    before: Callable[[int], None] = lambda number: None

    def app(self) -> ClientApp:
        client_app = ClientApp()
        mods = client_mods(states=lambda context, run: ClientStates(self.folder / str(context.node_id), durable=False))

        def began(message: Message) -> ArrayRecord:
            config, record = wire.config_of(message), wire.arrays_of(message.content, wire.ARRAYS)
            number, client = int(wire.number(config, wire.ROUND)), wire.text(config, wire.CLIENT)
            self.begun[message.metadata.message_type, number, client] = flat(record).tobytes()
            if message.metadata.message_type == "train" and BASE in config:
                self.bases[number, client] = int(wire.number(config, BASE))
            return record

        @client_app.query("describe")
        def describe(message: Message, context: Context) -> Message:
            return Message(
                NodeDescription(tuple(ClientInfo(one, 10) for one in toy.IDS)).to_content(), reply_to=message
            )

        @client_app.train(mods=mods)
        def train(message: Message, context: Context) -> Message:
            record, seed = began(message), int(wire.number(wire.config_of(message), wire.SEED))
            random = generator(seed, 0, "", "steps")
            moved = {
                name: wire.decode(array) + 0.01 * random.standard_normal(array.shape, np.float32)
                for name, array in record.items()
            }
            metrics = MetricRecord({"num-examples": 10})
            return Message(RecordDict({"arrays": wire.array_record(moved), "metrics": metrics}), reply_to=message)

        @client_app.evaluate(mods=mods)
        def evaluate(message: Message, context: Context) -> Message:
            began(message)
            metrics = MetricRecord({"num-examples": 1, "loss": 1.0, "accuracy": 0.5})
            return Message(RecordDict({"metrics": metrics}), reply_to=message)

        return client_app

    def strategy(self, **rules: int) -> FederatedStrategy:
        def told(record: RoundRecord) -> None:
            self.records.append(record)
            self.before(record.round + 1)

        return FederatedStrategy(
            registry.build("fedavg", self.options),
            RoundRules(federated_evaluate_every=2, **rules),  # type: ignore[arg-type]
            self.seed,
            round_config=lambda number: {wire.RUN: "run"},
            observers=[told],
            journal=Kept(self.snapshots),
        )

    def grid(self, nodes: int, wired: bool = False, tamper: Any = None) -> InlineGrid:
        client_app = self.app()
        inline = InlineGrid.of(client_app, nodes)
        if wired or tamper:
            return toy.WireGrid(client_app, inline.node_configs, tamper=tamper)
        return inline

    def train(self, grid: InlineGrid, rounds: int = ROUNDS, left: Snapshot | None = None, **rules: int) -> np.ndarray:
        strategy = self.strategy(**rules)
        if left is not None:
            strategy.resume(left)
        return flat(strategy.start(grid, wire.array_record(start_arrays()), rounds, 100.0).arrays)


class Kept(NoJournal):
    """A journal that keeps the states themselves."""

    def __init__(self, states: list[Snapshot]) -> None:
        self.states = states

    def finished(self, state: Snapshot) -> None:
        self.states.append(state)


def start_arrays() -> dict[str, np.ndarray]:
    values = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    return {"kernel": values[:-20].reshape(198, 10), "bias": values[-20:]}


def flat(record: ArrayRecord) -> np.ndarray:
    return np.concatenate([wire.decode(array).ravel() for array in record.values()])


def forget() -> None:
    """As a process that is started anew."""
    references._last = None


def kept(folder: Path) -> list[Path]:
    return sorted(folder.rglob(f"*{references.SUFFIX}"))


def test_the_servers_own_weights_stay_exact_and_all_begin_from_the_same_bits(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(federation.grid(2))
    for number in range(1, ROUNDS + 1):
        bits = {federation.begun["train", number, client] for client in toy.IDS}
        assert len(bits) == 1
        weights = flat(federation.snapshots[number - 1].arrays)
        began = np.frombuffer(bits.pop(), np.float32)
        assert (number == 1) == (began.tobytes() == weights.tobytes())
        np.testing.assert_allclose(began, weights, atol=0.01)
    assert all(not record.rejected for record in federation.records)


@pytest.mark.parametrize(("nodes", "wired", "alone"), [(1, False, 0), (3, True, 1), (2, True, 0)])
def test_nodes_packing_and_wire_do_not_show(tmp_path: Path, nodes: int, wired: bool, alone: int) -> None:
    """With cohorts of three of six, so that clients come from older versions."""
    options: dict[str, Option] = {"downlink": "difference", "downlink-bits": 2, "clients-per-round": 3}
    one, other = (Federation(tmp_path / name, dict(options)) for name in "ab")
    expected = one.train(one.grid(1), 10, clients_per_message=1)
    assert other.train(other.grid(nodes, wired), 10, clients_per_message=alone).tobytes() == expected.tobytes()
    assert other.begun == one.begun
    assert len({base and number - base for (number, _), base in one.bases.items()}) > 2
    assert all(not record.rejected for record in (*one.records, *other.records))


def test_processes_that_know_nothing_go_on_from_the_files(tmp_path: Path) -> None:
    warm, cold = Federation(tmp_path / "warm"), Federation(tmp_path / "cold", before=lambda number: forget())
    assert cold.train(cold.grid(2)).tobytes() == warm.train(warm.grid(2)).tobytes()
    assert cold.begun == warm.begun and not any(record.rejected for record in cold.records)


def test_an_evaluation_sees_what_the_next_round_begins_from(tmp_path: Path) -> None:
    """And whether there is one does not show in the model."""
    federation, other = Federation(tmp_path / "a"), Federation(tmp_path / "b")
    trained = federation.train(federation.grid(2))
    assert federation.begun["evaluate", 2, "0"] == federation.begun["train", 3, "0"]
    other.strategy = lambda **rules: FederatedStrategy(  # type: ignore[method-assign]
        registry.build("fedavg", other.options), RoundRules(), other.seed, round_config=lambda _: {wire.RUN: "run"}
    )
    assert other.train(other.grid(2)).tobytes() == trained.tobytes()


def test_a_round_takes_fewer_bytes_than_the_model_rounded_anew(tmp_path: Path) -> None:
    """As Flower sends them, headers and settings and all, with every client alone."""

    def down(name: str, **options: Option) -> list[int]:
        federation = Federation(tmp_path / name, options)
        federation.train(federation.grid(2), 4, clients_per_message=1)
        return [record.bytes_down for record in federation.records[1:] if record.federated is None]

    dense, eight = down("dense"), down("eight", downlink="qsgd")
    four, two = (down(str(bits), **{"downlink": "difference", "downlink-bits": bits}) for bits in (4, 2))
    assert eight[1] < dense[1] / 2 and two[1] < four[1] < eight[1]
    saved = len(toy.IDS) * SIZE * np.array([4 - 0.5, 4 - 0.25])
    np.testing.assert_allclose([dense[1] - four[1], dense[1] - two[1]], saved, atol=len(toy.IDS) * 800)
    assert four[0] > eight[0]  # the first round sends the model


def test_a_node_that_has_lost_its_folder_says_so_and_gets_the_model(tmp_path: Path) -> None:
    def lose(number: int) -> None:
        if number == 4:
            forget()
            shutil.rmtree(tmp_path / "1")

    federation = Federation(tmp_path, before=lose)
    federation.train(federation.grid(2), clients_per_message=1)
    lost = set(federation.records[4].selected) - set(federation.records[4].accepted)
    assert federation.records[4].rejected == {"no-reference": len(lost)} and lost == {"0", "2", "4"}
    assert [record.rejected for record in federation.records if record.round != 4] == [{}] * ROUNDS
    assert {client for client in toy.IDS if federation.bases[5, client] == 0} == lost
    assert all(federation.bases[6, client] == 5 for client in toy.IDS)
    assert len({federation.begun["train", 5, client] for client in toy.IDS}) == 1


def test_a_damaged_file_is_never_trained_from(tmp_path: Path) -> None:
    def damage(number: int) -> None:
        if number == 4:
            forget()
            newest = kept(tmp_path / "1")[-1]
            data = bytearray(newest.read_bytes())
            data[100] ^= 4
            newest.write_bytes(data)
            kept(tmp_path / "2")[-1].write_bytes(b"short")

    federation = Federation(tmp_path, before=damage)
    federation.train(federation.grid(2))
    assert federation.records[4].rejected == {"no-reference": 6} and federation.records[4].skipped
    assert federation.records[5].accepted == toy.IDS == federation.records[6].accepted


@pytest.mark.parametrize("cold", [False, True])
def test_a_server_that_goes_on_from_an_older_checkpoint_is_understood(tmp_path: Path, cold: bool) -> None:
    """Its nodes have files of rounds that it does again, and in another way, as where noise is drawn anew."""
    federation = Federation(tmp_path)
    federation.train(federation.grid(2), clients_per_message=1)
    again = Federation(tmp_path, seed=8, before=lambda number: forget() if cold else None)
    again.train(again.grid(2), left=federation.snapshots[2], clients_per_message=1)
    assert not any(record.rejected for record in again.records)
    for number in (3, 4, 5, 6):
        assert len({again.begun["train", number, client] for client in toy.IDS}) == 1
    assert {again.bases[3, client] for client in toy.IDS} == {2}
    assert again.begun["train", 4, "0"] != federation.begun["train", 4, "0"]
    np.testing.assert_allclose(
        np.frombuffer(again.begun["train", 6, "0"], np.float32), flat(again.snapshots[-2].arrays), atol=0.01
    )


def test_whose_reply_is_lost_or_spoilt_gets_the_model_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only sleeping moves, so that nobody else is late."""
    now = [1000.0]
    monkeypatch.setattr("strategies.exchange.time.monotonic", lambda: now[0])
    monkeypatch.setattr("strategies.exchange.time.sleep", lambda seconds: now.append(now.pop() + seconds))
    rounds: dict[str, int] = {}

    def lose(reply: Message, clients: list[str]) -> Iterable[Message]:
        number = rounds[clients[0]] = rounds.get(clients[0], 0) + 1
        if number == 3 and clients == ["1"]:
            return []
        if number == 3 and clients == ["4"]:
            reply.content[wire.UPDATE] = wire.array_record({"0/delta": np.full(SIZE, np.nan, np.float32)})
        return [reply]

    federation = Federation(tmp_path)
    federation.train(federation.grid(2, tamper=lose), 5, clients_per_message=1)
    assert federation.records[3].rejected == {"late": 1, "not-finite": 1}
    assert {client for client in toy.IDS if federation.bases[4, client] == 0} == {"1", "4"}
    assert {federation.bases[5, client] for client in toy.IDS} == {4}
    assert len({federation.begun["train", 4, client] for client in toy.IDS}) == 1


def test_a_node_keeps_a_few_files_for_its_owners_eyes(tmp_path: Path) -> None:
    federation = Federation(tmp_path, {"downlink": "difference", "downlink-bits": 8})
    federation.train(federation.grid(2), 12)
    for node in ("1", "2"):
        files = kept(tmp_path / node)
        assert 2 <= len(files) <= 6  # three differences of 8 bits weigh less than the model
        assert {file.stat().st_size for file in files} == {8 + 4 * SIZE}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700


def test_a_request_whose_differences_do_not_match_is_the_clients_error(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(federation.grid(1), 2)
    for file in kept(tmp_path)[1:]:
        file.unlink()
    forget()
    strategy, grid, left = federation.strategy(), federation.grid(1), federation.snapshots[1]
    strategy.model.go_on(left.states, {})
    arrays = left.arrays
    (message,) = strategy.configure_train(2, arrays, wire.settings_of(RecordDict()), grid)
    message.content[wire.ARRAYS] = wire.record_of(
        {**wire.arrays_of(message.content, wire.ARRAYS), "more": arrays["bias"]}
    )
    (reply,) = grid.pull_messages(grid.push_messages([message]))
    assert reply.content[wire.PACK][wire.REASONS] == ["malformed"] * len(toy.IDS)  # type: ignore[index]
    assert "2 differences" in reply.content[wire.PACK][wire.DETAILS][0]  # type: ignore[index]


def test_simulated_time_is_that_of_what_each_client_lacks_however_it_travels(tmp_path: Path) -> None:
    """And of a dense update up. Some drop out, and get the model next time."""
    packed, alone = Federation(tmp_path / "packed"), Federation(tmp_path / "alone")
    for federation, together in ((packed, 0), (alone, 1)):
        grid = world(conditions(devices=Devices(network_mbps=0.1), dropout=0.1), federation.app())
        federation.train(grid, 8, clients_per_message=together)  # type: ignore[arg-type]
    seconds = [[record.simulated_seconds or 0.0 for record in one.records] for one in (packed, alone)]
    assert seconds[0] == seconds[1] and packed.snapshots[-1].states.downlink["held"].size == len(toy.IDS)
    whole: set[bool] = set()
    for number in (2, 3, 4, 5, 6, 7):  # an evaluation follows some, and takes its time
        bases = {client: base for (round, client), base in alone.bases.items() if round == number}
        difference = Chain.of(alone.snapshots[number].states.downlink).differences[number - 1]
        down = 4 * SIZE if 0 in bases.values() else len(difference.written)
        took = seconds[1][number] - seconds[1][number - 1]
        assert took == pytest.approx((down + 4 * SIZE) * 8 / 1e6 / 0.1, abs=1e-5)
        whole.add(0 in bases.values())
    assert whole == {True, False}


# What is refused.


def test_its_codec_is_that_of_few_bits() -> None:
    assert downlink_of({"downlink": "difference", "downlink-bits": 3}) == Differences(codec(3))
    with pytest.raises(StrategyError, match="'downlink-bits' is 0, but must be from 1 to 8"):
        downlink_of({"downlink": "difference", "downlink-bits": 0})


@pytest.mark.parametrize("name", ["fedavg", "median", "scaffold", "dp-fedavg"])
def test_any_strategy_of_rounds_goes_with_it(name: str) -> None:
    private: dict[str, Option] = {"noise-multiplier": 1.0, "clipping-norm": 1.0, "clients-per-round": 3}
    options: dict[str, Option] = {"downlink": "difference", **private}
    assert registry.build(name, options).keeps_on_nodes
    assert not registry.build("fedavg", {}).keeps_on_nodes


def test_many_versions_at_a_time_are_refused() -> None:
    with pytest.raises(StrategyError, match="'fedbuff' cannot send differences: clients begin at any time"):
        registry.build("fedbuff", {"downlink": "difference"})


def test_a_model_of_whole_numbers_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    arrays = wire.array_record({"seed": np.arange(4, dtype=np.uint32), "kernel": np.ones(4, np.float32)})
    with pytest.raises(StrategyError, match="arrays of uint32, which must not be rounded: set 'downlink' to 'none'"):
        federation.strategy().start(federation.grid(1), arrays, num_rounds=1)


def test_what_a_checkpoint_may_need_is_not_forgotten(tmp_path: Path) -> None:
    kept = references.References(tmp_path / "references", durable=False)
    versions = [version for version in range(1, 60) if version not in (39, 40)]  # in which the node was not asked
    for version in versions:
        kept.save(version, np.full(3, version, np.float32), oldest=max(1, version - version // 10))
    kept.forget_before(55, checkpoints=[0, 20, 40])
    left = {version for version in range(1, 60) if kept.load(version, 3) is not None}
    assert left == {*range(18, 21), *range(35, 39), *range(55, 60)}
    assert all((kept.load(version, 3) == version).all() for version in left)
    kept.forget_before(55)
    assert kept.load(38, 3) is None and kept.load(55, 3) is not None
