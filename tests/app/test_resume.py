"""Going on with a run in its directory: same model, same ledger, every round told once; and what is refused."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from app import versions
from app.checkpoints import Checkpoints
from app.client import app as client_app
from app.config import RunConfig
from app.errors import UserError
from app.federated_run import FederatedRun
from app.journals import EveryFew, Overlapped
from app.only_one import only_one
from app.output import Output
from app.overrides import merged_config, with_absolute_paths
from app.report.reading import read_run
from app.resume import MAY_CHANGE, forget_rounds_after, note_versions, refuse_changes
from app.run_directory import RunDirectory, to_toml
from app.sinks import Background, file_sinks
from simulation.inline import InlineGrid
from strategies.census import Census
from strategies.errors import StrategyError
from strategies.privacy.ledger import Ledger
from strategies.records import RoundRecord
from strategies.server_model import ServerModel
from strategies.snapshot import Snapshot
from tests.app.inline_runs import SMALL, Left, latest, simulated

SHORT = {**SMALL, "num-rounds": 4, "federated-evaluate-every": 2, "checkpoint-share": 1.0}
NO_CHECKPOINTS = {"checkpoint-every": 0, "checkpoint-share": RunConfig().checkpoint_share}
PRIVATE = {
    "strategy": "dp-fedavg-adaptive",
    "noise-multiplier": 0.1,
    "clipping-norm": 0.3,
    "federated-evaluate-every": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "fedadam": {"strategy": "fedadam", "server-learning-rate": 0.05},
    "scaffold": {"strategy": "scaffold"},
    "dp-fedavg-adaptive": PRIVATE,
    "error feedback": {"codec": "top-k", "codec-share": 0.05, "error-feedback-momentum": 0.5, "downlink": "qsgd"},
    "differences": {"downlink": "difference", "downlink-bits": 3},
}
QUIET = Output(page=False)
OVERLAPPED = Output(lambda directory, logger, rounds: (Background(file_sinks(directory)),), False, "meanwhile")


class Killed(BaseException):
    """As by SIGKILL: nobody in between catches it, and nothing is closed."""


def run(folder: Path, changes: Mapping[str, Any], output: Output = QUIET, **more: Any) -> Left:
    """Run the app, or go on with it where the changes say so."""
    config = RunConfig.from_run_config({**changes, "runs-dir": str(folder)})
    grid = InlineGrid(client_app, {node: dict(own) for node, own in simulated(1).items()}, config.to_run_config())
    FederatedRun.of(config, output=output, **more).run(grid)
    return latest(folder)


def killed(folder: Path, changes: Mapping[str, Any], hook: Callable[..., None], in_round: int, **more: Any) -> Left:
    """Run until the hook kills; of what a process does in its last breath nothing is done."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FederatedRun, "_close", lambda *_: None)
        patch.setattr(EveryFew, "close", lambda _: None)
        hook(patch, in_round)
        with pytest.raises(Killed):
            run(folder, changes, **more)
    left = latest(folder)
    assert left.json("status.json")["state"] == "running"
    return left


def resumed(left: Left, changes: Mapping[str, Any], **more: Any) -> Left:
    return run(left.directory.path.parent, {**changes, "resume": str(left.directory.path)}, **more)


