"""What clients refuse whatever a request says, as the server of a run with other intentions would see it."""

from collections.abc import Callable

import pytest
from flwr.app import RecordDict
from flwr.supercore.task_identity import TaskIdentity

import app.client
from strategies import wire
from strategies.privacy.local_dp import LocalDP
from tests.app.test_client import FakeTrainer, ask, worker_with

LOCAL = {"strategy": "local-dp", "noise-multiplier": 50.0, "clipping-norm": 0.5}
ROBUST = {"strategy": "trimmed-mean", "privacy": "local-dp", "noise-multiplier": 50.0, "clipping-norm": 0.5}
EXAMPLES = {"dp-sgd-clip": 1.0}
HONEST = {f"privacy-{key}": value for key, value in LocalDP(50.0, 0.5).config({}).items()}

Clients = Callable[..., FakeTrainer]


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    """Make the app's clients those of a run with a config."""

    def made(keys: dict[str, object], trainer: FakeTrainer | None = None) -> FakeTrainer:
        trainer = trainer or FakeTrainer()
        worker = worker_with(trainer, **keys)
        monkeypatch.setattr(app.client, "_worker", lambda context, hosting: worker)
        monkeypatch.setattr(app.client, "_one_thread", lambda: None)
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # which Flower's messages ask for
        return trainer

    return made


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
    clients: Clients, keys: dict[str, object], changes: dict[str, object], what: str
) -> None:
    trainer = clients(keys)
    asked = {key: value for key, value in {**HONEST, **changes}.items() if value is not None}
    assert refused(ask("train", **asked), what)
    assert not trainer.calls


def test_what_was_promised_is_given(clients: Clients) -> None:
    trainer = clients(LOCAL)
    content = ask("train", **HONEST)
    assert len(trainer.calls) == 2
    assert wire.text_list(content["pack"], "reasons") == ["", ""]
    assert dict(content["metrics"]) == {"noise-deviation": [25.0] * 2, "num-examples": [10.0] * 2, "steps": [3.0] * 2}


@pytest.mark.parametrize("part", ["train", "test"])
def test_local_privacy_tells_no_loss(clients: Clients, part: str) -> None:
    trainer = clients(LOCAL)
    assert refused(ask("evaluate", **{"data-part": part}), "promises local privacy")
    assert not trainer.calls


def test_private_examples_are_not_evaluated_but_test_examples_are(clients: Clients) -> None:
    trainer = clients(EXAMPLES)
    assert refused(ask("evaluate", **{"data-part": "train"}), "'dp-sgd-clip'")
    ask("evaluate")
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
    clients: Clients,
    keys: dict[str, object],
    kind: str,
    settings: dict[str, object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    clients(keys, Talkative())
    content = ask(kind, **settings)
    assert refused(content, "ValueError") and "Miller" not in str(content["pack"])
    assert "Miller" in caplog.text  # in the node's own log


def test_without_privacy_an_error_is_told_whole(clients: Clients) -> None:
    clients({}, Talkative())
    assert refused(ask("train"), "the diagnosis of Ms Miller")
