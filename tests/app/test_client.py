"""The client's handlers: what of a request reaches the trainer, and what of its result the reply (no TensorFlow)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.supercore.task_identity import TaskIdentity

import app.client
from app.config import RunConfig
from app.hosting import hosted_clients
from strategies import wire
from tasks.data import Stream
from tasks.errors import TaskError

CONTEXT = Context(1, 1, {}, RecordDict(), {})
START = {"kernel": np.ones((2, 2), np.float32), "bias": np.zeros(2, np.float32)}


@dataclass
class FakeTrainer:
    """Adds the seed to all weights and takes down what it was called with."""

    calls: list[dict[str, object]] = field(default_factory=list)
    groups: list[list[str]] = field(default_factory=list)
    most_together: int = 32

    def train_together(
        self,
        weights: list[np.ndarray],
        data: Sequence[str],
        learning_rate: float,
        seeds: Sequence[int],
        shares: Sequence[float],
        mu: float,
        correction: Sequence[np.ndarray],
    ) -> list[SimpleNamespace]:
        assert not any(array.flags.writeable for array in weights)
        if len(data) > 1 and "train unfit" in data:
            raise TaskError("one of them does not fit")
        self.groups.append(list(data))
        for each, seed, share in zip(data, seeds, shares, strict=True):
            if each == "train unfit":
                raise TaskError("it does not fit")
            own = {"data": each, "rate": learning_rate, "seed": seed, "share": share, "mu": mu}
            self.calls.append({**own, "correction": [float(array.flat[0]) for array in correction]})
        result = SimpleNamespace(num_examples=10, loss=0.5, accuracy=0.25, steps=3)
        return [SimpleNamespace(weights=[array + seed for array in weights], **vars(result)) for seed in seeds]

    def evaluate(self, weights: list[np.ndarray], data: str) -> SimpleNamespace:
        self.calls.append({"data": data})
        return SimpleNamespace(num_examples=4, loss=float(sum(array.sum() for array in weights)), accuracy=1.0)


def worker_with(trainer: FakeTrainer, **keys: object) -> app.client.Worker:
    def train(client: str) -> str:
        if client == "unknown":
            raise KeyError(client)
        return f"train {client}"

    hosted = SimpleNamespace(train=train, test=lambda client: f"test {client}")
    worker = app.client.Worker(RunConfig.from_run_config(keys), hosted)  # type: ignore[arg-type]
    vars(worker)["task"] = SimpleNamespace(trainer=trainer)
    return worker


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> FakeTrainer:
    fake = FakeTrainer()
    worker = worker_with(fake)
    monkeypatch.setattr(app.client, "_worker", lambda context, hosting: worker)
    monkeypatch.setattr(app.client, "_one_thread", lambda: None)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # which Flower's messages ask for
    return fake


def ask(kind: str, **settings: object) -> RecordDict:
    config = ConfigRecord({"clients": ["a", "b"], "seeds": [7, 8], "learning-rate": 0.1, **settings})  # type: ignore[dict-item]
    message = Message(RecordDict({"arrays": wire.array_record(START), "config": config}), 1, kind)
    return app.client.app(message, CONTEXT).content


def test_each_client_trains_on_its_data_with_its_seed_and_all_of_its_steps(trainer: FakeTrainer) -> None:
    content = ask("train")
    plain = {"rate": 0.1, "share": 1.0, "mu": 0.0, "correction": []}
    assert trainer.calls == [{"data": "train a", "seed": 7, **plain}, {"data": "train b", "seed": 8, **plain}]
    for name, seed in (("0/delta", 7.0), ("1/delta", 8.0)):
        assert wire.decode(content["update"][name]).tolist() == [seed] * 6
    assert trainer.groups == [["train a", "train b"]]
    numbers = {"accuracy": [0.25] * 2, "loss": [0.5] * 2, "num-examples": [10.0] * 2, "steps": [3.0] * 2}
    assert dict(content["metrics"]) == numbers


def test_where_examples_are_private_no_loss_is_told_and_the_servers_seed_not_used(
    trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_with(trainer, **{"dp-sgd-clip": 1.0})
    monkeypatch.setattr(app.client, "_worker", lambda context, hosting: worker)
    content = ask("train")
    told = content[wire.METRICS]
    assert {"loss", "accuracy"}.isdisjoint(told)
    assert wire.NUM_EXAMPLES in told
    assert not {7, 8} & {call["seed"] for call in trainer.calls}


def test_each_client_does_its_share_of_the_steps(trainer: FakeTrainer) -> None:
    ask("train", shares=[0.5, 1.0])
    assert [call["share"] for call in trainer.calls] == [0.5, 1.0]


def test_each_client_evaluates_the_global_weights_on_its_test_part(trainer: FakeTrainer) -> None:
    content = ask("evaluate")
    assert [call["data"] for call in trainer.calls] == ["test a", "test b"]
    assert dict(content["metrics"]) == {"accuracy": [1.0] * 2, "loss": [4.0] * 2, "num-examples": [4.0] * 2}
    assert "arrays" not in content and not content["update"]


def test_each_client_evaluates_on_what_it_trains_on_where_the_server_asks_so(trainer: FakeTrainer) -> None:
    ask("evaluate", **{"data-part": "train"})
    assert [call["data"] for call in trainer.calls] == ["train a", "train b"]


def pack(clients: list[str]) -> dict[str, object]:
    return {"clients": clients, "seeds": list(range(1, len(clients) + 1))}


def deltas(content: RecordDict) -> dict[str, float]:
    clients = wire.text_list(content["pack"], "clients")
    return {clients[int(name.split("/")[0])]: float(array.numpy()[0]) for name, array in content["update"].items()}


def test_the_clients_of_a_message_train_together_as_many_as_the_trainer_likes(trainer: FakeTrainer) -> None:
    clients = [f"c{number}" for number in range(70)]
    content = ask("train", **pack(clients), shares=[0.5] + [1.0] * 69)
    assert [len(group) for group in trainer.groups] == [32, 32, 6]
    assert [call["data"] for call in trainer.calls] == [f"train {client}" for client in clients]
    assert [call["share"] for call in trainer.calls[:2]] == [0.5, 1.0]
    assert deltas(content) == {client: seed for seed, client in enumerate(clients, 1)}
    trainer.most_together = 1
    ask("train", **pack(clients))
    assert len(trainer.calls) == 140  # nothing is kept from message to message
    assert [len(group) for group in trainer.groups[3:]] == [1] * 70


def test_streams_are_opened_one_after_the_other(trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Silo(Stream):
        def __len__(self) -> int:
            return 10

        def batches(self, batch_size: int, *, seed: int | None, epochs: int) -> object:  # type: ignore[override]
            raise AssertionError("the fake trainer reads nothing")

    def train(client: str) -> Silo:
        opened.append(client)
        return Silo()

    worker = worker_with(trainer)
    monkeypatch.setattr(worker.hosted, "train", train)
    monkeypatch.setattr(app.client, "_worker", lambda context, hosting: worker)
    ask("train", **pack(["a", "b", "c"]))
    assert [len(group) for group in trainer.groups] == [1, 1, 1]
    assert opened == ["a", "a", "b", "c"]  # the first shows that they are streams


@pytest.mark.parametrize("bad", ["unknown", "unfit"])
def test_who_cannot_be_trained_is_rejected_alone(trainer: FakeTrainer, bad: str) -> None:
    content = ask("train", **pack(["a", bad, "b", "c"]))
    assert wire.text_list(content["pack"], "reasons") == ["", "error", "", ""]
    error = {"unknown": "KeyError", "unfit": "it does not fit"}[bad]
    assert error in wire.text_list(content["pack"], "details")[1]
    assert deltas(content) == {"a": 1, "b": 3, "c": 4}
    apart = [["train a"], ["train unfit"], ["train b"], ["train c"]]  # after one attempt together, and no other
    assert trainer.groups == (apart if bad == "unfit" else [["train a", "train b", "train c"]])


def test_a_client_named_twice_trains_twice(trainer: FakeTrainer) -> None:
    content = ask("train", **pack(["a", "b", "a"]))
    assert [float(array.numpy()[0]) for array in content["update"].values()] == [1, 2, 3]


@pytest.mark.parametrize("changed", ["config", "weights"])
def test_what_a_mod_asks_of_one_client_alone_is_not_taken_from_a_group(
    trainer: FakeTrainer, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, inner = app.client._trained, []

    def trained(worker: object, weights: list[np.ndarray], config: ConfigRecord) -> object:
        inner.append(config["client"])
        if config["client"] == "b" and changed == "config":
            config["learning-rate"] = 0.5
        return handler(worker, list(weights) if config["client"] == "b" and changed == "weights" else weights, config)

    monkeypatch.setattr(app.client, "_trained", trained)
    ask("train", **pack(["a", "b", "c"]))
    assert trainer.groups == [["train a", "train b", "train c"], ["train b"]]
    assert trainer.calls[-1]["rate"] == (0.5 if changed == "config" else 0.1)


def test_where_mods_change_what_most_clients_are_asked_nobody_is_trained_ahead_any_more(
    trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all of them would train twice."""
    handler = app.client._trained
    monkeypatch.setattr(app.client, "_trained", lambda worker, weights, config: handler(worker, list(weights), config))
    for _ in range(3):
        ask("train", **pack([f"c{number}" for number in range(5)]))
    assert [len(group) for group in trainer.groups] == [5, 1, 1, 1, 1] + [1] * 10


