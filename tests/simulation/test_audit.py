"""Audited runs of the real app: canaries are clients like others, on every engine, and what is found is told."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from app import plain_json
from app.config import RunConfig
from app.errors import ConfigError, UserError
from app.federated_run import FederatedRun
from app.journals import EveryFew
from app.output import Output
from app.run_directory import RunDirectory
from app.world_keys import refuse_world
from simulation import cli
from simulation.audit import auditor
from simulation.audit.canary_client import app, canaries_of, clients_and_canaries
from simulation.audit.command import judged
from simulation.audit.outcome import Outcome
from simulation.inline import InlineGrid
from simulation.simulate import LINES, ONE_OF_MANY, Simulation
from strategies.privacy.accounting import Epsilons
from strategies.privacy.audit import Finding
from tests.app.inline_runs import SMALL, Left, latest
from tests.app.test_resume import Killed, before_the_checkpoint, in_aggregation
from tests.simulation.engines import warm_runs

AUDITED: dict[str, Any] = {
    **SMALL,
    "strategy": "dp-fedavg",
    "noise-multiplier": 1.0,
    "clients-per-round": 5,
    "canaries": 20,
    "federated-evaluate-every": 0,
    "checkpoint-share": 1.0,
}


def audit(folder: Path, nodes: int = 1, output: Output = ONE_OF_MANY, **changes: Any) -> Left:
    """Run to the end with canaries, inline; a page takes a second."""
    keys = {key.replace("_", "-"): value for key, value in changes.items()}
    config = RunConfig.from_run_config({**AUDITED, **keys, "runs-dir": str(folder)})
    run = FederatedRun.of(config, output=output)
    auditor.audit(run)
    run.run(InlineGrid.of(app, nodes, config.to_run_config()))
    return Left(run.directory)


def test_canaries_are_clients_like_others_and_what_they_prove_is_written_down(tmp_path: Path) -> None:
    left = audit(tmp_path, output=LINES)
    population = left.json("population.json")
    assert [name for name in population["clients"] if name.startswith("canary-")] == list(
        canaries_of(RunConfig.from_run_config(AUDITED)).ids
    )
    told = left.json("audit.json")
    assert (told["canaries"], told["rounds"], told["delta"], told["confidence"]) == (20, 2, 1e-5, 0.95)
    assert told["weights"] == sum(array.size for array in left.model().get_weights())
    accounted = left.records()[-1]["privacy"]["epsilon"]
    outcome = Outcome.of_json(told)
    assert outcome.promised is not None and outcome.promised.tightest == pytest.approx(accounted)
    assert 0 <= outcome.bound <= accounted and not outcome.broken
    assert f"Audit: {outcome.sentence()}" in html.unescape(left.directory.report.read_text())


@pytest.mark.parametrize("hook", [in_aggregation, before_the_checkpoint])
def test_a_killed_run_that_goes_on_proves_what_it_would_have(hook: Callable[..., None], tmp_path: Path) -> None:
    """Also as a run that is made longer once it has ended."""
    (tmp_path / "whole").mkdir()
    whole = audit(tmp_path / "whole", num_rounds=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FederatedRun, "_close", lambda *_: None)
        patch.setattr(EveryFew, "close", lambda _: None)
        hook(patch, 2)
        with pytest.raises(Killed):
            audit(tmp_path, num_rounds=4)
    left = latest(tmp_path)
    for num_rounds in (3, 4):
        audit(tmp_path, num_rounds=num_rounds, resume=str(left.directory.path))
    assert left.json("status.json")["resumed-after"] == [1, 3]
    assert left.digest() == whole.digest()
    assert left.json("audit.json") == whole.json("audit.json") and whole.json("audit.json")["rounds"] > 2


def test_the_rate_that_is_accounted_counts_canaries_as_clients(tmp_path: Path) -> None:
    """5 of 26 and not of 6: one round by hand."""
    import dp_accounting as dp

    left = audit(tmp_path, num_rounds=1)
    accountant = dp.rdp.RdpAccountant()
    accountant.compose(dp.PoissonSampledDpEvent(5 / 26, dp.GaussianDpEvent(1.0)))
    assert left.json("audit.json")["promised"]["rdp"] == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-6)


def test_packing_and_nodes_change_no_bit(tmp_path: Path) -> None:
    one, other = audit(tmp_path / "a"), audit(tmp_path / "b", nodes=3, clients_per_message=1)
    assert one.digest() == other.digest() and one.json("audit.json") == other.json("audit.json")


def test_without_privacy_nothing_is_promised_and_clients_evaluate_as_ever(tmp_path: Path) -> None:
    left = audit(tmp_path, strategy="fedavg", noise_multiplier=0.5, federated_evaluate_every=1)
    outcome = Outcome.of_json(left.json("audit.json"))
    assert outcome.promised is None and not outcome.broken
    assert "No privacy was promised" in outcome.sentence()
    assert left.records()[-1]["federated"]["accuracy"] > 0  # of those that have test examples


@pytest.mark.parametrize("strategy", ["dp-fedavg", "dp-fedavg-adaptive", "dp-ftrl", "dp-mf", "local-dp", "fednova"])
def test_every_mechanism_can_be_audited(tmp_path: Path, strategy: str) -> None:
    noise = {} if strategy == "fednova" else {"noise_multiplier": 0.3}
    keys = {"noise_multiplier": 0.5, "num_rounds": 3, **noise}
    outcome = Outcome.of_json(audit(tmp_path, strategy=strategy, **keys).json("audit.json"))
    assert (outcome.promised is None) == (strategy == "fednova") and not outcome.broken


def test_without_noise_the_canaries_sing(tmp_path: Path) -> None:
    outcome = Outcome.of_json(audit(tmp_path, noise_multiplier=0.0, num_rounds=8).json("audit.json"))
    assert outcome.promised == Epsilons(math.inf, None)
    assert outcome.bound > 3 and outcome.all_models.estimate > 10 and "No privacy" in outcome.sentence()


SENTENCES: dict[str, tuple[Mapping[str, Any], str]] = {
    "too few": ({"canaries": 9}, "The key 'canaries' is 9, but so few prove nothing"),
    "attackers": ({"attack": "gaussian"}, "The keys 'canaries' (20) and 'attack' ('gaussian') exclude each other"),
    "scaffold": (
        {"strategy": "scaffold", "noise-multiplier": 0.5},
        "The key 'canaries' is 20, but with 'strategy' 'scaffold'",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_what_cannot_be_audited_is_refused(case: str) -> None:
    changes, sentence = SENTENCES[case]
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_run_config({**AUDITED, **changes})
    assert str(caught.value).startswith(sentence)


def test_only_a_simulation_of_ours_has_canaries() -> None:
    with pytest.raises(
        ConfigError, match="Only 'fedkeras simulate' has canaries, but the run sets 'canaries' \\(20\\)"
    ):
        refuse_world(RunConfig.from_run_config(AUDITED))


def test_a_client_that_is_called_like_a_canary_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.npz"
    clients = np.array(["canary-000003", "b"] * 10)
    np.savez(file, x=np.zeros((20, 4, 4, 1), np.float32), y=np.arange(20) % 2, client=clients)
    config = RunConfig.from_run_config(
        {**AUDITED, "dataset": f"npz:{file}", "partition": "natural", "clients-per-round": 2}
    )
    with pytest.raises(UserError, match="has a client 'canary-000003', as canaries are called"):
        canaries_of(config)


def test_the_noise_of_a_larger_cohort_is_not_audited() -> None:
    config = RunConfig.from_run_config({**AUDITED, "noise-cohort-size": 500})
    with pytest.raises(UserError, match="leave 'noise-cohort-size' at 0, or 'canaries'"):
        Simulation(engine="inline").grid(config)


def test_a_canary_is_as_large_as_the_average_client_and_has_no_data() -> None:
    config = RunConfig.from_run_config(AUDITED)
    hosted = clients_and_canaries(config, {"partition-id": 0, "num-partitions": 1})
    counts = {client.id: client.num_examples for client in hosted.clients()}
    others = [count for name, count in counts.items() if not name.startswith("canary-") and count is not None]
    assert counts["canary-000000"] == round(sum(others) / len(others))
    assert len(hosted.train("canary-000000")) == len(hosted.test("canary-000000")) == 0
    assert len(hosted.train("0")) > 0


OUTCOME = Outcome(100, 650, 10, 1e-5, 0.95, Epsilons(5.756, 4.984), Finding(2.397, 0.0), Finding(3.96, 0.512))


def test_an_outcome_says_what_it_means() -> None:
    assert OUTCOME.sentence() == (
        "Nothing contradicts the epsilon of 4.984 that was accounted: the canaries prove an epsilon of at least 0.512 "
        "(95 % confidence, delta 1e-05). That it is not more, no audit proves."
    )
    nothing = replace(OUTCOME, all_models=Finding(3.96, 0.0))
    assert "accounted: the canaries prove no epsilon above 0 (95 % confidence, delta 1e-05)." in nothing.sentence()
    broken = replace(OUTCOME, final_model=Finding(9.0, 5.3))
    assert broken.broken and broken.sentence().startswith("The promise is broken: the canaries prove an epsilon of at")
    by_rdp_alone = replace(broken, promised=Epsilons(5.756, None))
    assert not by_rdp_alone.broken


@pytest.mark.parametrize("promised", [Epsilons(5.756, 4.984), Epsilons(math.inf, None), None])
def test_an_outcome_travels_as_json(promised: Epsilons | None) -> None:
    outcome = replace(OUTCOME, promised=promised, final_model=Finding(math.inf, 34.5))
    assert Outcome.of_json(json.loads(plain_json.dumps(outcome.to_json()))) == outcome


@pytest.mark.parametrize(("bound", "code"), [(4.0, 0), (5.0, 1)])
def test_a_broken_promise_is_the_exit_code(
    tmp_path: Path, bound: float, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = RunDirectory(tmp_path)
    directory.write_audit(replace(OUTCOME, all_models=Finding(3.96, bound)).to_json())
    config = RunConfig.from_run_config(AUDITED)
    assert judged(FederatedRun(config, directory)) == code
    shown = capsys.readouterr().out
    assert "the final model" in shown and "5.756" in shown and "4.984" in shown


def test_the_command_takes_its_canaries_and_refuses_too_few() -> None:
    done = CliRunner().invoke(
        cli.commands, ["audit", "--canaries", "3", "--engine", "inline", "-c", "strategy=dp-fedavg"]
    )
    assert isinstance(done.exception, UserError) and "The key 'canaries' is 3" in str(done.exception)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_and_inline_give_one_model_and_one_audit(tmp_path: Path) -> None:
    configs = [{**AUDITED, "node-timeout": 30.0}]
    left = [
        Left(RunDirectory(Path(warm_runs(tmp_path / engine, engine, configs)[0][0]))) for engine in ("ray", "inline")
    ]
    assert left[0].digest() == left[1].digest() and left[0].json("audit.json") == left[1].json("audit.json")
