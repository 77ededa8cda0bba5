"""Settings of DP-SGD, and its batches: who is drawn, where the rows lie, and what the seed decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tasks.data import Examples
from tasks.dp_sgd import DpSgd, NoisyBuffers, PoissonBatches
from tasks.errors import TaskError

HUGE = DpSgd(clip=1e6, noise_multiplier=0.0)


def numbered(n: int) -> Examples:
    """Examples that can be told apart."""
    return Examples(np.arange(1, n + 1, dtype=np.float32)[:, None], (np.arange(n) % 10).astype(np.int32))


def drawn(n: int, batch_size: int, steps: int, seed: int, dp_sgd: DpSgd = HUGE) -> tuple[PoissonBatches, NoisyBuffers]:
    batches = PoissonBatches(numbered(n), batch_size, steps, seed, dp_sgd)
    room = NoisyBuffers(
        np.full((steps, batches.rows, 1), np.nan, np.float32),
        np.full((steps, batches.rows), 99, np.int32),
        np.full((steps, 3), np.nan, np.float32),
        np.zeros(2, np.float32),
    )
    assert batches.fill(room) == steps
    return batches, room


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"clip": 0.0, "noise_multiplier": 1.0}, "dp-sgd-clip=0.0 is not allowed: it must be above 0, and finite"),
        ({"clip": math.inf, "noise_multiplier": 1.0}, "dp-sgd-clip=inf"),
        ({"clip": math.nan, "noise_multiplier": 1.0}, "dp-sgd-clip=nan"),
        ({"clip": 1.0, "noise_multiplier": -1.0}, "dp-sgd-noise-multiplier=-1.0 is not allowed: it must be at least 0"),
        ({"clip": 1.0, "noise_multiplier": math.nan}, "dp-sgd-noise-multiplier=nan"),
        ({"clip": 1.0, "noise_multiplier": 1.0, "microbatches": -1}, "dp-sgd-microbatches=-1 is too small"),
    ],
)
def test_wrong_settings_are_refused_by_name(arguments, sentence):
    with pytest.raises(TaskError, match=sentence):
        DpSgd(**arguments)


def check_sensitivity(dp_sgd):
    """Both bounds by hand; the one of microbatches is reached in the worst case."""
    assert (dp_sgd(0.5, 3.0).sensitivity, dp_sgd(0.5, 3.0).noise) == (0.5, 1.5)
    assert (dp_sgd(0.5, 3.0, 4).sensitivity, dp_sgd(0.5, 3.0, 4).noise) == (1.0, 3.0)
    for before, after in (([1.0, 0.0], [-1.0, 0.0]), ([3.0, 0.0], [-9.0, 0.0])):
        clipped = [np.array(mean) * 0.5 / np.linalg.norm(mean) for mean in (before, after)]
        assert np.linalg.norm(clipped[1] - clipped[0]) == dp_sgd(0.5, 3.0, 4).sensitivity


def test_an_example_in_a_microbatch_can_move_the_sum_twice_as_far():
    check_sensitivity(DpSgd)


def test_every_example_is_drawn_by_a_coin_toss_of_its_own():
    n, batch_size, steps = 40, 10, 10_000
    _, room = drawn(n, batch_size, steps, seed=3)
    taken = np.zeros((steps, n), bool)
    step, row = np.nonzero(room.y >= 0)
    np.add.at(taken, (step, room.x[step, row, 0].astype(int) - 1), 1)
    assert taken.sum() == (room.y >= 0).sum()  # nobody twice in a batch
    assert stats.binomtest(int(taken.sum()), steps * n, batch_size / n).pvalue > 1e-4
    sizes = np.bincount(taken.sum(1), minlength=n + 1)
    expected = steps * stats.binom(n, batch_size / n).pmf(np.arange(n + 1))
    common = expected > 20
    assert stats.chisquare(
        [*sizes[common], sizes[~common].sum()], [*expected[common], expected[~common].sum()]
    ).pvalue > 1e-4  # fmt: skip
    correlations = np.corrcoef(taken.T) - np.eye(n)  # of 780 pairs; and of each with itself, a step later
    assert np.abs(correlations).max() < 6 / math.sqrt(steps)  # p < 2e-6
    later = [np.corrcoef(taken[1:, i], taken[:-1, i])[0, 1] for i in range(n)]
    assert np.abs(later).max() < 6 / math.sqrt(steps)


def test_rows_hold_their_examples_and_the_rest_is_marked():
    batches, room = drawn(50, 10, 30, seed=1)
    for x, y in zip(room.x[..., 0], room.y, strict=True):
        held = y >= 0
        assert (np.diff(held.astype(int)) <= 0).all()  # examples first
        np.testing.assert_array_equal(y[held], (x[held].astype(int) - 1) % 10)
        assert (x[~held] == 1).all()
    assert batches.seen == (room.y >= 0).sum()
    assert room.averaged.tolist() == [1, 10]


@pytest.mark.parametrize("n", [1, 3, 10])
def test_clients_no_larger_than_a_batch_train_on_all_they_have(n):
    batches, room = drawn(n, 10, 5, seed=1)
    assert (room.y >= 0).sum(1).tolist() == [n] * 5
    assert (batches.seen, room.averaged.tolist()) == (5 * n, [1, n])


def test_microbatches_are_dealt_to_by_chance_and_have_equal_room():
    _, room = drawn(40, 12, 5000, seed=2, dp_sgd=DpSgd(1.0, 1.0, microbatches=3))
    held = room.y.reshape(5000, -1, 3) >= 0  # they take turns
    assert (np.diff(held.astype(int), axis=1) <= 0).all()
    sizes = held.sum(1)
    assert stats.chisquare(sizes.sum(0)).pvalue > 1e-4
    share = stats.binom(40, 0.3 / 3)
    assert (sizes == 0).mean() == pytest.approx(share.pmf(0), abs=5 * math.sqrt(share.pmf(0) / 15_000))
    assert room.averaged.tolist() == [0.25, 3]


@pytest.mark.parametrize(("n", "batch_size"), [(1000, 256), (60_000, 256), (100, 20), (1000, 1), (500, 3)])
def test_there_are_few_widths_to_compile(n, batch_size):
    widths = {PoissonBatches(numbered(n), batch_size, 20, seed, HUGE).rows for seed in range(40)}
    assert len(widths) <= 5
    assert max(widths) <= 2 * batch_size + 8


def test_batches_and_noise_come_from_the_seed_alone_however_they_are_asked_for():
    whole, parts = (PoissonBatches(numbered(30), 6, 7, 5, HUGE) for _ in range(2))

    def room(steps: int) -> NoisyBuffers:
        rows = whole.rows
        x, y = np.zeros((steps, rows, 1), np.float32), np.zeros((steps, rows), np.int32)
        return NoisyBuffers(x, y, np.zeros((steps, 4), np.float32), np.zeros(2, np.float32))

    once, thrice = room(7), [room(3) for _ in range(3)]
    assert whole.fill(once) == 7
    assert [parts.fill(part) for part in thrice] == [3, 3, 1]
    for name in ("x", "y", "noise"):
        joined = np.concatenate([getattr(part, name) for part in thrice])[:7]
        np.testing.assert_array_equal(getattr(once, name), joined)
    assert parts.seen == whole.seen
    again = room(7)
    PoissonBatches(numbered(30), 6, 7, 6, HUGE).fill(again)
    assert (again.noise != once.noise).all()