def test_an_app_with_mods_of_its_own_shows_them_each_clients_update_of_training_only(trainer: FakeTrainer) -> None:
    seen: list[tuple[object, list[float]]] = []

    def spy(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        delta = wire.decode(wire.arrays_of(reply.content, wire.UPDATE)[wire.DELTA])
        seen.append((wire.config_of(message)["client"], delta.tolist()))
        return reply

    client_app = app.client.client_app(hosted_clients, spy)
    for kind in ("train", "evaluate"):
        config = ConfigRecord({"clients": ["a", "b"], "seeds": [7, 8], "learning-rate": 0.1})
        message = Message(RecordDict({"arrays": wire.array_record(START), "config": config}), 1, kind)
        client_app(message, CONTEXT)
    assert seen == [("a", [7.0] * 6), ("b", [8.0] * 6)]


def corrected(corrections: dict[str, float], **settings: object) -> RecordDict:
    """Ask clients a, b and c of a model that trains in groups, where a mod corrects the gradients of those named."""

    def correct(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        client = str(wire.config_of(message)["client"])
        if client in corrections:
            arrays = {name: np.full_like(array, corrections[client]) for name, array in reversed(START.items())}
            message.content["correction"] = wire.array_record(arrays)
        return call_next(message, context)

    config = ConfigRecord({**pack(["a", "b", "c"]), "learning-rate": 0.1, **settings})  # type: ignore[dict-item]
    message = Message(RecordDict({"arrays": wire.array_record(START), "config": config}), 1, "train")
    return app.client.client_app(hosted_clients, correct)(message, CONTEXT).content


def test_clients_train_together_with_the_messages_mu(trainer: FakeTrainer) -> None:
    ask("train", **{"proximal-mu": 0.25})
    assert trainer.groups == [["train a", "train b"]]
    assert [call["mu"] for call in trainer.calls] == [0.25] * 2


def test_who_has_another_mu_than_the_message_trains_alone(
    trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = app.client._trained

    def trained(worker: object, weights: list[np.ndarray], config: ConfigRecord) -> object:
        if config["client"] == "a":
            config["proximal-mu"] = 2.0
        return handler(worker, weights, config)

    monkeypatch.setattr(app.client, "_trained", trained)
    ask("train", **pack(["a", "b", "c"]), **{"proximal-mu": 0.5})
    assert trainer.groups == [["train a"], ["train b", "train c"]]
    assert [call["mu"] for call in trainer.calls] == [2.0, 0.5, 0.5]


def test_each_client_trains_alone_with_its_own_correction_in_the_models_order(trainer: FakeTrainer) -> None:
    content = corrected({"a": 1.5, "b": 2.5, "c": 3.5}, **{"proximal-mu": 0.5})
    assert trainer.groups == [["train a"], ["train b"], ["train c"]]
    assert [call["correction"] for call in trainer.calls] == [[1.5, 1.5], [2.5, 2.5], [3.5, 3.5]]
    assert [call["mu"] for call in trainer.calls] == [0.5] * 3
    assert deltas(content) == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(
    ("client", "groups"),
    [
        ("a", [["train a"], ["train b", "train c"]]),
        ("b", [["train a", "train b", "train c"], ["train b"]]),
    ],
)
def test_nobody_gets_the_correction_of_another_or_a_result_without_its_own(
    trainer: FakeTrainer, client: str, groups: list[list[str]]
) -> None:
    corrected({client: 4.5})
    assert trainer.groups == groups
    plain = [call for call in trainer.calls if not call["correction"]]
    assert [call["correction"] for call in trainer.calls if call not in plain] == [[4.5, 4.5]]


def test_a_correction_that_is_not_like_the_model_is_malformed(trainer: FakeTrainer) -> None:
    config = ConfigRecord({**pack(["a"]), "learning-rate": 0.1})  # type: ignore[dict-item]
    content = RecordDict({"arrays": wire.array_record(START), "config": config})
    content["correction"] = wire.array_record({"kernel": np.ones((2, 2), np.float32)})
    reply = app.client.app(Message(content, 1, "train"), CONTEXT).content
    assert wire.text_list(reply["pack"], "reasons") == ["malformed"] and not trainer.calls
    assert "2 arrays, but 1 were given" in wire.text_list(reply["pack"], "details")[0]
