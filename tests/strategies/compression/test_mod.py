"""Compression on its way through the mods: what is compressed, what the server takes, and what privacy keeps."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.admission import norm
from strategies.client import client_mods
from strategies.client_state import ClientStates
from strategies.compression import payload
from strategies.compression.expected import expected_bytes
from strategies.compression.feedback import LOST
from strategies.compression.registry import CODECS, codec_of
from strategies.describe import NodeDescription
from strategies.errors import LayoutError
from strategies.federated import FederatedStrategy
from strategies.guarantees import Property
from strategies.options import Option
from strategies.population import ClientInfo
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from tests.strategies import toy_federation as toy
from tests.strategies.privacy.test_private_rounds import Change, unchanged
from tests.strategies.scripted_updates import SIZE, Script, app, flat, start_arrays

TOP: dict[str, Option] = {"codec": "top-k", "codec-share": 0.25}


def weights_by_round(
    folder: Path,
    script: Script,
    name: str,
    options: Mapping[str, Option],
    rounds: int,
    seed: int = 0,
    change: Change = unchanged,
) -> list[np.ndarray]:
    """The weights before the first round and after each."""
    found: list[np.ndarray] = []

    def states(context: Context, run: str) -> ClientStates:
        return ClientStates(folder / "states", durable=False)

    strategy = FederatedStrategy(
        change(registry.build(name, options)),
        RoundRules(limits=toy.LIMITS, max_skipped_rounds=rounds),
        seed,
        round_config=lambda number: {"run": "a run"},
    )
    strategy.model.noise = lambda number: np.random.default_rng([seed, number])
    client_app = app(script, client_mods(states=states))
    strategy.start(
        InlineGrid.of(client_app, 2),
        wire.array_record(start_arrays()),
        num_rounds=rounds,
        evaluate_fn=lambda number, arrays: found.append(flat(arrays)),
    )
    return found


# Under differential privacy.


def clipped(delta: np.ndarray, limit: float) -> np.ndarray:
    return delta * min(1.0, limit / float(np.linalg.norm(delta)))


def check_bounded(folder: Path, codec: Mapping[str, Option], fed: str, change: Change = unchanged) -> None:
    """A single client moves the model by no more than the norm in any of twelve rounds, and by the norm in some.

    A server that does not clip again refuses what is longer, and loses it.
    """
    script, limit = Script(clients=("0",)), 1.0
    options = {**codec, "error-feedback": fed, "clients-per-round": 1, "clipping-norm": limit, "noise-multiplier": 0.0}
    weights = weights_by_round(folder, script, "dp-fedavg", options, 12, change=change)
    steps = [norm((after - before).astype(np.float32)) for before, after in pairwise(weights)]
    assert max(steps) <= limit * (1 + 1e-6)
    if fed == "on" or codec["codec"] == "random-k":
        assert max(steps) > 0.999 * limit


@pytest.mark.parametrize("codec", [TOP, {"codec": "sign"}, {"codec": "random-k", "codec-share": 0.25}], ids=str)
@pytest.mark.parametrize("fed", ["on", "off"])
def test_no_client_moves_the_sum_by_more_than_the_norm(tmp_path: Path, codec: dict[str, Option], fed: str) -> None:
    """With what it left out, or what an unbiased codec scales up, it sends more than that: the server clips again."""
    check_bounded(tmp_path, codec, fed)


def test_what_the_server_clips_off_is_sent_later(tmp_path: Path) -> None:
    script, limit, rounds = Script(clients=("0",)), 1.0, 12
    options = {**TOP, "clients-per-round": 1, "clipping-norm": limit, "noise-multiplier": 0.0}
    weights = weights_by_round(tmp_path, script, "dp-fedavg", options, rounds)
    (newest,) = tmp_path.rglob(f"{rounds}.npz")
    with np.load(newest, allow_pickle=False) as state:
        left = state["if-counted"][0]
    updates = [clipped(script.delta("0", number), limit) for number in range(1, rounds + 1)]
    np.testing.assert_allclose(weights[-1] + left, np.sum(updates, axis=0), atol=1e-5)


LARGE = 100_000  # numbers of which the deviation is within 1 % of the true one, but for a probability of 8e-6


def large_app() -> ClientApp:
    """Six clients of a model of so many numbers, each with an update of its own that is clipped."""
    client_app = ClientApp()

    @client_app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        return Message(NodeDescription(tuple(map(ClientInfo, "012345"))).to_content(), reply_to=message)

    @client_app.train(mods=client_mods())
    def train(message: Message, context: Context) -> Message:
        weights = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
        chance = np.random.default_rng(int(wire.text(wire.config_of(message), wire.CLIENT)))
        local = weights.flat + chance.standard_normal(LARGE).astype(np.float32)
        metrics = MetricRecord({wire.NUM_EXAMPLES: 10.0})
        return Message(RecordDict({"arrays": wire.array_record({"a": local}), "metrics": metrics}), reply_to=message)

    return client_app


@pytest.mark.parametrize("packed", [0, 1])
@pytest.mark.parametrize(
    "codec", [{"codec": "none"}, {"codec": "qsgd", "codec-bits": 8}, {"codec": "top-k", "codec-share": 1.0}], ids=str
)
def test_the_noise_is_that_of_the_norm_however_updates_travel(codec: dict[str, Option], packed: int) -> None:
    """z S / n on each number of the mean: what two runs differ in of which one has no noise."""

    def released(noise_multiplier: float) -> np.ndarray:
        options = {**codec, "clients-per-round": 6, "clipping-norm": 0.5, "error-feedback": "off"}
        parts = registry.build("dp-fedavg", {**options, "noise-multiplier": noise_multiplier})
        strategy = FederatedStrategy(parts, RoundRules(limits=toy.LIMITS, clients_per_message=packed), 3)
        start = wire.array_record({"a": np.zeros(LARGE, np.float32)})
        return flat(strategy.start(InlineGrid.of(large_app(), 2), start, num_rounds=1).arrays)

    clean = released(0.0)
    assert 0 < np.linalg.norm(clean) <= 0.5
    noise = released(2.0) - clean
    assert noise.std() == pytest.approx(2.0 * 0.5 / 6, rel=0.01)
    assert abs(noise.mean()) < 4.5 * (2.0 * 0.5 / 6) / np.sqrt(LARGE)


def test_how_short_private_updates_are_written_is_not_told() -> None:
    """Two populations, one of which has nothing to send: that is written in fewer bytes, and no record says so."""

    def record(script: Script, name: str, **rules: bool) -> RoundRecord:
        records: list[RoundRecord] = []
        options: dict[str, Option] = {"codec": "zstd", "clients-per-round": 6}
        strategy = FederatedStrategy(
            registry.build(name, options), RoundRules(limits=toy.LIMITS, **rules), observers=[records.append]
        )
        strategy.start(InlineGrid.of(app(script, client_mods()), 2), wire.array_record(start_arrays()), num_rounds=1)
        return records[1]

    still = Script(scale=0.0)
    for script in (Script(), still):
        central = record(script, "dp-fedavg")
        assert central.uplink is None
        assert central.bytes_up == 6 * expected_bytes(codec_of({"codec": "zstd"}), SIZE)
    unprotected = [record(script, "dp-fedavg", unprotected_metrics=True) for script in (Script(), still)]
    assert unprotected[0].uplink is not None and unprotected[1].uplink is not None
    assert unprotected[0].uplink["mean"] > unprotected[1].uplink["mean"]
    noised = record(still, "local-dp")  # has its noise before it is written
    assert noised.uplink is not None and noised.bytes_up == pytest.approx(6 * noised.uplink["mean"])


def test_what_a_client_of_local_privacy_remembers_has_noise_on_it(tmp_path: Path) -> None:
    """Without error feedback of the noise, 24 numbers of a clipped update of norm 0.1 would all be below 0.1."""
    options = {**TOP, "clients-per-round": 0, "clipping-norm": 0.1, "noise-multiplier": 50.0}
    weights_by_round(tmp_path, Script(clients=("0",)), "local-dp", options, 1)
    (newest,) = tmp_path.rglob("1.npz")
    with np.load(newest, allow_pickle=False) as state:
        assert np.abs(state[LOST][0]).max() > 1


# What travels.


@pytest.mark.parametrize("name", sorted(set(CODECS) - {"none"}))
def test_every_codec_moves_the_model_as_its_decoded_updates_do(tmp_path: Path, name: str) -> None:
    """With the client's seed and the round's, encoded and decoded here once more."""
    script, told = Script(clients=("0", "1")), []
    options: dict[str, Option] = {"codec": name, "codec-share": 0.25, "error-feedback": "off", "weighting": "uniform"}
    strategy = FederatedStrategy(registry.build("fedavg", options), RoundRules(limits=toy.LIMITS), 3)
    client_app = app(script, client_mods())
    grid = toy.WireGrid(client_app, InlineGrid.of(client_app, 1).node_configs, keep=True)
    result = strategy.start(grid, wire.array_record(start_arrays()), num_rounds=1)
    codec = codec_of(options)
    (reply,) = (message for message in grid.received if message.metadata.message_type == "train")
    for place, client in enumerate(script.clients):
        array = wire.arrays_of(reply.content, wire.UPDATE)[f"{place}/{wire.DELTA}"]
        assert array.stype == payload.STYPE == "fedkeras.update.v1"
        told.append(codec.decode(payload.read(array), SIZE, _shared_seed(strategy)))
        if Property.EXACT_UPDATES in codec.guarantees.gives:
            np.testing.assert_allclose(told[-1], script.delta(client, 1), atol=1e-6)
    np.testing.assert_allclose(flat(result.arrays), np.mean(told, axis=0), atol=1e-6)


def _shared_seed(strategy: FederatedStrategy) -> int:
    assert strategy._round is not None
    return strategy._round.terms.codec_seed


def test_the_seed_that_codecs_share_is_another_in_each_round_and_run() -> None:
    seeds = []
    for run in (0, 1):
        strategy = FederatedStrategy(registry.build("fedavg", {"codec": "random-k", "codec-share": 0.25}), seed=run)
        client_app = app(Script(), client_mods())
        grid = InlineGrid.of(client_app, 1)
        for number in (1, 2):
            arrays = wire.array_record(start_arrays())
            (message,) = strategy.configure_train(number, arrays, ConfigRecord(), grid)
            seeds.append(wire.number(wire.config_of(message), wire.CODEC_SEED))
    assert len(set(seeds)) == 4


@pytest.mark.parametrize("stock", [True, False])
def test_a_stock_client_is_understood_as_before(stock: bool) -> None:
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(
        registry.build("fedavg", {"codec": "top-k", "error-feedback": "off"}),
        RoundRules(limits=toy.LIMITS, clients_per_message=1),
        observers=[records.append],
    )
    client_app = toy.app(mods=not stock)
    strategy.start(InlineGrid.of(client_app, 2), toy.start_arrays(), num_rounds=1)
    assert records[1].accepted == toy.IDS


def test_an_update_that_was_not_written_as_asked_is_rejected() -> None:
    """As of an app that lacks the mod: a dense update where another was asked for would not cost what was agreed."""
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(
        registry.build("fedavg", {"codec": "qsgd"}), RoundRules(max_skipped_rounds=2), observers=[records.append]
    )
    mods = [mod for mod in client_mods() if "compression" not in mod.__qualname__]
    strategy.start(InlineGrid.of(app(Script(), mods), 2), wire.array_record(start_arrays()), num_rounds=1)
    assert records[1].rejected == {"dtype": 6}


def test_a_damaged_payload_is_a_counted_rejection_and_the_round_goes_on() -> None:
    records: list[RoundRecord] = []
    client_app = app(Script(), client_mods())

    def damage(reply: Message, clients: list[str]) -> list[Message]:
        if clients == ["3"]:
            (name,) = arrays = wire.arrays_of(reply.content, wire.UPDATE)
            data = bytearray(arrays[name].data)
            data[len(data) // 2] ^= 8
            reply.content[wire.UPDATE] = wire.record_of({name: Array("uint8", (9,), payload.STYPE, bytes(data))})
        return [reply]

    strategy = FederatedStrategy(
        registry.build("fedavg", {"codec": "qsgd"}),
        RoundRules(limits=toy.LIMITS, clients_per_message=1),
        observers=[records.append],
    )
    grid = toy.WireGrid(client_app, InlineGrid.of(client_app, 2).node_configs, tamper=damage)
    strategy.start(grid, wire.array_record(start_arrays()), num_rounds=1)
    assert records[1].rejected == {"malformed": 1} and len(records[1].accepted) == 5


def test_only_the_bytes_of_a_payload_count() -> None:
    """Whatever dtype and shape it claims: nothing is allocated by them."""
    data = bytes(range(9))
    found = payload.read(Array("float64", (10**12,), payload.STYPE, data))
    assert found.dtype == np.uint8 and found.tobytes() == data
    with pytest.raises(LayoutError, match=r"of the kind 'fedkeras.update.v77', but 'fedkeras.update.v1' is spoken"):
        payload.read(Array("uint8", (9,), "fedkeras.update.v77\n", data))
    with pytest.raises(LayoutError, match="serialization type 'pickle'"):
        payload.read(Array("uint8", (9,), "pickle", data))
