"""What clients refuse whatever a request says, as the server of a run with other intentions would see it."""

from collections.abc import Mapping
from typing import NoReturn

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

import app.client
from app.promises import WithheldError
from strategies import wire
from strategies.privacy.local_dp import LocalDP
from tests.app.test_client import START, FakeTrainer, worker_with

LOCAL = {"strategy": "local-dp", "noise-multiplier": 50.0, "clipping-norm": 0.5}
ROBUST = {"strategy": "trimmed-mean", "privacy": "local-dp", "noise-multiplier": 50.0, "clipping-norm": 0.5}
EXAMPLES = {"dp-sgd-clip": 1.0}
HONEST = {f"privacy-{key}": value for key, value in LocalDP(50.0, 0.5).config({}).items()}


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> FakeTrainer:
    """What the app's clients train with."""
    return installed(FakeTrainer(), monkeypatch)


def installed(trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch) -> FakeTrainer:
    worker = worker_with(trainer)
    monkeypatch.setattr(app.client, "_worker", lambda context, hosting: worker)
    monkeypatch.setattr(app.client, "_one_thread", lambda: None)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # which Flower's messages ask for
    return trainer


def ask(keys: Mapping[str, object], kind: str, **settings: object) -> RecordDict:
    """Ask two clients of a run with this config."""
    config = ConfigRecord({"clients": ["a", "b"], "seeds": [7, 8], "learning-rate": 0.1, **settings})  # type: ignore[dict-item]
    message = Message(RecordDict({"arrays": wire.array_record(START), "config": config}), 1, kind)
    return app.client.app(message, Context(1, 1, {}, RecordDict(), dict(keys))).content  # type: ignore[arg-type]


def refused(content: RecordDict, sentence: str) -> bool:
    """Whether both clients answer with an error that says this, and with nothing else."""
    pack = content["pack"]
    details = wire.text_list(pack, "details")
    empty = not content["update"] and not content["metrics"]
    return wire.text_list(pack, "reasons") == ["error"] * 2 and all(sentence in each for each in details) and empty


@pytest.mark.parametrize("keys", [LOCAL, ROBUST], ids=["local-dp", "trimmed-mean"])
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (dict.fromkeys(HONEST), "privacy-clipping-norm' is None"),
        ({"privacy-noise-deviation": None}, "privacy-noise-deviation' is None"),
        ({"privacy-noise-deviation": 0.0}, "privacy-noise-deviation' is 0.0"),
        ({"privacy-noise-deviation": 24.9}, "privacy-noise-deviation' is 24.9"),
        ({"privacy-clipping-norm": 5.0}, "privacy-clipping-norm' is 5.0"),
    ],
)
def test_no_update_leaves_with_less_noise_than_the_config_promises(
    trainer: FakeTrainer, keys: dict[str, object], changes: dict[str, object], what: str
) -> None:
    asked = {key: value for key, value in {**HONEST, **changes}.items() if value is not None}
    assert refused(ask(keys, "train", **asked), what)
    assert not trainer.calls


def test_what_was_promised_is_given(trainer: FakeTrainer) -> None:
    content = ask(LOCAL, "train", **HONEST)
    assert len(trainer.calls) == 2
    assert wire.text_list(content["pack"], "reasons") == ["", ""]
    assert dict(content["metrics"]) == {"noise-deviation": [25.0] * 2, "num-examples": [10.0] * 2, "steps": [3.0] * 2}


@pytest.mark.parametrize("part", ["train", "test"])
def test_local_privacy_tells_no_loss(trainer: FakeTrainer, part: str) -> None:
    assert refused(ask(LOCAL, "evaluate", **{"data-part": part}), "promises local privacy")
    assert not trainer.calls


def test_private_examples_are_not_evaluated_but_test_examples_are(trainer: FakeTrainer) -> None:
    assert refused(ask(EXAMPLES, "evaluate", **{"data-part": "train"}), "'dp-sgd-clip'")
    ask(EXAMPLES, "evaluate")
    assert [call["data"] for call in trainer.calls] == ["test a", "test b"]


class Talkative(FakeTrainer):
    """Fails with an error that quotes the data."""

    def train_together(self, *asked: object) -> list[object]:  # type: ignore[override]
        raise ValueError("the diagnosis of Ms Miller is none of the 10 classes")

    def evaluate(self, *asked: object) -> object:  # type: ignore[override]
        raise ValueError("the diagnosis of Ms Miller is none of the 10 classes")


@pytest.mark.parametrize(
    ("keys", "kind", "settings"),
    [(LOCAL, "train", HONEST), (EXAMPLES, "train", {}), (EXAMPLES, "evaluate", {})],
    ids=["local privacy", "private examples", "evaluation"],
)
def test_of_an_error_beside_private_data_only_the_type_is_told(
    keys: dict[str, object],
    kind: str,
    settings: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    installed(Talkative(), monkeypatch)
    content = ask(keys, kind, **settings)
    assert refused(content, "ValueError") and "Miller" not in str(content["pack"])
    assert "Miller" in caplog.text  # in the node's own log


def test_without_privacy_an_error_is_told_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(Talkative(), monkeypatch)
    assert refused(ask({}, "train"), "the diagnosis of Ms Miller")


@pytest.mark.parametrize(
    ("keys", "kind"),
    [(LOCAL, "train"), (EXAMPLES, "train"), (EXAMPLES, "evaluate"), (LOCAL, "query.describe")],
    ids=["local privacy", "private examples", "evaluation", "describe"],
)
def test_nor_is_more_told_where_the_data_cannot_be_loaded(
    keys: dict[str, object], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a user's function, which may raise anything; Flower answers with the text of what it gets."""

    def hosting(config: object, node_config: object) -> NoReturn:
        raise ValueError("the row of Ms Miller has no age")

    monkeypatch.setattr(app.client, "_one_thread", lambda: None)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    config = ConfigRecord({"client": "a", "seed": 7, "learning-rate": 0.1, **HONEST})
    message = Message(RecordDict({"arrays": wire.array_record(START), "config": config}), 1, kind)
    with pytest.raises(WithheldError, match=r"^ValueError, of which only the node's own log may tell more$"):
        app.client.client_app(hosting)(message, Context(1, 1, {}, RecordDict(), dict(keys)))  # type: ignore[arg-type]
