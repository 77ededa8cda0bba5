from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from sklearn.datasets import load_digits

import tasks.datasets
from tasks.data import ClientData, Examples
from tasks.datasets import DataSpec
from tasks.errors import TaskError
from tasks.local_training import LocalTraining
from tasks.partition import Partition
from tasks.task import TaskSpec, load_task

SPEC = TaskSpec(DataSpec("digits", Partition()), "cnn-small", LocalTraining(batch_size=10), seed=3)


@dataclass(frozen=True)
class DealtDigits:
    """Real digits, dealt by Dirichlet(0.5) per class to 50 clients of at least two examples, 20 % held out."""

    clients: tuple[Examples, ...]
    held_out: Examples
    name: str = "digits"
    num_classes: int = 10
    input_shape: tuple[int, ...] = (8, 8, 1)

    @property
    def client_ids(self) -> tuple[str, ...]:
        return tuple(str(k) for k in range(len(self.clients)))

    def num_train(self, client_id: str) -> int:
        return len(self.clients[int(client_id)])

    def train(self, client_id: str) -> ClientData:
        return self.clients[int(client_id)]

    def test(self, client_id: str) -> ClientData:
        return self.held_out

    def central_test(self) -> ClientData:
        return self.held_out

    def label_counts(self) -> np.ndarray:
        return np.stack([np.bincount(c.y, minlength=10) for c in self.clients])


def deal_digits(seed: int) -> DealtDigits:
    images, labels = load_digits(return_X_y=True)
    x, y = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1), labels.astype(np.int32)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(y))
    held_out, rest = order[: len(y) // 5], order[len(y) // 5 :]
    while True:
        dealt: list[list[int]] = [[] for _ in range(50)]
        for label in range(10):
            own = rest[y[rest] == label]
            cuts = (np.cumsum(generator.dirichlet([0.5] * 50))[:-1] * len(own)).astype(int)
            for client, part in zip(dealt, np.split(own, cuts), strict=True):
                client.extend(part)
        if min(map(len, dealt)) >= 2:
            return DealtDigits(tuple(Examples(x[part], y[part]) for part in dealt), Examples(x[held_out], y[held_out]))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[DataSpec]]:
    """The data specs that were loaded, with empty caches and digits dealt by the test itself."""
    asked: list[DataSpec] = []

    def load(spec: DataSpec) -> DealtDigits:
        asked.append(spec)
        return deal_digits(seed=1)

    monkeypatch.setattr(tasks.datasets, "load_data", load)
    clear_caches()
    yield asked
    clear_caches()


def clear_caches() -> None:
    load_task.cache_clear()
    tasks.datasets.kept_data.cache_clear()


def test_equal_specs_are_loaded_once(loads):
    assert load_task(SPEC) is load_task(replace(SPEC))
    assert loads == [SPEC.data]


def test_tasks_on_the_same_data_share_it_and_the_compiled_model(loads):
    one = load_task(SPEC)
    two = load_task(replace(SPEC, training=LocalTraining(batch_size=32, epochs=5), seed=4))
    assert one.data is two.data
    assert one.trainer.compiled is two.trainer.compiled
    assert two.trainer.training.batch_size == 32
    other = load_task(replace(SPEC, model="mlp"))
    assert other.data is one.data
    assert other.trainer.compiled is not one.trainer.compiled
    assert len(loads) == 1


def test_initial_weights_follow_from_the_seed(loads):
    one, again, other = (load_task(replace(SPEC, seed=s)).build_model().get_weights() for s in (3, 3, 4))
    np.testing.assert_array_equal(one[0], again[0])
    assert not np.array_equal(one[0], other[0])


def test_the_model_built_is_the_one_trained(loads):
    task = load_task(SPEC)
    model = task.build_model()
    assert [w.path for w in model.weights] == [w.path for w in task.trainer.compiled.model.weights]
    result = task.trainer.train(model.get_weights(), task.data.train("7"), 0.1, seed=0)
    assert [w.shape for w in result.weights] == [tuple(w.shape) for w in model.weights]
    assert {w.dtype for w in result.weights} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "cnn-smal"}, "did you mean 'cnn-small'"),
        ({"model": "tests.tasks.user_models:three_outputs"}, r"puts out \(3,\) per example"),
        ({"training": LocalTraining(batch_size=10, optimizer="sdg")}, "did you mean 'sgd'"),
        ({"training": LocalTraining(batch_size=10, optimizer_args="momentum=2")}, "Keras refuses this"),
    ],
)
def test_what_does_not_go_together_is_refused_when_loading(loads, change, sentence):
    with pytest.raises(TaskError, match=sentence):
        load_task(replace(SPEC, **change))


def test_the_default_model_learns_digits_federatedly(loads):
    local = LocalTraining(batch_size=10, epochs=5, optimizer_args="momentum=0.9")
    task = load_task(replace(SPEC, training=local))
    weights, generator, accuracies = task.build_model().get_weights(), np.random.default_rng(0), []
    for round_number in range(30):
        cohort = generator.choice(task.data.client_ids, 10, replace=False)
        results = [task.trainer.train(weights, task.data.train(c), 0.1, 100 * round_number + int(c)) for c in cohort]
        shares = np.array([r.num_examples for r in results]) / sum(r.num_examples for r in results)
        layers = zip(*(r.weights for r in results), strict=True)
        weights = [np.average(layer, axis=0, weights=shares).astype(np.float32) for layer in layers]
        accuracies.append(task.trainer.evaluate(weights, task.data.central_test()).accuracy)
    assert max(accuracies) >= 0.95
    assert accuracies[-1] >= 0.94
