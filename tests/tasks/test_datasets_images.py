"""MNIST, Fashion-MNIST and CIFAR-10 through Keras, FEMNIST through flwr-datasets and Hugging Face's datasets."""

import gzip
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from tasks.datasets import DataSpec, load_data
from tasks.errors import TaskError
from tasks.partition import Partition


@pytest.fixture
def at_home(monkeypatch):
    """Set Keras's home, which it has read from KERAS_HOME when it was imported, maybe by another test."""

    def set_home(folder):
        monkeypatch.setenv("KERAS_HOME", str(folder))
        monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(folder))

    return set_home


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise URLError("no network here")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)


def test_mnist_as_cached(keras_home, at_home):
    at_home(keras_home)
    data = load_data(DataSpec("mnist", Partition("iid", 600), client_test_fraction=0.0))
    assert (data.name, data.num_classes, data.input_shape, len(data.client_ids)) == ("mnist", 10, (28, 28, 1), 600)
    assert {data.num_train(client) for client in data.client_ids} == {100}
    # Facts about MNIST: the number of examples of each digit, the mean and deviation of its training pixels.
    assert data.label_counts().sum(axis=0).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    central = data.central_test()
    assert np.bincount(central.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (central.x.min(), central.x.max()) == (0, 1)
    pixels = np.concatenate([data.train(client).x for client in data.client_ids])
    np.testing.assert_allclose([pixels.mean(dtype=float), pixels.std(dtype=float)], [0.1307, 0.3081], atol=5e-5)


def test_fashion_mnist_as_cached(keras_home, at_home):
    at_home(keras_home)
    data = load_data(DataSpec("fashion-mnist", Partition("shards", 100), client_test_fraction=0.2))
    assert (data.num_classes, data.input_shape) == (10, (28, 28, 1))
    assert {(data.num_train(client), len(data.test(client))) for client in data.client_ids} == {(480, 120)}
    folder = keras_home / "datasets" / "fashion-mnist"
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        raw = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
    np.testing.assert_allclose(data.central_test().x, raw / 255, atol=1e-7)


def test_cifar10_images(shared_data, monkeypatch):
    folder = shared_data / "cifar10_first3000"
    sheets = [np.asarray(Image.open(folder / f"cifar10_batch_{number}.png")) for number in range(3)]
    images, labels = np.concatenate(sheets).reshape(-1, 32, 32, 3), np.load(folder / "labels.npy")
    x, y = images[labels >= 0], labels[labels >= 0].astype(np.uint8).reshape(-1, 1)  # as Keras returns them
    monkeypatch.setattr("keras.datasets.cifar10.load_data", lambda: ((x[:2000], y[:2000]), (x[2000:], y[2000:])))
    data = load_data(DataSpec("cifar10", Partition("dirichlet", 20)))
    assert (data.num_classes, data.input_shape, len(data.central_test())) == (10, (32, 32, 3), len(x) - 2000)
    np.testing.assert_allclose(data.central_test().x, x[2000:] / 255, atol=1e-7)
    assert data.central_test().y.tolist() == y[2000:, 0].tolist()


@pytest.mark.parametrize(
    ("name", "file"),
    [("mnist", "mnist.npz"), ("fashion-mnist", "fashion-mnist"), ("cifar10", "cifar-10-batches-py-target")],
)
def test_without_files_and_network(name, file, tmp_path, at_home, offline):
    at_home(tmp_path)
    with pytest.raises(TaskError) as error:
        load_data(DataSpec(name, Partition("iid", 5)))
    said = str(error.value)
    assert said.startswith(
        f"dataset='{name}' is neither cached as {tmp_path / 'datasets' / file} nor can it be downloaded"
    )
    assert "no network here" in said
    assert "KERAS_HOME" in said


def test_a_corrupt_cached_file_is_told_and_not_used(keras_home, tmp_path, at_home, offline):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "mnist.npz").write_bytes((keras_home / "datasets" / "mnist.npz").read_bytes()[:-5])
    at_home(tmp_path)
    with pytest.raises(TaskError, match=r"dataset='mnist' is neither cached as .*mnist\.npz"):
        load_data(DataSpec("mnist", Partition("iid", 5)))


@pytest.fixture
def hub(shared_data, monkeypatch):
    """What flwr-datasets asks the Hub for, made of the real digits by writer, with the Hub's columns."""
    import datasets

    with np.load(shared_data / "femnist_digits_by_writer" / "femnist_digits_190.npz") as file:
        x, y, client, writers = (file[key] for key in ("x", "y", "client", "writers"))
    some = client < 12
    x, y, writer = x[some], y[some], writers[client[some]]
    features = datasets.Features(
        image=datasets.Image(),
        writer_id=datasets.Value("string"),
        hsf_id=datasets.Value("int64"),
        character=datasets.ClassLabel(num_classes=62),
    )
    columns = {
        "image": [Image.fromarray(image) for image in x],
        "writer_id": writer.tolist(),
        "hsf_id": [0] * len(y),
        "character": y.tolist(),
    }
    rows = datasets.DatasetDict(train=datasets.Dataset.from_dict(columns, features=features))
    asked = []

    def load_dataset(**arguments):
        asked.append(arguments)
        return rows

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return asked, x, y, writer


def test_femnist_by_writer(hub):
    asked, x, y, writer = hub
    data = load_data(DataSpec("femnist", Partition("natural"), test_fraction=0.0, client_test_fraction=0.0))
    assert [arguments["path"] for arguments in asked] == ["flwrlabs/femnist"]
    assert (data.num_classes, data.input_shape) == (62, (28, 28, 1))
    assert data.client_ids == tuple(sorted(set(writer.tolist())))
    for name in data.client_ids:
        np.testing.assert_allclose(data.train(name).x[..., 0], x[writer == name] / 255, atol=1e-7)
        assert data.train(name).y.tolist() == y[writer == name].tolist()


def test_femnist_can_be_dealt_by_label(hub):
    data = load_data(DataSpec("femnist", Partition("iid", 7)))
    assert data.client_ids == tuple("0123456")
    assert len(data.central_test()) == round(0.2 * len(hub[2]))


def test_femnist_without_network(monkeypatch):
    def refuse(**_):
        raise ConnectionError("no network here")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(TaskError, match=r"dataset='femnist' \(flwrlabs/femnist .*no network here.* HF_HOME"):
        load_data(DataSpec("femnist", Partition("natural")))
