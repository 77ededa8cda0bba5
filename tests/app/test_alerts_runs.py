"""Alerts of real runs: each fault of clients, disk, clock and budget raises its alert, no other, and is over with it.

Real are the data (digits), the training, both halves of the app and the disk. The nodes live in this process and in a
simulated world, whose clock counts: what else the machine has to do is no fault of a run.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from app.client import app as client_app
from app.config import RunConfig
from app.federated_run import FederatedRun
from app.output import Output
from app.plain_json import number
from app.report.health import notes
from app.report.reading import read_run
from app.run_directory import RunDirectory
from simulation.conditions import Conditions
from simulation.draws import Floats, Keys
from simulation.fates import Work
from simulation.inline import InlineGrid
from simulation.simulate import ONE_OF_MANY, Simulation, files_only
from simulation.world import WorldGrid
from simulation.wrapped import TRAIN
from strategies import wire
from strategies.federated import Observer
from strategies.records import RoundRecord
from strategies.seeding import child_seed
from tests.app.inline_runs import latest
from tests.app.test_alerts import write_certificate

BAD_ROUNDS = (11, 12)
CLIENTS = [str(number) for number in range(10)]
RUN: dict[str, Any] = {
    "num-clients": len(CLIENTS),
    "clients-per-round": 0,
    "clients-per-message": 1,
    "num-rounds": 16,
    "model": "logistic",
    "local-epochs": 1,
    "batch-size": 20,
    "evaluate-every": 1,
    "federated-evaluate-every": 0,
    "example-seconds": 0.01,
    "device-classes": "fast:0.8:1,slow:0.2:2",
    "regions": "europe:0.8:1,asia:0.2:8",
}
Told = list[tuple[int, str, str, str]]
Fault = Callable[[Message, Message, int], None]
"""What becomes of a request's reply in this round, where it is a bad one."""


def fault_free(request: Message, reply: Message, now: int) -> None:
    """Leave the reply as it is."""


@dataclass
class FaultyNodes(InlineGrid):
    """One node, which answers for every client by itself, and on whose replies a fault works."""

    fault: Fault = fault_free
    round: int = 1

    def after(self, record: RoundRecord) -> None:
        """Know which round is next."""
        self.round = record.round + 1

    def _execute(self, message: Message) -> Message:
        reply = super()._execute(message)
        if message.metadata.message_type == TRAIN:
            self.fault(message, reply, self.round)
        return reply


@dataclass(frozen=True)
class SlowInBadRounds(Conditions):
    """The world of a config, in which in the bad rounds whatever a client does takes five times as long."""

    def work(
        self, clients: Sequence[str], seeds: Keys, examples: Floats, moved_bytes: Floats | float, now: float
    ) -> Work:
        usual = super().work(clients, seeds, examples, moved_bytes, now)
        slow = [child_seed(self.draws.seed, number, client, "train") for number in BAD_ROUNDS for client in CLIENTS]
        return replace(usual, compute=usual.compute * np.where(np.isin(seeds, np.array(slow, np.uint64)), 5.0, 1.0))


def watched(
    runs_dir: Path,
    changes: dict[str, Any],
    fault: Fault = fault_free,
    observers: Sequence[Observer] = (),
    conditions: type[Conditions] = Conditions,
    output: Output = ONE_OF_MANY,
) -> FederatedRun:
    """Run to the end."""
    config = RunConfig.from_run_config({**RUN, "runs-dir": str(runs_dir), **changes})
    nodes = FaultyNodes(client_app, {1: {"partition-id": 0, "num-partitions": 1}}, config.to_run_config(), fault=fault)
    grid = WorldGrid(nodes, conditions.of(config))
    return Simulation(engine="inline").run_on(grid, config, [nodes.after, *observers], output)


def lines_of(directory: RunDirectory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in directory.metrics.read_text().splitlines()]


def told_of(directory: RunDirectory) -> Told:
    if not directory.alerts.exists():
        return []
    lines = map(json.loads, directory.alerts.read_text().splitlines())
    return [(line["round"], line["alert"], line["subject"], line["state"]) for line in lines]


def in_bad_rounds(alert: str, subject: str = "") -> Told:
    """What is told of a fault of these rounds: within the first, and over with the first one after."""
    return [(BAD_ROUNDS[0], alert, subject, "firing"), (BAD_ROUNDS[-1] + 1, alert, subject, "resolved")]


