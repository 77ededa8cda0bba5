"""Data sets as a user would write them, for ``dataset="tests.tasks.user_data:..."``."""

import numpy as np

from tasks.data import ArrayData, ClientSplit, LabelledArrays


def table():
    random = np.random.default_rng(0)
    return random.normal(size=(90, 4)), np.arange(90) % 3


def images():
    return np.full((40, 6, 5), 51, np.uint8), np.arange(40).reshape(-1, 1) % 2


def with_clients():
    x, y = table()
    return x, y.tolist(), np.array(["north", "south", "west"], object)[np.arange(90) // 40]


def numbered():
    return *table(), np.arange(90) // 9 + 95


def federated():
    arrays = LabelledArrays(np.zeros((6, 2), np.float32), np.arange(6, dtype=np.int32) % 2)
    splits = {"one": ClientSplit(np.array([0, 1]), np.array([2])), "two": ClientSplit(np.array([3, 4]), np.array([5]))}
    return ArrayData("mine", arrays, arrays, splits, 2)


def fails():
    return {}["missing"]


def needs_more(path):
    return path


def four_values():
    return 1, 2, 3, 4


def a_list():
    return [1, 2]


def ragged():
    return [[1, 2], [3]], [0, 1]


def wrong_ids():
    return *table(), np.linspace(0, 1, 90)


def text():
    return np.array([["a"], ["b"]]), [0, 1]


def no_rows():
    return np.zeros((0, 3)), np.zeros(0, int)


def _federated_with(**members):
    data = federated()
    vars(data).update(members)
    return data


def numpy_members():
    return _federated_with(
        client_ids=np.array(["one", "two"]),
        num_classes=np.int64(2),
        input_shape=np.array([2]),
        num_train=lambda _: np.int32(2),
    )


def number_ids():
    return _federated_with(client_ids=(1, 2))


def one_string_of_ids():
    return _federated_with(client_ids="one")


def repeated_ids():
    return _federated_with(client_ids=("one", "one"))


def one_class():
    return _federated_with(num_classes=1)


def classes_as_text():
    return _federated_with(num_classes="2")


def shape_with_a_gap():
    return _federated_with(input_shape=(None, 2))


def shape_as_number():
    return _federated_with(input_shape=2)


def fraction_to_train_on():
    return _federated_with(num_train=lambda _: 2.5)


def counts_of_one_class():
    return _federated_with(label_counts=lambda: np.ones((2, 1), int))
