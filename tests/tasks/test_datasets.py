import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from app.config import DATASET_PREFIXES, DATASETS
from tasks.data import LabelledArrays
from tasks.datasets import NAMES, DataSpec, load_data
from tasks.datasets.federate import federate, labelled_arrays
from tasks.errors import TaskError
from tasks.partition import Partition

USER = "tests.tasks.user_data:"
REPOSITORY = Path(__file__).resolve().parents[2]
NATURAL = Partition("natural")


def spec(dataset="digits", partition=None, **others):
    return DataSpec(dataset, partition or Partition("iid", 5), **others)


def rows(data):
    """All rows of a federated data set: those of the clients' train parts, their test parts, the central test set."""
    train = [data.train(client).x for client in data.client_ids]
    test = [data.test(client).x for client in data.client_ids]
    return np.concatenate([*train, *test, data.central_test().x])


def same_rows(one, two):
    order = [np.lexsort(x.reshape(len(x), -1).T) for x in (one, two)]
    return np.array_equal(one[order[0]], two[order[1]])


# The names


def test_names_are_those_of_the_run_config():
    assert NAMES == DATASETS


def test_the_run_configs_prefixes_lead_to_loaders(tmp_path):
    for prefix in DATASET_PREFIXES:
        with pytest.raises(TaskError) as error:
            load_data(spec(f"{prefix}{tmp_path}/nothing-here"))
        assert "There is no dataset" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("digit", "There is no dataset 'digit': did you mean 'digits'? 'dataset' is one of digits, mnist, "),
        ("MNIST", "There is no dataset 'MNIST': "),
        ("npz:", "There is no dataset 'npz:': did you mean 'npz:PATH'? "),
        ("npz", "There is no dataset 'npz': did you mean 'npz:PATH'? "),
        ("", "There is no dataset '': 'dataset' is one of"),
        ("no module:function", "There is no dataset 'no module:function'"),
        ("digits:8x8", "There is no dataset 'digits:8x8': did you mean 'digits'? "),
        ("digitz:large", "dataset='digitz:large': importing the module 'digitz' failed"),
    ],
)
def test_unknown_names(name, sentence):
    with pytest.raises(TaskError) as error:
        load_data(spec(name))
    assert str(error.value).startswith(sentence)
    assert "module:function" in str(error.value) or "import" in str(error.value)


def test_a_spec_is_hashable_and_equal_by_value():
    assert len({spec(), spec(), replace(spec(), seed=1)}) == 2


# Digits


def test_digits_are_scikit_learns():
    data = load_data(spec())
    x = load_digits().images.astype(np.float32)[..., np.newaxis] / 16
    assert (data.name, data.num_classes, data.input_shape) == ("digits", 10, (8, 8, 1))
    assert data.client_ids == ("0", "1", "2", "3", "4")
    assert len(data.central_test()) == round(0.2 * 1797)
    assert same_rows(rows(data), x)
    train = data.train("3")
    by_row = {row.tobytes(): label for row, label in zip(x, load_digits().target, strict=True)}
    assert [by_row[row.tobytes()] for row in train.x] == train.y.tolist()


def test_sizes_of_the_parts_follow_the_fractions():
    data = load_data(spec(test_fraction=0.1, client_test_fraction=0.25))
    assert len(data.central_test()) == 180
    for client in data.client_ids:
        whole = data.num_train(client) + len(data.test(client))
        assert whole in (323, 324)
        assert len(data.test(client)) == round(0.25 * whole)
    nothing_out = load_data(spec(test_fraction=0.0, client_test_fraction=0.0))
    assert (len(nothing_out.central_test()), sum(map(nothing_out.num_train, nothing_out.client_ids))) == (0, 1797)


def test_label_counts_are_those_of_the_train_parts():
    data = load_data(spec(partition=Partition("dirichlet", 50)))
    counts = data.label_counts()
    assert counts.shape == (50, 10)
    for client, row in zip(data.client_ids, counts, strict=True):
        assert np.bincount(data.train(client).y, minlength=10).tolist() == row.tolist()


