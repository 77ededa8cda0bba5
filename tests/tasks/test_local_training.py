"""How many steps clients do and how many examples they go through, counted by hand and batch by batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.batches import batch_order
from tasks.errors import TaskError
from tasks.local_training import LocalTraining

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("local", "n", "steps"),
    [
        (LocalTraining(batch_size=10, epochs=3), 25, 9),
        (LocalTraining(batch_size=10, epochs=3), 1, 3),
        (LocalTraining(batch_size=100, epochs=2), 25, 2),
        (LocalTraining(batch_size=10, steps=4), 25, 4),
        (LocalTraining(batch_size=10, steps=4), 1000, 4),
        (LocalTraining(batch_size=10, epochs=10, full_training_examples=100), 200, 200),
        (LocalTraining(batch_size=10, epochs=10, full_training_examples=100), 50, 25),
        (LocalTraining(batch_size=10, epochs=10, full_training_examples=100), 1, 1),
        (LocalTraining(batch_size=10, steps=40, full_training_examples=100), 25, 10),
        (LocalTraining(batch_size=10, steps=40, full_training_examples=100), 1, 1),
    ],
)
def test_number_of_steps(local, n, steps):
    assert local.steps_for(n) == steps


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"batch_size": 0}, "batch-size=0 is too small: it must be at least 1"),
        ({"batch_size": 1, "epochs": 0}, "local-epochs=0"),
        ({"batch_size": 1, "steps": -1}, "local-steps=-1"),
        ({"batch_size": 1, "full_training_examples": -1}, "full-training-examples=-1"),
    ],
)
def test_wrong_settings_are_refused_by_name(arguments, sentence):
    with pytest.raises(TaskError, match=sentence):
        LocalTraining(**arguments)


@pytest.mark.parametrize(
    ("examples", "local", "expected"),
    [
        (45, LocalTraining(batch_size=20), 45),
        (45, LocalTraining(batch_size=20, epochs=3), 135),
        (40, LocalTraining(batch_size=20, steps=7), 140),
        (45, LocalTraining(batch_size=20, steps=6), 90),  # two epochs of 20 + 20 + 5
        (10, LocalTraining(batch_size=20, steps=4), 40),  # four batches, each of all there is
        (50, LocalTraining(batch_size=10, epochs=4, full_training_examples=100), 100),
        (10, LocalTraining(batch_size=10, epochs=4, full_training_examples=1000), 10),
        (200, LocalTraining(batch_size=10, epochs=4, full_training_examples=100), 800),
        (50, LocalTraining(batch_size=10, steps=8, full_training_examples=100), 40),
        (0, LocalTraining(batch_size=10), 0),
    ],
)
def test_the_examples_that_a_client_goes_through(examples, local, expected):
    assert local.examples_seen(examples) == expected


@pytest.mark.parametrize("keys", [{"epochs": 3}, {"epochs": 3, "full_training_examples": 64}])
def test_over_whole_epochs_they_are_those_of_the_batches_in_order(keys):
    local = LocalTraining(batch_size=8, **keys)
    for examples in (1, 7, 8, 9, 31, 32, 33, 64, 100):
        order, _ = batch_order(examples, 8, local.steps_for(examples), seed=0)
        assert local.examples_seen(examples) == len(order)


def test_steps_that_end_within_an_epoch_count_with_the_average_of_its_batches():
    local = LocalTraining(batch_size=8, steps=5)
    for examples in (1, 7, 8, 9, 31, 32, 33, 64, 100):
        assert local.examples_seen(examples) == pytest.approx(5 * examples / -(-examples // 8))


def test_a_simulated_world_knows_how_much_is_trained_without_tensorflow():
    script = "import sys, simulation.conditions; assert not {'tensorflow', 'keras'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