def told(left: Left) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl but for what is measured."""
    measured = ("seconds", "bytes", "uplink")
    return [{key: value for key, value in line.items() if key not in measured} for line in left.records()]


def evaluated(left: Left) -> list[Any]:
    return [json.loads(line) for line in left.directory.clients.read_text().splitlines()]


# Where a process is killed.


def in_aggregation(patch: pytest.MonkeyPatch, in_round: int) -> None:
    original = ServerModel.step

    def step(self: ServerModel, taken: Any, weights: Any, round: int, *more: Any) -> Any:
        arrays = original(self, taken, weights, round, *more)
        if round == in_round:
            raise Killed
        return arrays

    patch.setattr(ServerModel, "step", step)


def before_the_checkpoint(patch: pytest.MonkeyPatch, in_round: int) -> None:
    """The round is in metrics.jsonl already."""
    original = Checkpoints.write

    def write(self: Checkpoints, state: Any) -> None:
        if state.round >= in_round:
            raise Killed
        original(self, state)

    patch.setattr(Checkpoints, "write", write)


def after_the_checkpoint(patch: pytest.MonkeyPatch, in_round: int) -> None:
    original = Checkpoints.write

    def write(self: Checkpoints, state: Any) -> None:
        original(self, state)
        if state.round == in_round:
            raise Killed

    patch.setattr(Checkpoints, "write", write)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Left]:
    """Each case as it is when nothing happens."""
    return {case: run(tmp_path_factory.mktemp("whole"), {**SHORT, **changes}) for case, changes in CASES.items()}


def check(left: Left, expected: Left) -> None:
    """The same run, each round told once."""
    assert left.digest() == expected.digest()
    assert told(left) == told(expected)
    if expected.directory.clients.exists():
        assert evaluated(left) == evaluated(expected)
    assert steps_of(left) == list(range(len(left.records())))
    read = read_run(left.directory.path)
    assert [record.number for record in read.rounds] == list(range(len(left.records()))) and not read.notes


def steps_of(left: Left) -> list[int]:
    events = EventAccumulator(str(left.directory.tensorboard))
    events.Reload()
    return [event.step for event in events.Scalars("central/accuracy")]


@pytest.mark.parametrize(
    ("hook", "repeated"), [(in_aggregation, 2), (before_the_checkpoint, 2), (after_the_checkpoint, 3)]
)
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(
    case: str, hook: Callable[..., None], repeated: int, whole: dict[str, Left], tmp_path: Path
) -> None:
    changes = {**SHORT, **CASES[case]}
    left = killed(tmp_path, changes, hook, in_round=3)
    check(resumed(left, changes), whole[case])
    status = left.json("status.json")
    assert (status["state"], status["rounds"], status["resumed-after"]) == ("completed", 4, [repeated])


def test_checkpoints_that_overlap_with_rounds_lose_one_round_at_most(whole: dict[str, Left], tmp_path: Path) -> None:
    for hook, after in ((in_aggregation, {1, 2}), (before_the_checkpoint, {2}), (after_the_checkpoint, {3})):
        folder = tmp_path / hook.__name__
        left = killed(folder, {**SHORT, **CASES["fedadam"]}, hook, in_round=3, output=OVERLAPPED)
        check(resumed(left, {**SHORT, **CASES["fedadam"]}, output=OVERLAPPED), whole["fedadam"])
        assert set(left.json("status.json")["resumed-after"]) <= after


class PassingTime:
    """A clock by which a round takes 30 s and to write a checkpoint 1 s, for all that it is asked about."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._rounds_end_in = threading.get_ident()  # checkpoints are written in another thread

    def __call__(self) -> float:
        self._seconds += 30.0 if threading.get_ident() == self._rounds_end_in else 1.0
        return self._seconds