def clients_of(kind: str) -> dict[str, list[str]]:
    """The clients of each device class or region, as the world deals them."""
    names = Conditions.of(RunConfig.from_run_config(RUN)).kinds(CLIENTS)[kind]
    return {name: [client for client, own in zip(CLIENTS, names, strict=True) if own == name] for name in set(names)}


# Faults of clients.


def asked(request: Message) -> str:
    (client,) = wire.text_list(wire.config_of(request), wire.CLIENTS)
    return client


def lost(clients: Collection[str]) -> Fault:
    def lose(request: Message, reply: Message, now: int) -> None:
        if now in BAD_ROUNDS and asked(request) in clients:
            reply.__dict__.update(_content=None, _error=Error(ErrorCode.NODE_UNAVAILABLE, ""))

    return lose


def changed(reply: Message, change: Callable[[np.ndarray], np.ndarray]) -> None:
    ((name, array),) = reply.content[wire.UPDATE].items()
    delta = change(np.asarray(wire.decode(array), np.float32)).astype(np.float32)
    reply.content[wire.UPDATE] = wire.array_record({name: delta})


def not_finite(request: Message, reply: Message, now: int) -> None:
    if now in BAD_ROUNDS and asked(request) in CLIENTS[:3]:
        changed(reply, lambda delta: delta * np.float32("nan"))


def far_away(request: Message, reply: Message, now: int) -> None:
    """All clients go far away together in the first bad round, and come back in the last."""
    signs = dict(zip(BAD_ROUNDS, (1.0, -1.0), strict=True))
    if now in signs:
        there = np.random.default_rng(3).normal(0, 300, 650)
        changed(reply, lambda delta: signs[now] * there)


def learns_nothing_for_24_rounds(request: Message, reply: Message, now: int) -> None:
    if now <= 24:
        changed(reply, np.zeros_like)


def test_clients_that_are_lost(tmp_path: Path) -> None:
    few = CLIENTS[:4]
    groups = [clients for kind in ("device-class", "region") for clients in clients_of(kind).values()]
    assert all({*group} - {*few} for group in groups)
    assert told_of(watched(tmp_path, {}, lost(few)).directory) == in_bad_rounds("participation")


@pytest.mark.parametrize(
    ("kind", "name", "subject"),
    [("device-class", "slow", "device-classes/slow"), ("region", "asia", "regions/asia")],
)
def test_a_group_whose_clients_are_lost(tmp_path: Path, kind: str, name: str, subject: str) -> None:
    """Two clients of ten: too few for an alert of participation."""
    members = clients_of(kind)[name]
    others = clients_of("region" if kind == "device-class" else "device-class").values()
    assert len(members) == 2 and all({*group} - {*members} for group in others)
    assert told_of(watched(tmp_path, {}, lost(members)).directory) == in_bad_rounds("absent", subject)


def test_clients_whose_updates_are_not_finite(tmp_path: Path) -> None:
    assert told_of(watched(tmp_path, {}, not_finite).directory) == in_bad_rounds("rejected")


def test_a_model_that_explodes(tmp_path: Path) -> None:
    """The clients see it a round later, as they train what the server has made."""
    run = watched(tmp_path, {}, far_away)
    assert told_of(run.directory) == [
        (11, "loss", "central", "firing"),
        (12, "loss", "central", "resolved"),
        (12, "loss", "train", "firing"),
        (13, "loss", "train", "resolved"),
    ]


def test_a_model_whose_loss_is_not_finite(tmp_path: Path) -> None:
    run = watched(tmp_path, {"model": "tests.app.inline_models:exponential", "learning-rate": 0.01}, far_away)
    assert not np.isfinite(number(lines_of(run.directory)[11]["central"]["loss"]))
    assert told_of(run.directory) == [(11, "loss", "central", "firing"), (12, "loss", "central", "resolved")]


def test_a_model_that_learns_nothing_for_a_while(tmp_path: Path) -> None:
    run = watched(tmp_path, {"num-rounds": 40}, learns_nothing_for_24_rounds)
    assert told_of(run.directory) == [(20, "stagnation", "", "firing"), (25, "stagnation", "", "resolved")]


