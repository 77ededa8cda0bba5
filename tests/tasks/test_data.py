import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data import ArrayData, ClientSplit, LabelledArrays, split_client
from tasks.errors import TaskError


def array_data(clients=3, each=4):
    examples = clients * each
    x = np.arange(examples * 2, dtype=np.uint8).reshape(examples, 2)
    y = (np.arange(examples) % 3).astype(np.int32)
    starts = np.arange(clients) * each
    splits = {
        f"c{k}": ClientSplit(np.arange(s, s + each - 1), np.arange(s + each - 1, s + each))
        for k, s in enumerate(starts)
    }
    central = LabelledArrays(np.array([[255, 0]], np.uint8), np.array([2], np.int32), 1 / 255)
    return ArrayData("numbers", LabelledArrays(x, y, 1 / 255), central, splits, 4)


def test_a_client_gets_its_rows_scaled_as_float32():
    data = array_data()
    train, test = data.train("c1"), data.test("c1")
    np.testing.assert_allclose(train.x, np.array([[8, 9], [10, 11], [12, 13]]) / 255, rtol=1e-6)
    assert (train.x.dtype, train.y.dtype, len(train)) == (np.float32, np.int32, 3)
    assert train.y.tolist() == [1, 2, 0]
    np.testing.assert_allclose(test.x, np.array([[14, 15]]) / 255, rtol=1e-6)
    np.testing.assert_allclose(data.central_test().x, [[1, 0]])


def test_what_is_told_without_loading():
    data = array_data()
    assert (data.client_ids, data.input_shape, data.num_classes) == (("c0", "c1", "c2"), (2,), 4)
    assert data.num_train("c2") == 3
    np.testing.assert_array_equal(data.label_counts(), [[1, 1, 1, 0]] * 3)
    assert data.label_counts().dtype == np.int64


def test_arrays_are_never_scaled_in_place():
    arrays = LabelledArrays(np.ones((2, 1), np.float32), np.zeros(2, np.int32), 0.5)
    assert arrays.whole().x.tolist() == [[0.5], [0.5]]
    assert arrays.whole().x.tolist() == [[0.5], [0.5]]


def test_the_last_clients_stay_converted_as_far_as_bytes_go(monkeypatch):
    monkeypatch.setattr("tasks.data.KEPT_BYTES", 100)  # a client's train part is 3 rows of 2 float32: 4 clients
    data = array_data(clients=6)
    first = data.train("c0")
    for client in ("c1", "c2", "c3"):
        data.train(client)
    assert data.train("c0") is first
    for client in ("c1", "c2", "c3", "c4"):
        data.train(client)
    assert data.train("c0") is not first


def test_a_client_larger_than_what_is_kept_is_kept_alone(monkeypatch):
    monkeypatch.setattr("tasks.data.KEPT_BYTES", 1)
    data = array_data()
    assert data.train("c0") is data.train("c0")


def test_what_is_kept_cannot_be_changed():
    train = array_data().train("c0")
    with pytest.raises(ValueError, match="read-only"):
        train.x *= 2
    with pytest.raises(ValueError, match="read-only"):
        train.y[0] = 3


def test_a_client_without_examples_is_named():
    arrays = LabelledArrays(np.zeros((2, 1)), np.zeros(2, np.int32))
    splits = {"a": ClientSplit(np.array([0]), np.array([1])), "b": ClientSplit(np.arange(0), np.arange(0))}
    with pytest.raises(
        TaskError, match="The client 'b' of dataset 'mine' has no training examples: lower 'num-clients'"
    ):
        ArrayData("mine", arrays, arrays, splits, 2)


@pytest.mark.parametrize("ask", ["num_train", "train", "test"])
def test_a_client_that_is_not_there(ask):
    with pytest.raises(TaskError, match="There is no client 'c9' in dataset 'numbers' with its 3 clients: the server"):
        getattr(array_data(), ask)("c9")


@settings(max_examples=60)
@given(examples=st.integers(1, 60), fraction=st.floats(0, 0.999), seed=st.integers(0, 2**63), name=st.text(max_size=5))
def test_a_split_is_a_split(examples, fraction, seed, name):
    indices = np.arange(100, 100 + examples)
    split = split_client(indices, name, fraction, seed)
    assert sorted([*split.train, *split.test]) == indices.tolist()
    assert len(split.train) >= 1
    assert len(split.test) == min(round(fraction * examples), examples - 1)
    again = split_client(indices, name, fraction, seed)
    np.testing.assert_array_equal(split.train, again.train)


def test_splits_differ_by_client_and_seed():
    splits = [
        split_client(np.arange(50), name, 0.5, seed).test.tolist() for name, seed in [("a", 1), ("b", 1), ("a", 2)]
    ]
    assert splits[0] != splits[1] != splits[2] != splits[0]


def test_every_example_is_as_often_in_the_test_part():
    """Binomial(2000, 0.2): 5 standard deviations, wrongly refused in under 1e-4 of cases over the 20 examples."""
    times = np.zeros(20)
    for seed in range(2000):
        times[split_client(np.arange(20), "a", 0.2, seed).test] += 1
    assert np.abs(times - 400).max() < 5 * np.sqrt(2000 * 0.2 * 0.8)