def test_at_the_usual_share_no_more_is_lost_than_the_rounds_that_were_passed_over(
    whole: dict[str, Left], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 2 %, 1 s is worth 49 s until the next: a checkpoint after rounds 0 and 2, and rounds 1 and 3 passed over."""
    changes = {**SHORT, **CASES["fedadam"], "checkpoint-share": RunConfig().checkpoint_share}
    passed: list[int] = []
    original = EveryFew.passed_over

    def passed_over(self: EveryFew, state: Snapshot) -> None:
        passed.append(state.round)
        original(self, state)

    monkeypatch.setattr(EveryFew, "passed_over", passed_over)
    monkeypatch.setattr("app.output.Overlapped", lambda *given: Overlapped(*given, clock=PassingTime()))
    left = killed(tmp_path, changes, in_aggregation, in_round=4, output=OVERLAPPED)
    assert passed == [1, 3] and Checkpoints(left.directory.checkpoints).rounds() == [0, 2]
    left = resumed(left, changes, output=OVERLAPPED)
    assert left.json("status.json")["resumed-after"] == [2]
    assert left.digest() == whole["fedadam"].digest()
    lines = told(left)
    assert [line["checkpoint"] for line in lines] == [None, 0, 0, 2, 3]
    newest = [line["checkpoint"] for line in told(whole["fedadam"])]
    assert [{**line, "checkpoint": last} for line, last in zip(lines, newest, strict=True)] == told(whole["fedadam"])


def test_killed_again_and_again(whole: dict[str, Left], tmp_path: Path) -> None:
    changes = {**SHORT, **CASES["fedadam"]}
    left = killed(tmp_path, changes, in_aggregation, in_round=1)
    for in_round in (2, 4, 4):
        killed(tmp_path, {**changes, "resume": str(left.directory.path)}, in_aggregation, in_round=in_round)
    check(resumed(left, changes), whole["fedadam"])
    assert left.json("status.json")["resumed-after"] == [0, 1, 3, 3]


def test_killed_after_the_last_round_only_what_is_left_is_done(whole: dict[str, Left], tmp_path: Path) -> None:
    changes = {**SHORT, **CASES["fedadam"]}
    left = killed(tmp_path, changes, after_the_checkpoint, in_round=4)
    assert not left.directory.model.exists()
    records: list[RoundRecord] = []
    check(resumed(left, changes, observers=[records.append]), whole["fedadam"])
    assert records == [] and left.json("status.json")["rounds"] == 4


def test_killed_before_anything_was_kept_it_begins_anew_in_its_directory(
    whole: dict[str, Left], tmp_path: Path
) -> None:
    changes = {**SHORT, **CASES["fedadam"]}
    left = killed(tmp_path, changes, before_the_checkpoint, in_round=0)
    assert len(left.records()) == 1
    check(resumed(left, changes), whole["fedadam"])
    assert left.json("status.json")["resumed-after"] == []


def test_an_error_that_ends_a_run_is_no_reason_not_to_go_on(whole: dict[str, Left], tmp_path: Path) -> None:
    def stop(record: RoundRecord) -> None:
        if record.round == 2:
            raise StrategyError("no more")

    changes = {**SHORT, **CASES["scaffold"]}
    with pytest.raises(StrategyError):
        run(tmp_path, changes, observers=[stop])
    left = latest(tmp_path)
    assert left.json("status.json")["state"] == "failed"
    check(resumed(left, changes), whole["scaffold"])


@pytest.mark.parametrize("damage", [b"", b"fedkeras checkpoint 2\nhalf a file"])
def test_with_a_damaged_newest_checkpoint_one_round_more_is_done_again(
    damage: bytes, whole: dict[str, Left], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {**SHORT, **CASES["fedadam"]}
    left = killed(tmp_path, changes, after_the_checkpoint, in_round=3)
    (left.directory.checkpoints / "0000003.checkpoint").write_bytes(damage)
    check(resumed(left, changes), whole["fedadam"])
    assert left.json("status.json")["resumed-after"] == [2]
    assert "0000003.checkpoint cannot be used" in caplog.text


def test_a_run_goes_on_without_checkpoints_and_says_in_each_round_which_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Left]
) -> None:
    original = Checkpoints.write

    def full(self: Checkpoints, state: Any) -> None:
        if state.round in (1, 2):
            raise OSError(28, "No space left on device")
        original(self, state)

    monkeypatch.setattr(Checkpoints, "write", full)
    left = run(tmp_path, {**SHORT, **CASES["fedadam"]})
    assert left.digest() == whole["fedadam"].digest()
    assert [line["checkpoint"] for line in left.records()] == [None, 0, 0, 0, 3]
    assert [line["checkpoint"] for line in whole["fedadam"].records()] == [None, 0, 1, 2, 3]


def contents(left: Left) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in left.directory.path.rglob("*") if path.is_file()}


def test_a_finished_run_stays_as_it_is_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    left = run(tmp_path, SHORT)
    before = contents(left)
    for changes in ({}, {"evaluate-every": 2}):
        caplog.clear()
        resumed(left, {**SHORT, **changes})
        assert contents(left) == before
        assert "The run is finished: nothing is left to do. To train on, raise 'num-rounds'." in caplog.text


def test_a_run_cannot_be_made_shorter_than_it_is(tmp_path: Path) -> None:
    left = run(tmp_path, SHORT)
    before = contents(left)
    with pytest.raises(UserError, match="'num-rounds' is 3, but the run to be resumed has done 4 already: give that"):
        resumed(left, {**SHORT, "num-rounds": 3})
    assert contents(left) == before


def test_a_finished_run_can_be_made_longer(tmp_path: Path, whole: dict[str, Left]) -> None:
    changes = {**SHORT, **CASES["fedadam"], "federated-evaluate-every": 1}
    left = run(tmp_path, {**changes, "num-rounds": 2})
    longer = resumed(left, {**changes, "num-rounds": 4})
    assert longer.digest() == whole["fedadam"].digest()
    assert [line["round"] for line in longer.records()] == [0, 1, 2, 3, 4]
    assert [line["round"] for line in evaluated(longer)] == [1, 2, 3, 4]
    config = merged_config([str(left.directory.config)], tmp_path, tmp_path)
    assert (config.num_rounds, config.resume) == (4, "")


def test_what_clients_remember_is_gone_once_a_run_is_completed(tmp_path: Path) -> None:
    left = run(tmp_path, {**SHORT, "strategy": "scaffold", "num-rounds": 1})
    with pytest.raises(UserError, match=r"what its clients remember was deleted when it was completed\. Start a new"):
        resumed(left, {**SHORT, "strategy": "scaffold"})


def test_two_processes_do_not_work_on_one_run(tmp_path: Path) -> None:
    left = killed(tmp_path, SHORT, in_aggregation, in_round=2)
    before = contents(left)
    with (
        only_one(left.directory.path, "other"),
        pytest.raises(UserError, match="Another process is at work on the run"),
    ):
        resumed(left, SHORT)
    assert contents(left) == before
    assert resumed(left, SHORT).json("status.json")["state"] == "completed"


def test_a_model_that_has_changed_is_refused(tmp_path: Path) -> None:
    left = killed(tmp_path, SHORT, in_aggregation, in_round=2)
    (tmp_path / "other").mkdir()
    other = run(tmp_path / "other", {**SHORT, "model": "mlp"})
    for file in left.directory.checkpoints.iterdir():
        file.unlink()
    (other.directory.checkpoints / "0000004.checkpoint").rename(left.directory.checkpoints / "0000001.checkpoint")
    with pytest.raises(UserError, match="The model 'logistic' has changed since the run began: start a new run"):
        resumed(left, SHORT)


def test_other_code_is_a_warning_that_stays_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left = killed(tmp_path, SHORT, in_aggregation, in_round=2)
    first = left.json("versions.json")
    resumed(left, {**SHORT, "num-rounds": 3})
    assert "other code" not in caplog.text and left.json("versions.json") == first
    monkeypatch.setattr(versions, "_version", lambda package: "9.9" if package == "numpy" else first[package])
    resumed(left, SHORT, output=Output())
    changed = f"numpy 9.9 instead of {first['numpy']}"
    assert f"The run goes on with other code than it was left with ({changed}): it need not be" in caplog.text
    assert left.json("versions.json") == {**first, "numpy": "9.9", "changed-on-resume": changed}
    assert changed in left.directory.report.read_text()


def test_each_change_of_the_code_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = RunDirectory.create(tmp_path, "x", datetime(2026, 1, 1))
    for fingerprint in ("a" * 64, "b" * 64, "b" * 64, "c" * 64):
        note_versions(directory, fingerprint, "/code")
    told = [f"fingerprint {now * 12} instead of {before * 12}" for now, before in ("ba", "cb")]
    assert directory.read_versions()["changed-on-resume"] == "; ".join(told)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


# What privacy has cost.


def ledger_of(left: Left) -> Ledger:
    state = Checkpoints(left.directory.checkpoints).newest()
    assert state is not None
    return Ledger.of(state.states.ledger)


def test_in_a_simulation_a_round_that_is_repeated_is_one_release(whole: dict[str, Left], tmp_path: Path) -> None:
    """It has the same noise, drawn from the same seed."""
    left = killed(tmp_path, {**SHORT, **PRIVATE}, in_aggregation, in_round=3)
    assert not (left.directory.checkpoints / "begun").exists()
    resumed(left, {**SHORT, **PRIVATE})
    assert ledger_of(left).releases == ledger_of(whole["dp-fedavg-adaptive"]).releases
    assert left.records()[-1]["privacy"] == whole["dp-fedavg-adaptive"].records()[-1]["privacy"]


@pytest.mark.parametrize("hook", [in_aggregation, before_the_checkpoint])
def test_in_a_deployment_a_round_that_is_repeated_costs_twice(
    hook: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Census, "simulated", False)
    left = killed(tmp_path, {**SHORT, **PRIVATE}, hook, in_round=3)
    resumed(left, {**SHORT, **PRIVATE})
    assert ledger_of(left).rounds == 5
    epsilons = [line["privacy"]["epsilon"] for line in left.records()[1:]]
    assert epsilons == sorted(epsilons) and math.isfinite(epsilons[-1])


def cohorts_of(patch: pytest.MonkeyPatch, in_round: int) -> list[frozenset[str]]:
    """Take down whom a round draws, each time that it begins."""
    original, drawn = ServerModel.account, list[frozenset[str]]()

    def account(self: ServerModel, round: int, budget: Any, clients: int, cohort: Any) -> None:
        if round == in_round:
            drawn.append(frozenset(cohort))
        original(self, round, budget, clients, cohort)

    patch.setattr(ServerModel, "account", account)
    return drawn


def again_and_again(folder: Path, changes: Mapping[str, Any], times: int) -> Left:
    left = killed(folder, changes, in_aggregation, in_round=1)
    for _ in range(times - 1):
        killed(folder, {**changes, "resume": str(left.directory.path)}, in_aggregation, in_round=1)
    return left


def test_in_a_deployment_a_round_that_is_repeated_draws_another_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its ledger has it. Six cohorts of 3 of 6 clients on average agree by chance in one of 2^30 runs."""
    monkeypatch.setattr(Census, "simulated", False)
    drawn = cohorts_of(monkeypatch, in_round=1)
    left = again_and_again(tmp_path, {**SHORT, **PRIVATE, "num-rounds": 1}, times=6)
    assert len(drawn) == 6 and len(set(drawn)) > 1
    begun = Checkpoints(left.directory.checkpoints).begun()
    assert begun is not None and Ledger.of(begun.ledger).rounds == 6


def test_in_a_simulation_a_round_that_is_repeated_draws_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = cohorts_of(monkeypatch, in_round=1)
    again_and_again(tmp_path, {**SHORT, **PRIVATE, "num-rounds": 1}, times=3)
    assert len(drawn) == 3 and len(set(drawn)) == 1


def test_in_a_deployment_without_checkpoints_a_private_run_is_not_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its releases are out, and nobody knows the model they were made of."""
    monkeypatch.setattr(Census, "simulated", False)
    changes = {**SHORT, **PRIVATE, **NO_CHECKPOINTS}
    left = killed(tmp_path, changes, in_aggregation, in_round=3)
    with pytest.raises(UserError, match=r"Round 3 was begun, and no checkpoint is in .* count the budget of this one"):
        resumed(left, changes)
    finished = run(tmp_path / "finished", changes)
    with pytest.raises(UserError, match="Round 4 was begun, and no checkpoint is in"):
        resumed(finished, {**changes, "num-rounds": 6})


def test_in_a_deployment_rounds_that_were_done_without_checkpoints_stay_accounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Census, "simulated", False)
    changes = {**SHORT, **PRIVATE}
    left = killed(tmp_path, changes, in_aggregation, in_round=2)  # which is release 2, after checkpoint 1
    without = {**changes, "resume": str(left.directory.path), **NO_CHECKPOINTS}
    killed(tmp_path, without, in_aggregation, in_round=4)  # releases 3 to 5
    resumed(left, changes)  # 6 to 8: rounds 2 to 4 once more
    assert left.json("status.json")["resumed-after"] == [1, 1] and ledger_of(left).rounds == 8


def test_in_a_deployment_rounds_that_are_lost_with_their_checkpoints_stay_accounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Census, "simulated", False)
    changes = {**SHORT, **PRIVATE, "checkpoint-every": 3}
    left = killed(tmp_path, changes, in_aggregation, in_round=3)  # with round 0 as the only checkpoint
    resumed(left, changes)
    assert left.json("status.json")["resumed-after"] == [0] and ledger_of(left).rounds == 3 + 4


def test_in_a_deployment_a_pass_of_rounds_is_paid_again_where_one_of_them_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Census, "simulated", False)
    changes = {**SHORT, "federated-evaluate-every": 0, "num-rounds": 6, "strategy": "dp-ftrl", "pass-rounds": 3}
    changes |= {"noise-multiplier": 0.3, "clipping-norm": 0.3, "clients-per-round": 2}
    assert ledger_of(run(tmp_path, changes)).rounds == 2
    for in_round, paid in ((2, 3), (4, 3), (6, 3)):
        left = killed(tmp_path / str(in_round), changes, in_aggregation, in_round)
        resumed(left, changes)
        assert ledger_of(left).rounds == paid, in_round


def test_a_budget_that_the_repeated_pass_would_exceed_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Census, "simulated", False)
    changes = {**SHORT, "federated-evaluate-every": 0, "strategy": "dp-ftrl", "pass-rounds": 4, "clients-per-round": 2}
    changes |= {"noise-multiplier": 1.0, "budget-epsilon": 10.0}
    left = killed(tmp_path, changes, in_aggregation, in_round=3)
    with pytest.raises(StrategyError, match="The privacy budget is spent: after 1 "):
        resumed(left, changes)
    assert left.json("status.json")["state"] == "failed"


def test_a_deployment_that_has_lost_its_checkpoints_is_not_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Census, "simulated", False)
    left = killed(tmp_path, {**SHORT, **PRIVATE}, in_aggregation, in_round=2)
    for file in left.directory.checkpoints.glob("*.checkpoint"):
        file.unlink()
    with pytest.raises(UserError, match=r"Round 2 was begun, and no checkpoint is in .*: the run cannot be resumed"):
        resumed(left, {**SHORT, **PRIVATE})
    assert "begins anew" not in caplog.text


# Which config a run goes on with.

OTHER: dict[str, Any] = {
    "num-rounds": 50, "runs-dir": "elsewhere", "resume": "there", "min-nodes": 2, "node-timeout": 3.0,
    "round-timeout": 4.0, "max-skipped-rounds": 9, "min-replies": 2, "clients-per-message": 1, "evaluate-every": 7,
    "federated-evaluate-every": 7, "federated-evaluate-clients": 3, "checkpoint-every": 5, "checkpoints-kept": 1,
    "checkpoint-share": 0.5,
    "budget-epsilon": 9.0, "prometheus-port": 9464, "mlflow-uri": "http://mlflow", "alert-participation": 0.5,
    "alert-rejected": 0.0, "alert-stagnation-rounds": 5, "alert-budget": 0.5, "alert-duration": 0.0, "alert-loss": 0.0,
    "alert-checkpoint": 0, "alert-absent": 0, "alert-certificates": "server.pem", "alert-certificate-days": 30,
    "alert-webhook": "url.txt",
}  # fmt: skip


def test_keys_that_may_change(tmp_path: Path) -> None:
    assert OTHER.keys() == MAY_CHANGE.keys() <= set(RunConfig.key_names())
    for key, value in OTHER.items():
        base: dict[str, Any] = {"strategy": "dp-fedavg"} if key == "budget-epsilon" else {}
        assert RunConfig.from_run_config({**base, key: value}) != RunConfig.from_run_config(base)
        refuse_changes(RunConfig.from_run_config(base), RunConfig.from_run_config({**base, key: value}))


def test_what_is_watched_may_change() -> None:
    changed = RunConfig.from_run_config({"alert-participation": 0.1, "prometheus-port": 9999})
    refuse_changes(RunConfig(), changed)


def test_all_others_may_not_and_each_is_named() -> None:
    before = RunConfig.from_run_config({"learning-rate": 0.1})
    with pytest.raises(UserError) as caught:
        refuse_changes(before, RunConfig.from_run_config({"seed": 4, "learning-rate": 0.3, "num-rounds": 77}))
    assert str(caught.value).splitlines() == [
        "The key 'seed' is 4, but the run to be resumed has 0: leave it so, or start a new run.",
        "The key 'learning-rate' is 0.3, but the run to be resumed has 0.1: leave it so, or start a new run.",
    ]


def test_a_run_whose_learning_rate_goes_by_its_length_keeps_it() -> None:
    cosine = {"lr-decay": "cosine"}
    with pytest.raises(UserError, match=r"The key 'num-rounds' is 60, but .* has 30, by which its learning rate or"):
        refuse_changes(RunConfig.from_run_config(cosine), RunConfig.from_run_config({**cosine, "num-rounds": 60}))
    step = {"lr-decay": "step"}
    refuse_changes(RunConfig.from_run_config(step), RunConfig.from_run_config({**step, "num-rounds": 60}))


def test_a_run_that_remembers_what_is_not_kept_is_not_gone_on_with() -> None:
    colluders = RunConfig.from_run_config({"strategy": "fedbuff", "attack": "alie"})
    with pytest.raises(UserError, match="A run of 'fedbuff' under the attack 'alie' cannot be resumed, as attackers"):
        refuse_changes(colluders, colluders)


def test_a_changed_config_leaves_the_directory_alone(tmp_path: Path) -> None:
    left = killed(tmp_path, SHORT, in_aggregation, in_round=2)
    before = contents(left)
    with pytest.raises(UserError, match="The key 'seed' is 1, but the run to be resumed has 0"):
        resumed(left, {**SHORT, "seed": 1})
    assert contents(left) == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "where there is no config.toml, and so no run: name the directory of a run, on the machine"),
        ("num-rounds = [", r"whose config.toml cannot be read \(.*\): name the directory of a run"),
        ("gone = 1\nno-such-key = 1", "has the keys gone, no-such-key: its run is of another version of this program"),
    ],
)
def test_a_directory_without_a_run_is_a_sentence(tmp_path: Path, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "config.toml").write_text(content)
    config = merged_config([f"resume={tmp_path}"], tmp_path, tmp_path) if "[" not in str(content) else None
    with pytest.raises(UserError, match=f"The key 'resume' is '{tmp_path}', .*{sentence}"):
        FederatedRun.of(config or RunConfig.from_run_config({"resume": str(tmp_path)}))


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"The key 'resume' is '{tmp_path / name}', where there is no folder: name the"):
        FederatedRun.of(RunConfig.from_run_config({"resume": str(tmp_path / name)}))


@pytest.mark.parametrize("content", ["{", "[1]", "3", ""])
@pytest.mark.parametrize("name", ["status.json", "versions.json"])
def test_a_file_that_somebody_has_damaged_is_a_sentence_that_helps(name: str, content: str, tmp_path: Path) -> None:
    left = killed(tmp_path, {**SHORT, "num-rounds": 1}, in_aggregation, in_round=1)
    file = left.directory.path / name
    file.write_text(content)
    with pytest.raises(UserError, match=rf"{name} cannot be read \(.*\): delete it, and the run can go on without\."):
        resumed(left, {**SHORT, "num-rounds": 1})
    file.unlink()
    assert resumed(left, {**SHORT, "num-rounds": 1}).json("status.json")["state"] == "completed"


def test_checkpoints_that_are_gone_are_a_warning_that_the_run_begins_anew(
    tmp_path: Path, whole: dict[str, Left], caplog: pytest.LogCaptureFixture
) -> None:
    changes = {**SHORT, **CASES["fedadam"]}
    left = killed(tmp_path, changes, in_aggregation, in_round=3)
    for file in left.directory.checkpoints.iterdir():
        file.unlink()
    check(resumed(left, changes), whole["fedadam"])
    assert f"No checkpoint is in {left.directory.checkpoints}: the run begins anew." in caplog.text


def test_on_the_command_line_the_runs_own_config_is_what_others_are_added_to(tmp_path: Path) -> None:
    own = RunConfig.from_run_config({"seed": 5, "num-rounds": 7, "learning-rate": 0.01})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(to_toml(own.to_run_config()))
    found = merged_config(["resume=run", "num-rounds=9"], tmp_path, tmp_path)
    assert found == own.model_copy(update={"num_rounds": 9, "resume": "run"})
    assert with_absolute_paths(found, tmp_path).resume == str(tmp_path / "run")
    # The server may be on another machine, whose directories are not to be seen from here.
    assert merged_config(["resume=/there/run", "seed=5"], tmp_path, tmp_path).num_rounds == 30


# Files of lines.


@pytest.mark.parametrize(
    ("text", "last", "left"),
    [
        ('{"round":0}\n{"round":1}\n{"round":2}\n', 1, '{"round":0}\n{"round":1}\n'),
        ('{"round":0}\n{"round":5}\n{"round":10}\n', 7, '{"round":0}\n{"round":5}\n'),
        ('{"round":0}\n{"round":1}\n', 5, '{"round":0}\n{"round":1}\n'),
        ('{"round":0}\n{"rou', 0, '{"round":0}\n'),
        ('{"round":0}\n{"round":1}', 1, '{"round":0}\n'),
        ('{"round":0}\n{"round":1}\n', -1, ""),
        ("", 3, ""),
    ],
)
def test_lines_of_later_rounds_are_forgotten(text: str, last: int, left: str, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(text)
    forget_rounds_after(last, file)
    assert file.read_text() == left
    forget_rounds_after(last, tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("line", ["{}", "[]", "no JSON", '{"round":"x"}', "null"])
def test_a_line_of_no_round_is_a_sentence_and_nothing_is_cut(line: str, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(text := f'{{"round":0}}\n{line}\n{{"round":2}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl has a line that tells of no round"):
        forget_rounds_after(1, file)
    assert file.read_text() == text


def test_a_report_is_written_of_the_whole_run(tmp_path: Path) -> None:
    left = killed(tmp_path, SHORT, in_aggregation, in_round=3)
    page = resumed(left, SHORT, output=Output()).directory.report.read_text()
    assert "<svg" in page