# Faults of what is around the run.


def test_rounds_that_take_long(tmp_path: Path) -> None:
    assert told_of(watched(tmp_path, {}, conditions=SlowInBadRounds).directory) == in_bad_rounds("duration")


@contextmanager
def soft_limit_kept() -> Iterator[Callable[[int], None]]:
    """Lend what sets the size that no file may exceed, for this process: -1 = none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size < 0 else size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def on_a_disk_that_is_full(runs_dir: Path, rounds: Collection[int]) -> RunDirectory:
    """The run of a model whose checkpoints have half a megabyte, and for which there is no room after these rounds."""
    with soft_limit_kept() as set_limit:

        def fill(record: RoundRecord) -> None:
            set_limit(100_000 if record.round in rounds else -1)

        before_the_next = Output(files_only, page=False)
        return watched(runs_dir, {"model": "mlp"}, observers=[fill], output=before_the_next).directory


def test_a_disk_on_which_no_checkpoint_finds_room(tmp_path: Path) -> None:
    assert told_of(on_a_disk_that_is_full(tmp_path, (10, 11))) == in_bad_rounds("checkpoint")


def test_a_disk_on_which_the_last_checkpoint_finds_no_room(tmp_path: Path) -> None:
    """Nor does the model. No round is left that could tell of it: the run's end does, in the file and on the page."""
    with pytest.raises(OSError, match="File too large"):
        on_a_disk_that_is_full(tmp_path, (16,))
    directory = latest(tmp_path).directory
    assert told_of(directory) == [(16, "checkpoint", "", "firing")]
    assert notes(read_run(directory.path)) == ["Alerts that were firing at the end: checkpoint."]


def test_a_certificate_that_expires_until_it_is_renewed(tmp_path: Path) -> None:
    file = tmp_path / "server.pem"

    def certify(days: int) -> None:
        file.unlink(missing_ok=True)
        write_certificate(file, datetime.now(UTC) + timedelta(days=days))

    def after(record: RoundRecord) -> None:
        if record.round in (10, 12):
            certify(13 if record.round == 10 else 365)

    certify(365)
    run = watched(tmp_path, {"alert-certificates": str(file)}, observers=[after])
    assert told_of(run.directory) == in_bad_rounds("certificate", str(file))


def test_a_budget_that_is_used_up_until_it_is_raised(tmp_path: Path) -> None:
    cohort = {"num-clients": 100, "clients-per-round": 20, "clients-per-message": 0}
    private = {**cohort, "strategy": "dp-fedavg", "noise-multiplier": 1.0, "budget-delta": 1e-2}
    first = watched(tmp_path, {**private, "budget-epsilon": 2.2}).directory
    spent = [line["privacy"]["epsilon"] for line in lines_of(first)[1:]]
    crossed = next(number for number, epsilon in enumerate(spent, start=1) if epsilon > 0.8 * 2.2)
    last = len(spent)
    told = [(crossed, "budget", "", "firing"), (last, "budget-used-up", "", "firing")]
    assert crossed < last < RUN["num-rounds"] and told_of(first) == told
    second = watched(tmp_path, {**private, "budget-epsilon": 22.0, "resume": str(first.path)}).directory
    assert len(lines_of(second)) == 1 + RUN["num-rounds"]
    over = [(last + 1, "budget", "", "resolved"), (last + 1, "budget-used-up", "", "resolved")]
    assert told_of(second) == [*told, *over]


# No faults.


@pytest.mark.parametrize("partition", ["dirichlet", pytest.param("iid", marks=pytest.mark.slow)])
def test_five_hundred_good_rounds_raise_none(tmp_path: Path, partition: str) -> None:
    """Each evaluated; they go on for hundreds of rounds after the model has learnt what it can."""
    many = {"num-clients": 100, "clients-per-round": 10, "clients-per-message": 0, "num-rounds": 500}
    file = write_certificate(tmp_path / "server.pem", datetime.now(UTC) + timedelta(days=100))
    run = watched(tmp_path, {**many, "partition": partition, "alert-certificates": str(file)})
    lines = lines_of(run.directory)
    assert [line["round"] for line in lines] == list(range(501))
    assert lines[-1]["central"]["accuracy"] > 0.9
    assert told_of(run.directory) == []
