"""Stragglers as the FedProx paper simulates them: so many of a round's clients do 1, ..., E - 1 of their E epochs."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from app.config import RunConfig
from simulation.conditions import Conditions
from simulation.inline import InlineGrid
from strategies.errors import StrategyError
from tasks.local_training import LocalTraining
from tests.simulation.test_world import recording_app
from tests.simulation.worlds import A_SECOND_FOR_TEN, conditions, run, told, world
from tests.strategies import toy_federation as toy

EPOCHS = 20
ALMOST_IMPOSSIBLE = 1e-6


def parts(seeds: np.ndarray, share: float, training: LocalTraining) -> np.ndarray:
    """What part of its training each client of a round gets done."""
    given = conditions(training=training, straggler_share=share)
    clients = [str(number) for number in range(len(seeds))]
    return given.work(clients, seeds.astype(np.uint64), np.full(len(seeds), 10.0), 1.0, 0.0).done


def seeds_of(round: int, clients: int) -> np.ndarray:
    return np.random.default_rng(round).integers(2**62, size=clients)


@pytest.mark.parametrize(("share", "stragglers"), [(0.0, 0), (0.5, 5), (0.9, 9), (0.94, 9), (0.96, 10), (1.0, 10)])
def test_so_many_of_every_round_are_stragglers(share: float, stragglers: int) -> None:
    for round in range(20):
        done = parts(seeds_of(round, 10), share, LocalTraining(10, epochs=EPOCHS))
        assert ((done < 1).sum(), (done > 0).all()) == (stragglers, True)


def test_everybody_is_a_straggler_as_often_and_every_number_of_epochs_as_likely() -> None:
    """Chi-squared over 10 clients and 19 numbers of epochs in 3,000 rounds; each errs once in a million."""
    chosen, epochs = np.zeros(10), np.zeros(EPOCHS - 1)
    for round in range(3000):
        done = parts(seeds_of(round, 10), 0.5, LocalTraining(10, epochs=EPOCHS))
        chosen += done < 1
        np.add.at(epochs, np.rint(done[done < 1] * EPOCHS).astype(int) - 1, 1)
    # Of five in ten without replacement the counts vary by half of what independent ones would: 2 * chi2.
    assert stats.chi2(9).sf(2 * ((chosen - 1500) ** 2 / 1500).sum() * 9 / 10) > ALMOST_IMPOSSIBLE
    assert stats.chisquare(epochs).pvalue > ALMOST_IMPOSSIBLE


@pytest.mark.parametrize("whole", [2, 3, 7, 20, 49, 1000])
def test_a_part_is_whole_epochs_whatever_the_number_of_steps(whole: int) -> None:
    """Local training rounds the share of its steps down: no step of the last epoch may be lost to that."""
    done = parts(seeds_of(whole, 500), 1.0, LocalTraining(10, epochs=whole))
    for part in done.tolist():
        for steps_per_epoch in (1, 6, 137, 99_991):
            assert math.floor(whole * steps_per_epoch * part) % steps_per_epoch == 0


def test_with_local_steps_a_part_is_so_many_steps() -> None:
    done = parts(seeds_of(0, 300), 1.0, LocalTraining(10, steps=4))
    assert {math.floor(4 * part) for part in done.tolist()} == {1, 2, 3}


def test_whether_one_is_a_straggler_depends_on_its_seed_and_not_on_its_place() -> None:
    seeds, training = seeds_of(3, 10), LocalTraining(10, epochs=EPOCHS)
    order = np.random.default_rng(0).permutation(10)
    assert (parts(seeds, 0.5, training)[order] == parts(seeds[order], 0.5, training)).all()


@pytest.mark.parametrize("clients_per_message", [0, 1, 4])
def test_dropped_stragglers_are_late_and_do_not_train(clients_per_message: int) -> None:
    seen: dict[tuple[int, str], int] = {}
    given = conditions(training=LocalTraining(10, epochs=EPOCHS), straggler_share=0.5)
    _, records = run(world(given, toy.app(seen=seen)), clients_per_message=clients_per_message)
    assert [record.rejected for record in records] == [{"late": 3}, {"late": 3}]
    assert sorted(seen) == sorted((record.round, client) for record in records for client in record.accepted)
    assert records[0].accepted != records[1].accepted


def test_the_reason_is_told() -> None:
    given = conditions(training=LocalTraining(10, epochs=2), straggler_share=1.0)
    with pytest.raises(StrategyError, match=r"50% of its training is done when it should send \('straggler-share'\)"):
        run(world(given), rounds=5)


def test_kept_stragglers_send_what_they_have_done_and_take_their_time() -> None:
    shares: dict[str, object] = {}
    training = LocalTraining(10, epochs=EPOCHS)
    given = conditions(devices=A_SECOND_FOR_TEN, training=training, straggler_share=0.5, partial=True)
    _, (record,) = run(world(given, recording_app(shares), nodes=1, grid=InlineGrid), rounds=1)
    assert (record.rejected, len(record.accepted)) == ({}, 6)
    assert record.simulated_seconds == pytest.approx(6 * EPOCHS)
    epochs = Counter(round(share * EPOCHS) for share in shares.values())  # type: ignore[operator]
    assert epochs[EPOCHS] == 3 and epochs.total() == 6
    assert all(share * EPOCHS == pytest.approx(round(share * EPOCHS)) for share in shares.values())  # type: ignore[operator]


def test_who_is_a_straggler_does_not_depend_on_packing_or_on_what_becomes_of_them() -> None:
    training = LocalTraining(10, epochs=EPOCHS)
    dropping = conditions(training=training, straggler_share=0.5)
    keeping = conditions(training=training, straggler_share=0.5, partial=True)
    one, several = (told(run(world(dropping), clients_per_message=pack)[1]) for pack in (1, 4))
    assert one == several
    kept = told(run(world(keeping))[1])
    assert [row[0] for row in kept] == [row[0] for row in one]  # the same clients are asked
    assert all(len(row[1]) == 6 for row in kept)


def test_the_keys_are_read() -> None:
    made = Conditions.of(RunConfig.from_run_config({"straggler-share": 0.9, "stragglers": "partial"}))
    assert (made.straggler_share, made.partial, made.training.epochs) == (0.9, True, 5)
