"""Client selection in the app as a whole: losses are those of the Keras model on what a client trains on."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from app.config import RunConfig
from app.hosting import hosted_clients
from strategies.records import RoundRecord
from tests.app.inline_runs import SMALL, start

POWER: dict[str, Any] = {**SMALL, "selection": "power-of-choice", "power-of-choice-candidates": 6}


def highest_losses(model: keras.Model, count: int) -> tuple[str, ...]:
    """The clients on whose training examples the model is worst, by Keras' own cross-entropy."""
    hosted = hosted_clients(RunConfig.from_run_config(POWER), {"partition-id": 0, "num-partitions": 1})
    losses = {}
    for client in hosted.names:
        data = hosted.train(client)
        logits = model.predict(data.x, verbose=0)
        each = keras.losses.sparse_categorical_crossentropy(data.y, logits, from_logits=not is_probability(logits))
        losses[client] = float(np.mean(each))
    assert len({round(loss, 3) for loss in losses.values()}) == len(losses)  # no ties that rounding could turn
    return tuple(sorted(sorted(losses, key=lambda client: -losses[client])[:count]))


def is_probability(rows: np.ndarray) -> bool:
    return bool(np.allclose(rows.sum(axis=1), 1, atol=1e-4) and (rows >= 0).all())


def test_power_of_choice_trains_the_clients_on_whose_training_examples_the_model_is_worst(tmp_path: Path) -> None:
    after_one_round = start(tmp_path / "one", {**POWER, "num-rounds": 1}).model()
    records: list[RoundRecord] = []
    left = start(tmp_path / "two", POWER, nodes=2, observers=[records.append])
    assert records[2].selected == highest_losses(after_one_round, 3)
    line = left.records()[2]
    assert line["seconds"]["select"] > 0 and line["banned"] == 0
