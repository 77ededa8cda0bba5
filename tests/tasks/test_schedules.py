import math

import pytest

from tasks.errors import TaskError
from tasks.schedules import LearningRate


def test_constant_by_default():
    assert [LearningRate(0.1).at(r) for r in (1, 2, 1000)] == [0.1, 0.1, 0.1]


def test_warmup_is_linear_and_full_in_the_round_after_it():
    rates = [LearningRate(1.0, warmup_rounds=3).at(r) for r in range(1, 7)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_exponential():
    schedule = LearningRate(0.8, decay="exponential", decay_rate=0.5)
    assert [schedule.at(r) for r in (1, 2, 3)] == pytest.approx([0.8, 0.4, 0.2])
    slow = LearningRate(0.8, decay="exponential", decay_rate=0.25, decay_rounds=4)
    assert slow.at(3) == pytest.approx(0.4)


def test_step():
    schedule = LearningRate(1.0, decay="step", decay_rate=0.1, decay_rounds=2)
    assert [schedule.at(r) for r in (1, 2, 3, 4, 5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_cosine_falls_to_the_rate_and_stays_there():
    schedule = LearningRate(2.0, decay="cosine", decay_rate=0.1, decay_rounds=10)
    assert schedule.at(1) == 2.0
    assert schedule.at(6) == pytest.approx((2.0 + 0.2) / 2)
    assert schedule.at(3) == pytest.approx(0.2 + 1.8 * (1 + math.cos(math.pi * 0.2)) / 2)
    assert schedule.at(11) == schedule.at(500) == pytest.approx(0.2)


def test_cosine_may_end_at_zero():
    assert LearningRate(1.0, decay="cosine", decay_rate=0.0, decay_rounds=3).at(4) == pytest.approx(0.0)


@pytest.mark.parametrize("decay", ["exponential", "step", "cosine"])
def test_decay_starts_after_the_warmup(decay):
    plain = LearningRate(1.0, 0, decay, 0.5, 4)
    warmed = LearningRate(1.0, 5, decay, 0.5, 4)
    assert [warmed.at(r + 5) for r in range(1, 9)] == [plain.at(r) for r in range(1, 9)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"base": 0.0}, "learning-rate=0.0"),
        ({"base": math.nan}, "learning-rate=nan"),
        ({"base": math.inf}, "learning-rate=inf"),
        ({"base": 0.1, "warmup_rounds": -1}, "lr-warmup-rounds=-1"),
        ({"base": 0.1, "decay": "cosin"}, r"lr-decay='cosin' is not known \(did you mean 'cosine'\?\)"),
        ({"base": 0.1, "decay": "exponential", "decay_rate": 0.0}, "lr-decay-rate=0.0"),
        ({"base": 0.1, "decay_rate": 1.5}, "lr-decay-rate=1.5"),
        ({"base": 0.1, "decay_rate": math.nan}, "lr-decay-rate=nan"),
        ({"base": 0.1, "decay": "step", "decay_rounds": 0}, "lr-decay-rounds=0"),
    ],
)
def test_wrong_settings_are_refused_by_name(arguments, sentence):
    with pytest.raises(TaskError, match=sentence):
        LearningRate(**arguments)