def test_the_same_spec_gives_the_same_data_and_another_seed_other_test_sets():
    one, again, other = (load_data(spec(seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(rows(one), rows(again))
    assert not np.array_equal(one.central_test().x, other.central_test().x)


def test_the_central_test_set_stays_when_the_clients_are_cut_otherwise():
    cuts = [Partition("iid", 5), Partition("dirichlet", 50), Partition("shards", 20, seed=3)]
    first, *others = (load_data(spec(partition=cut)).central_test().x for cut in cuts)
    assert all(np.array_equal(first, other) for other in others)


def test_digits_need_no_tensorflow():
    script = (
        "import sys; from tasks.datasets import *\n"
        "load_data(DataSpec('digits', Partition('iid', 5)))\n"
        "sys.exit(bool({'tensorflow', 'keras', 'flwr_datasets', 'datasets'} & set(sys.modules)))"
    )
    load_data(spec())  # so that the partition is kept
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)


def test_natural_needs_clients():
    with pytest.raises(TaskError, match="partition='natural' needs a data set that says whose each example is"):
        load_data(spec(partition=NATURAL))


# The user's own


def test_a_table_of_ones_own():
    data = load_data(spec(USER + "table"))
    assert (data.num_classes, data.input_shape, len(data.client_ids)) == (3, (4,), 5)
    assert rows(data).dtype == np.float32
    assert same_rows(rows(data), np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32))


def test_images_of_ones_own_are_scaled_and_get_a_channel():
    data = load_data(spec(USER + "images"))
    assert (data.num_classes, data.input_shape) == (2, (6, 5, 1))
    np.testing.assert_allclose(data.train("0").x, 0.2)


def test_clients_of_ones_own():
    data = load_data(spec(USER + "with_clients", NATURAL))
    assert data.client_ids == ("north", "south", "west")
    assert rows(data).shape == (90, 4)


def test_numbered_clients_stand_in_the_order_of_their_numbers():
    assert load_data(spec(USER + "numbered", NATURAL)).client_ids == tuple(map(str, range(95, 105)))


def test_examples_with_clients_can_be_dealt_anew():
    assert len(load_data(spec(USER + "with_clients", Partition("dirichlet", 8))).client_ids) == 8


def test_federated_data_of_ones_own_is_used_as_it_is():
    data = load_data(spec(USER + "federated"))
    assert (data.name, data.client_ids) == ("mine", ("one", "two"))
    assert len(data.train("one")) == 2
    assert len(data.test("two")) == 1
    assert len(data.central_test()) == 6
    assert data.label_counts().tolist() == [[1, 1], [1, 1]]


def test_numpy_numbers_in_federated_data_become_pythons():
    data = load_data(spec(USER + "numpy_members"))
    assert json.loads(json.dumps([data.client_ids, data.num_classes, data.input_shape, data.num_train("one")])) == [
        ["one", "two"],
        2,
        [2],
        2,
    ]
    assert {type(client_id) for client_id in data.client_ids} == {str}


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("number_ids", r"client_ids .* is \(1, 2\), but must be a tuple of strings"),
        ("one_string_of_ids", "client_ids .* is 'one', but must be a tuple of strings"),
        ("repeated_ids", "client_ids .* but must hold no name twice"),
        ("one_class", "num_classes .* is 1, but must be a whole number of at least 2"),
        ("classes_as_text", "num_classes .* is '2', but must be a whole number"),
        ("shape_with_a_gap", "input_shape .* is None, but must be a whole number of at least 1"),
        ("shape_as_number", "input_shape .* is 2, but must be a tuple"),
        ("fraction_to_train_on", r"num_train\('one'\) .* is 2.5, but must be a whole number of at least 1"),
        ("counts_of_one_class", r"label_counts\(\) .* but must hold whole numbers, \[2, 2\]"),
    ],
)
def test_federated_data_with_wrong_members_are_named(function, sentence):
    with pytest.raises(TaskError, match=sentence) as error:
        data = load_data(spec(USER + function))
        data.num_train("one")
        data.label_counts()
    assert f"dataset='{USER}{function}'" in str(error.value)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("nowhere", "has no function 'nowhere'"),
        ("fails", "the function failed with KeyError: 'missing'; it must work without arguments."),
        ("needs_more", "the function failed with TypeError"),
        ("four_values", r"the function returned 4 values, but must return \(x, y\), \(x, y, client_ids\) or"),
        (
            "a_list",
            "the function returned a list, which is neither .* lacks name, num_classes, input_shape, client_ids",
        ),
        ("ragged", "x is no array, its rows differ in shape"),
        (
            "wrong_ids",
            "client_ids has dtype float64 and shape .* a whole number or a string for each of the 90 examples",
        ),
        ("text", "x has dtype <U1 and shape .* must be an array of real numbers"),
        ("no_rows", "has no examples to train on"),
    ],
)
def test_mistakes_in_ones_own_function(function, sentence):
    with pytest.raises(TaskError, match=sentence) as error:
        load_data(spec(USER + function))
    assert f"dataset='{USER}{function}'" in str(error.value)


