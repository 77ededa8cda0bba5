"""What cannot go with DP-SGD, and what the app makes of its keys."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord

from app.client import Worker
from app.compose import local_training
from app.config import RunConfig
from app.errors import ConfigError
from strategies import wire
from tasks.dp_sgd import DpSgd


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"dp-sgd-noise-multiplier": 2.0}, "'dp-sgd-noise-multiplier' is 2.0, but does nothing with dp-sgd-clip 0"),
        ({"dp-sgd-delta": 1e-6}, "'dp-sgd-delta' is 1e-06, but does nothing with dp-sgd-clip 0"),
        ({"dp-sgd-microbatches": 4}, "'dp-sgd-microbatches' is 4, but does nothing with dp-sgd-clip 0"),
        ({"dp-sgd-clip": 1.0, "selection": "power-of-choice"}, "clients would tell their exact losses"),
        ({"dp-sgd-clip": 1.0, "strategy": "fedprox", "adaptive-mu": True}, "mu follows the training losses"),
        ({"dp-sgd-clip": -1.0}, "dp-sgd-clip"),
    ],
)
def test_what_makes_no_sense_is_refused(keys, sentence):
    with pytest.raises(ConfigError, match=sentence):
        RunConfig.from_run_config(keys)


def test_the_keys_reach_the_local_training():
    keys = {"dp-sgd-clip": 0.5, "dp-sgd-noise-multiplier": 0.0, "dp-sgd-microbatches": 4}
    assert local_training(RunConfig.from_run_config(keys)).dp_sgd == DpSgd(0.5, 0.0, 4)
    assert local_training(RunConfig.from_run_config({})).dp_sgd is None


def test_nobody_is_told_the_seed_of_a_deployed_client_s_noise():
    asked = ConfigRecord({wire.SEED: 17})
    private, plain = (RunConfig.from_run_config({"dp-sgd-clip": clip}) for clip in (1.0, 0.0))
    drawn = {Worker(private, None).seed(asked) for _ in range(100)}
    assert len(drawn) == 100
    assert min(drawn) >= 0
    assert max(drawn) > 2**100
    assert Worker(private, None, simulated=True).seed(asked) == Worker(plain, None).seed(asked) == 17
