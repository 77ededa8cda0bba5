"""The client's handlers: what of a request reaches the trainer, and what of its result the reply (no TensorFlow)."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

import app.client
from strategies import wire

CONTEXT = Context(1, 1, {}, RecordDict(), {})
START = {"kernel": np.ones((2, 2), np.float32), "bias": np.zeros(2, np.float32)}


@dataclass
class FakeTrainer:
    """Adds one to all weights and takes down what it was called with."""

    calls: list[dict[str, object]] = field(default_factory=list)

    def train(
        self, weights: list[np.ndarray], data: str, learning_rate: float, seed: int, share: float = 1.0
    ) -> SimpleNamespace:
        self.calls.append({"data": data, "rate": learning_rate, "seed": seed, "share": share})
        assert not any(array.flags.writeable for array in weights)
        return SimpleNamespace(weights=[array + 1 for array in weights], num_examples=10, loss=0.5, accuracy=0.25)

    def evaluate(self, weights: list[np.ndarray], data: str) -> SimpleNamespace:
        self.calls.append({"data": data})
        return SimpleNamespace(num_examples=4, loss=float(sum(array.sum() for array in weights)), accuracy=1.0)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> FakeTrainer:
    fake = FakeTrainer()
    hosted = SimpleNamespace(train=lambda client: f"train {client}", test=lambda client: f"test {client}")
    worker = SimpleNamespace(hosted=hosted, task=SimpleNamespace(trainer=fake))
    monkeypatch.setattr(app.client, "_worker", lambda context: worker)
    monkeypatch.setattr(app.client, "_one_thread", lambda: None)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # which Flower's messages ask for
    return fake


def ask(kind: str, **settings: object) -> RecordDict:
    config = ConfigRecord({"clients": ["a", "b"], "seeds": [7, 8], "learning-rate": 0.1, **settings})  # type: ignore[dict-item]
    message = Message(RecordDict({"arrays": wire.array_record(START), "config": config}), 1, kind)
    return app.client.app(message, CONTEXT).content


def test_each_client_trains_on_its_data_with_its_seed_and_all_of_its_steps(trainer: FakeTrainer) -> None:
    content = ask("train")
    assert trainer.calls == [
        {"data": "train a", "rate": 0.1, "seed": 7, "share": 1.0},
        {"data": "train b", "rate": 0.1, "seed": 8, "share": 1.0},
    ]
    for name in ("0/delta", "1/delta"):
        assert wire.decode(content["update"][name]).tolist() == [1.0] * 6
    assert dict(content["metrics"]) == {"accuracy": [0.25] * 2, "loss": [0.5] * 2, "num-examples": [10.0] * 2}


def test_each_client_does_its_share_of_the_steps(trainer: FakeTrainer) -> None:
    ask("train", shares=[0.5, 1.0])
    assert [call["share"] for call in trainer.calls] == [0.5, 1.0]


def test_each_client_evaluates_the_global_weights_on_its_test_part(trainer: FakeTrainer) -> None:
    content = ask("evaluate")
    assert [call["data"] for call in trainer.calls] == ["test a", "test b"]
    assert dict(content["metrics"])["loss"] == [4.0, 4.0]
    assert "arrays" not in content and not content["update"]