# Arrays and labels


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        ([0, 1, -1, 2], r"y holds -1 \(example 2\), but labels must be whole numbers from 0"),
        ([0, 1, 0.5, 2], r"y holds 0.5 \(example 2\)"),
        ([0, np.nan, 1, 2], r"y holds nan \(example 1\)"),
        ([0, np.inf, 1, 2], r"y holds inf"),
        ([0, 1, 2**40, 2], "y holds 1099511627776"),
        (["a", "b", "a", "b"], "y has dtype <U1, but labels must be whole numbers from 0"),
        ([0, 1, 0], r"y has shape \[3\], but must hold one label for each of the 4 examples in x"),
        ([[0, 1]] * 4, r"y has shape \[4, 2\]"),
        (3, r"y has shape \[\]"),
    ],
)
def test_labels_that_are_none(y, sentence):
    with pytest.raises(TaskError, match=sentence) as error:
        labelled_arrays(np.zeros((4, 2)), y, "dataset='mine'")
    assert str(error.value).startswith("dataset='mine': ")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64, np.float32, np.float64, bool])
def test_labels_of_any_dtype(dtype):
    y = labelled_arrays(np.zeros((4, 2)), np.array([0, 1, 1, 0], dtype), "mine").y
    assert (y.dtype, y.tolist()) == (np.int32, [0, 1, 1, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_x_that_is_not_finite(bad):
    x = np.zeros((4, 2))
    x[2, 1] = bad
    with pytest.raises(TaskError, match=r"x is NaN or infinite \(as float32\) in 1 of 4 examples, first in example 2"):
        labelled_arrays(x, [0, 1, 0, 1], "mine")


@pytest.mark.parametrize(
    "x", [np.zeros(4), np.float64(1), np.zeros((4, 2), complex), np.zeros((4, 2), object), np.zeros((4, 0))], ids=repr
)
def test_x_that_is_no_table(x):
    with pytest.raises(TaskError, match="must be an array of real numbers with one example per row"):
        labelled_arrays(x, [0, 1, 0, 1], "mine")


def test_x_stays_as_it_is_stored():
    assert labelled_arrays(np.zeros((4, 2), np.uint8), [0] * 4, "mine").x.dtype == np.uint8
    assert labelled_arrays(np.zeros((4, 2), np.int16), [0] * 4, "mine").x.dtype == np.int16
    assert labelled_arrays(np.zeros((4, 2)), [0] * 4, "mine").x.dtype == np.float32


def arrays(labels):
    return LabelledArrays(np.arange(len(labels), dtype=np.float32)[:, np.newaxis], np.array(labels, np.int32))


def test_labels_with_too_large_gaps():
    with pytest.raises(TaskError, match="y holds the label 100 with only 20 examples: number the classes from 0"):
        federate("mine", arrays([0, 100] * 10), None, spec())


def test_labels_beyond_the_number_of_classes():
    with pytest.raises(TaskError, match="y holds the label 3, but there are only 3 classes"):
        federate("mine", arrays([0, 1] * 10), arrays([3]), spec(), num_classes=3)


def test_classes_are_counted_over_both_parts_and_at_least_two():
    assert federate("mine", arrays([0, 1] * 10), arrays([4]), spec()).num_classes == 5
    assert federate("mine", arrays([0] * 20), arrays([0]), spec()).num_classes == 2
    assert federate("mine", arrays([0] * 20), arrays([0]), spec(), num_classes=7).num_classes == 7


def test_natural_clients_survive_the_held_out_test_set():
    ids = np.repeat(np.arange(40), 2)
    for seed in range(5):
        given = spec(partition=replace(NATURAL, min_examples=1), test_fraction=0.8, seed=seed)
        data = federate("mine", arrays([0, 1] * 40), None, given, natural_ids=ids)
        assert len(data.client_ids) == 40
        assert same_rows(rows(data), np.arange(80, dtype=np.float32)[:, np.newaxis])
