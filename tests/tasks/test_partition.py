import hashlib
import logging
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from tasks.cache import cache_folder, whole_file
from tasks.dealing import deal
from tasks.errors import TaskError
from tasks.partition import KINDS, Partition, partition_indices
from tasks.redeal import CannotFillUpError, redealt
from tasks.top_up import top_up

DEALT = tuple(kind for kind in KINDS if kind != "natural")
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def mnist_labels(shared_data):
    with np.load(shared_data / "keras_cache" / "datasets" / "mnist.npz") as file:
        return file["y_train"].astype(np.int32)


def balanced(classes=10, each=600):
    """Labels sorted by class, so that a partition that forgets to shuffle shows."""
    return np.repeat(np.arange(classes, dtype=np.int32), each)


def sizes(parts):
    return np.array([len(part) for part in parts.values()])


def classes_of(parts, labels):
    return [set(labels[part].tolist()) for part in parts.values()]


def every_index_once(parts, examples):
    return np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(examples))


def impossible(examples, held, least):
    """Hall's condition: some classes have too few examples for the clients that have none but those classes.

    Every client keeps one example of each class it has. ``examples`` [classes]; ``held``: each client's set of classes.
    """
    spare = {k: number - sum(k in classes for classes in held) for k, number in enumerate(examples)}
    groups = (set(group) for size in range(1, len(spare) + 1) for group in combinations(spare, size))
    return any(
        sum(max(0, least - len(classes)) for classes in held if classes <= group) > sum(spare[k] for k in group)
        for group in groups
    )


# What holds for every kind


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(DEALT),
    classes=st.integers(2, 6),
    examples=st.integers(60, 300),
    clients=st.integers(6, 20),
    least=st.integers(1, 3),
    alpha=st.floats(1e-3, 100),
    skew=st.floats(0, 10),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_index_goes_to_one_client_the_same_each_time(kind, classes, examples, clients, least, alpha, skew, seed):
    labels = np.random.default_rng(seed % 1000).permutation(np.arange(examples) % classes).astype(np.int32)
    partition = Partition(kind, clients, alpha, 2, skew, least, seed)
    try:
        parts = deal(labels, partition, None)
    except TaskError as refusal:  # what cannot be dealt is refused in words, and only this kind can be impossible
        assert kind == "pathological"
        assert "cannot give client" in str(refusal)
        held = classes_of(deal(labels, replace(partition, min_examples=1), None), labels)  # which nothing changes
        assert impossible(np.bincount(labels), held, least)
        return
    assert list(parts) == [str(client) for client in range(clients)]
    assert every_index_once(parts, examples)
    assert sizes(parts).min() >= least
    for part in parts.values():
        assert part.dtype == np.int64
        assert np.all(np.diff(part) > 0)
    np.random.default_rng().random()
    again = deal(labels, partition, None)
    assert all(np.array_equal(parts[client], again[client]) for client in parts)


@pytest.mark.parametrize("kind", DEALT)
def test_another_seed_gives_another_partition(kind):
    one, two = (partition_indices(balanced(), Partition(kind, 20, seed=seed)) for seed in (1, 2))
    assert any(not np.array_equal(one[client], two[client]) for client in one)


@pytest.mark.parametrize("kind", KINDS)
def test_global_generators_neither_matter_nor_move(kind):
    labels, ids = balanced(), np.arange(6000) % 7
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = deal(labels, Partition(kind, 20), ids if kind == "natural" else None)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.random.seed(2)
    second = deal(labels, Partition(kind, 20), ids if kind == "natural" else None)
    assert all(np.array_equal(first[client], second[client]) for client in first)


@pytest.mark.parametrize("kind", KINDS)
def test_10_000_clients_on_mnist(kind, mnist_labels):
    writers = np.arange(60_000) % 10_000
    parts = partition_indices(mnist_labels, Partition(kind, 10_000), writers)
    kept = partition_indices(mnist_labels, Partition(kind, 10_000), writers)
    assert len(parts) == 10_000
    assert sizes(parts).min() >= 2
    assert every_index_once(parts, 60_000)
    assert all(np.array_equal(parts[client], kept[client]) for client in parts)


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("iid", "34572aa93ef5"),
        ("dirichlet", "365ce3171012"),
        ("pathological", "bd10d399db92"),
        ("shards", "1cf886641315"),
        ("quantity", "a6d589b7d793"),
    ],
)
def test_every_machine_and_process_deals_the_same(kind, digest):
    """Written down once: a node and the server must agree. If NumPy or flwr-datasets draw differently, so may this."""
    parts = deal(balanced(), Partition(kind, min_examples=30, quantity_skew=2.0, dirichlet_alpha=0.1), None)
    bytes_of_all = b"".join(part.astype("<i8").tobytes() + b"|" for part in parts.values())
    assert hashlib.sha256(bytes_of_all).hexdigest()[:12] == digest


# What each kind guarantees


def test_iid_parts_are_equal_and_mixed():
    labels = balanced()[:5995]
    parts = partition_indices(labels, Partition("iid", 60))
    assert set(sizes(parts).tolist()) == {99, 100}
    table = [np.bincount(labels[part], minlength=10) for part in parts.values()]
    # Drawn without replacement the table varies a little less than chi-squared: wrongly refused in under 1e-6 of seeds.
    assert stats.chi2_contingency(table).pvalue > 1e-6
    assert stats.chi2_contingency(table).pvalue < 1 - 1e-6


def test_iid_parts_have_the_sizes_of_flwr_datasets_own():
    from datasets import Dataset
    from flwr_datasets.partitioner import IidPartitioner

    theirs = IidPartitioner(7)
    theirs.dataset = Dataset.from_dict({"label": balanced()[:100]})
    ours = partition_indices(balanced()[:100], Partition("iid", 7))
    assert sizes(ours).tolist() == [len(theirs.load_partition(client)) for client in range(7)]


@pytest.mark.parametrize("alpha", [0.5, 5.0])
def test_dirichlet_shares_of_a_class_follow_the_beta_law(alpha):
    """Of Dirichlet(a, ..., a) over n clients, one's share is Beta(a, (n - 1) a); independent over classes and seeds.

    Wrongly refused for one choice of seeds in 10,000.
    """
    labels, clients = balanced(10, 5000), 8
    shares = []
    for seed in range(20):
        part = deal(labels, Partition("dirichlet", clients, alpha, min_examples=1, seed=seed), None)["3"]
        shares.extend(np.bincount(labels[part], minlength=10) / 5000)
    assert stats.kstest(shares, stats.beta(alpha, (clients - 1) * alpha).cdf).pvalue > 1e-4


def test_dirichlet_agrees_with_numpys_in_how_many_clients_share_a_class():
    """The participation ratio 1 / sum(share ** 2), against NumPy's own Dirichlet; wrongly refused in 1 of 10,000."""
    labels, clients = balanced(10, 5000), 20
    ours = []
    for seed in range(20):
        parts = deal(labels, Partition("dirichlet", clients, 0.3, min_examples=1, seed=seed), None)
        counts = np.stack([np.bincount(labels[part], minlength=10) for part in parts.values()])
        ours.extend(1 / ((counts / 5000) ** 2).sum(axis=0))
    numpys = 1 / (np.random.default_rng(7).dirichlet([0.3] * clients, 2000) ** 2).sum(axis=1)
    assert stats.ks_2samp(ours, numpys).pvalue > 1e-4


def test_dirichlet_takes_examples_of_a_class_at_random_not_in_the_order_of_the_file():
    parts = deal(np.zeros(2000, np.int32), Partition("dirichlet", 4, 5.0), None)
    for part in parts.values():  # a run of neighbours would have its mean far from the middle: z is standard normal
        z = (part.mean() - 999.5) / np.sqrt(2000**2 / 12 / len(part) * (1 - len(part) / 2000))
        assert abs(z) < 5


@pytest.mark.parametrize("each", [1, 2, 3, 10])
def test_pathological_clients_have_exactly_so_many_classes_and_equal_parts_of_them(each):
    labels = balanced()
    parts = partition_indices(labels, Partition("pathological", 30, classes_per_client=each))
    assert {len(classes) for classes in classes_of(parts, labels)} == {each}
    assert all(client % 10 in classes for client, classes in enumerate(classes_of(parts, labels)))
    assert every_index_once(parts, len(labels))
    for label in range(10):
        held = [count for part in parts.values() if (count := np.sum(labels[part] == label))]
        assert max(held) - min(held) <= 1


def test_pathological_clients_are_filled_up_with_their_own_classes_only():
    labels = np.repeat(np.arange(4), [40, 100, 400, 400]).astype(np.int32)
    partition = Partition("pathological", 40, classes_per_client=2, min_examples=8)
    assert sizes(deal(labels, replace(partition, min_examples=1), None)).min() < 8
    parts = deal(labels, partition, None)
    assert sizes(parts).min() >= 8
    assert {len(classes) for classes in classes_of(parts, labels)} == {2}
    assert every_index_once(parts, len(labels))


def test_pathological_tells_of_classes_that_nobody_can_hold(caplog):
    parts = partition_indices(balanced(), Partition("pathological", 2, classes_per_client=2))
    assert sizes(parts).sum() == 600 * len(set.union(*classes_of(parts, balanced())))
    assert "examples are left out: num-clients=2 clients of classes-per-client=2" in caplog.text


def test_shards_are_those_of_the_fedavg_paper(mnist_labels):
    """MNIST sorted by label, 200 shards of 300, two for each of 100 clients (McMahan et al. 2017, section 3)."""
    parts = partition_indices(mnist_labels, Partition("shards", 100, classes_per_client=2))
    assert set(sizes(parts).tolist()) == {600}
    assert every_index_once(parts, 60_000)
    held = [len(classes) for classes in classes_of(parts, mnist_labels)]
    assert sum(number > 2 for number in held) <= 9  # only a shard across one of the 9 borders brings another class
    for part in parts.values():  # what a client has of a class is one or two shards, or the piece of one at a border
        counts = np.bincount(mnist_labels[part])
        assert counts.max() >= 300 or (counts > 0).sum() > 2


def test_shards_that_do_not_divide_evenly_lose_nothing():
    parts = partition_indices(balanced(10, 144)[:1437], Partition("shards", 50, classes_per_client=2))
    assert every_index_once(parts, 1437)
    assert set(sizes(parts).tolist()) <= {28, 29, 30}


@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0, 2.0])
def test_quantity_gives_client_k_a_share_in_proportion_to_k_to_the_skew(skew):
    parts = partition_indices(balanced(), Partition("quantity", 10, quantity_skew=skew))
    weights = np.arange(1, 11) ** skew
    np.testing.assert_allclose(sizes(parts), 6000 * weights / weights.sum(), atol=1)


def test_quantity_mixes_the_classes():
    labels = balanced()
    parts = partition_indices(labels, Partition("quantity", 10))
    table = [np.bincount(labels[part], minlength=10) for part in parts.values()]
    assert stats.chi2_contingency(table).pvalue > 1e-6


def test_natural_keeps_whole_numbers_in_order_and_ignores_num_clients():
    ids = np.array([10, 2, 2, 33, 10, 33, 33])
    parts = partition_indices(np.zeros(7, np.int32), Partition("natural", num_clients=500), ids)
    assert {client: part.tolist() for client, part in parts.items()} == {"2": [1, 2], "10": [0, 4], "33": [3, 5, 6]}
    assert list(parts) == ["2", "10", "33"]


def test_natural_names_are_kept(caplog):
    parts = partition_indices(np.zeros(5, np.int32), Partition("natural"), np.array(["Zürich", "Basel"] * 2 + ["Chur"]))
    assert {client: part.tolist() for client, part in parts.items()} == {"Basel": [1, 3], "Zürich": [0, 2]}
    assert "1 of 5 examples are left out, those of clients with fewer than min-client-examples=2" in caplog.text


def test_natural_shows_no_progress_bar(capsys):
    partition_indices(np.zeros(7, np.int32), Partition("natural"), np.zeros(7, int))
    assert capsys.readouterr() == ("", "")


def test_femnist_writers_of_real_data(shared_data):
    with np.load(shared_data / "femnist_digits_by_writer" / "femnist_digits_190.npz") as file:
        labels, client, writers = file["y"], file["client"], file["writers"]
    parts = partition_indices(labels, Partition("natural"), writers[client])
    assert (len(parts), sizes(parts).min(), sizes(parts).max()) == (190, 5, 119)
    assert every_index_once(parts, 18_544)
    for name, part in parts.items():
        assert set(writers[client[part]]) == {name}


# Filling up


def filled_up_sizes(before, least):
    """The rule on sizes alone, as slowly as it reads."""
    now = list(before)
    for client in range(len(now)):
        while now[client] < least:
            giver = min(range(len(now)), key=lambda other: (-now[other], other))
            if now[giver] <= least:
                return None
            now[giver] -= 1
            now[client] += 1
    return now


@settings(max_examples=100, deadline=None)
@given(before=st.lists(st.integers(0, 12), min_size=1, max_size=12), least=st.integers(1, 5), seed=st.integers(0, 99))
def test_filling_up_takes_one_by_one_from_the_largest(before, least, seed):
    examples = sum(before)
    parts = np.split(np.arange(examples), np.cumsum(before)[:-1])
    expected = filled_up_sizes(before, least)
    pools, everything = np.zeros(examples, np.int64), [[0]] * len(parts)
    if expected is None:
        with pytest.raises(CannotFillUpError):
            top_up(parts, pools, everything, least, seed)
        return
    filled = top_up(parts, pools, everything, least, seed)
    assert [len(part) for part in filled] == expected
    assert sorted(np.concatenate(filled).tolist()) == list(range(examples))
    for part, was in zip(filled, parts, strict=True):
        assert set(was) <= set(part) or set(part) <= set(was)


def test_a_giver_keeps_one_of_each_pool_and_a_taker_gets_only_open_ones():
    parts = [np.array([0, 1, 2, 3, 4, 5]), np.array([6])]
    pools = np.array([0, 0, 0, 0, 1, 1, 1])
    assert {*top_up(parts, pools, [[0, 1], [1]], 2, seed=0)[1].tolist()} & {4, 5}
    with pytest.raises(CannotFillUpError) as error:
        top_up(parts, pools, [[0, 1], [1]], 3, seed=0)
    assert error.value.client == 1


def test_clients_that_cannot_give_to_each_other_are_brought_together_through_others():
    # Client 2 lacks an example of class 0, which 1 alone has more of; 1 has no example too many, but 0 can give it one.
    parts = [np.array([0, 1, 2, 3]), np.array([4, 5, 6]), np.array([7, 8])]
    pools = np.array([1, 1, 1, 1, 0, 0, 1, 0, 2])
    held = [[1], [0, 1], [0, 2]]
    filled = top_up(parts, pools, held, 3, seed=0)
    assert sorted(np.concatenate(filled).tolist()) == list(range(9))
    assert [len(part) for part in filled] == [3, 3, 3]
    assert [set(pools[part]) for part in filled] == [set(classes) for classes in held]


@settings(max_examples=200, deadline=None)
@given(
    held=st.lists(st.sets(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=8),
    examples=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    least=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_dealing_anew_succeeds_whenever_that_is_possible(held, examples, least, seed):
    examples = [number if any(k in classes for classes in held) else 0 for k, number in enumerate(examples)]
    pools, opened = np.repeat(np.arange(4), examples), [sorted(classes) for classes in held]
    parts = [np.arange(len(pools)), *[np.arange(0)] * (len(held) - 1)]
    too_few = any(number < sum(k in classes for classes in held) for k, number in enumerate(examples))
    if too_few or impossible(examples, held, least):
        with pytest.raises(CannotFillUpError):
            redealt(parts, pools, opened, least, np.random.default_rng(seed))
        return
    dealt = redealt(parts, pools, opened, least, np.random.default_rng(seed))
    assert sorted(np.concatenate(dealt).tolist()) == list(range(len(pools)))
    assert [set(pools[part]) for part in dealt] == held
    assert min(map(len, dealt)) >= least


# What is kept on disk


def the_file():
    (path,) = (cache_folder() / "partitions").glob("*")
    return path


def test_what_is_kept_is_used(monkeypatch):
    first = partition_indices(balanced(), Partition())
    monkeypatch.setattr("tasks.dealing.deal", lambda *_: pytest.fail("dealt again"))
    second = partition_indices(balanced(), Partition())
    assert list(first) == list(second)
    assert all(np.array_equal(first[client], second[client]) for client in first)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "iid"},
        {"num_clients": 51},
        {"dirichlet_alpha": 0.6},
        {"classes_per_client": 3},
        {"quantity_skew": 2.0},
        {"min_examples": 3},
        {"seed": 1},
    ],
    ids=str,
)
def test_other_parameters_are_kept_apart(change):
    partition_indices(balanced(), Partition())
    partition_indices(balanced(), replace(Partition(), **change))
    assert len(list((cache_folder() / "partitions").iterdir())) == 2


def test_other_labels_and_ids_are_kept_apart():
    labels = balanced(2, 4)
    for ids in (np.arange(8) % 2, np.arange(8) % 4, (np.arange(8) % 2).astype(str)):
        partition_indices(labels, Partition("natural"), ids)
        partition_indices(labels[::-1], Partition("natural"), ids)
    assert len(list((cache_folder() / "partitions").iterdir())) == 6


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def another_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("ids.npy", b"no array")


def unpickle_me(path):
    np.savez(path, ids=np.array(["0"], object), flat=np.arange(3), ends=np.array([3]))


def indices_twice(path):
    np.savez(path, ids=np.array(["0", "1"]), flat=np.zeros(4, np.int64), ends=np.array([2, 4]))


def indices_out_of_range(path):
    np.savez(path, ids=np.array(["0"]), flat=np.array([1, 10**6]), ends=np.array([2]))


def ends_that_do_not_fit(path):
    np.savez(path, ids=np.array(["0", "1"]), flat=np.arange(4), ends=np.array([2, 5]))


@pytest.mark.parametrize(
    "damage",
    [cut_short, flip_a_bit, empty, another_zip, unpickle_me, indices_twice, indices_out_of_range, ends_that_do_not_fit],
)
def test_a_damaged_file_is_made_anew(damage, caplog):
    first = partition_indices(balanced(), Partition())
    path = the_file()
    whole = path.read_bytes()
    damage(path)
    second = partition_indices(balanced(), Partition())
    assert all(np.array_equal(first[client], second[client]) for client in first)
    assert "made anew" in caplog.text
    assert len(the_file().read_bytes()) == len(whole)


def test_without_a_cache_folder_everything_goes_on(tmp_path, monkeypatch, caplog):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setenv("FEDKERAS_CACHE", str(in_the_way))
    assert len(partition_indices(balanced(), Partition())) == 50
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * len(caplog.records)
    assert "cannot be kept" in caplog.text


def test_many_that_write_and_read_one_file_at_once_see_it_whole(tmp_path):
    path = tmp_path / "file.npz"

    def write_and_read(number):
        with whole_file(path) as temporary:
            np.savez(temporary, number=np.full(10_000, number))
        with np.load(path) as file:
            return len(set(file["number"].tolist()))

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(write_and_read, range(100))) == {1}
    assert [entry.name for entry in path.parent.iterdir()] == ["file.npz"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError), whole_file(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "old")]


@pytest.mark.parametrize(("chosen", "folder"), [("~/here", "/home/me/here"), ("", "/home/me/.cache/fedkeras")])
def test_the_cache_folder(chosen, folder, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("FEDKERAS_CACHE", chosen)
    assert str(cache_folder()) == folder


def test_reading_what_is_kept_needs_no_flwr_datasets():
    partition_indices(balanced(), Partition())
    script = (
        "import sys, numpy as np; from tasks.partition import *\n"
        "partition_indices(np.repeat(np.arange(10, dtype=np.int32), 600), Partition())\n"
        "sys.exit('flwr_datasets' in sys.modules or 'tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)


# Mistakes


@pytest.mark.parametrize(
    ("partition", "sentence"),
    [
        (
            Partition("dirichelet"),
            r"partition='dirichelet' is not known \(did you mean 'dirichlet'.\): use one of iid, dirichlet, ",
        ),
        (Partition(num_clients=0), "num-clients=0 is not allowed: 'num-clients' must be at least 1."),
        (
            Partition(num_clients=21),
            "num-clients=21 are more clients than the 20 examples there are to train on: lower",
        ),
        (Partition(num_clients=11), "num-clients=11 with min-client-examples=2 needs 22 examples, but there are 20"),
        (Partition(dirichlet_alpha=0), "dirichlet-alpha=0 is not allowed: 'dirichlet-alpha' must be above 0."),
        (Partition(dirichlet_alpha=float("nan")), "dirichlet-alpha=nan is not allowed"),
        (Partition("quantity", quantity_skew=-1.0), "quantity-skew=-1.0 is not allowed"),
        (Partition(min_examples=0), "min-client-examples=0 is not allowed"),
        (Partition(seed=-1), "seed=-1 is not allowed"),
        (Partition("pathological", 5, classes_per_client=5), "classes-per-client=5 .* more than the 4 classes"),
        (Partition("pathological", 8, classes_per_client=4), "some class has fewer examples than clients"),
        (Partition("pathological", 9, min_examples=2, classes_per_client=1), "cannot give client"),
        (Partition("shards", 10, classes_per_client=3), "needs 30 shards, but there are only 20 examples"),
        (Partition("natural"), "partition='natural' needs a data set that says whose each example is"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else f"{value.kind}-{value.num_clients}",
)
def test_mistakes_are_told_in_a_sentence(partition, sentence):
    labels = np.repeat(np.arange(4), [3, 5, 6, 6]).astype(np.int32)
    with pytest.raises(TaskError, match=sentence.replace("?", r"\?")) as error:
        partition_indices(labels, partition)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("ids", [np.arange(3), np.array([0.5, 1, 2, 3]), np.array([[1], [2], [3], [4]])], ids=str)
def test_natural_ids_must_fit_the_examples(ids):
    with pytest.raises(TaskError, match="one whole number or string per example as client id"):
        partition_indices(np.zeros(4, np.int32), Partition("natural"), ids)


def test_natural_clients_that_are_all_too_small():
    with pytest.raises(TaskError, match=r"min-client-examples=4 is more than any client .* to 3 or less\."):
        partition_indices(np.zeros(5, np.int32), Partition("natural", min_examples=4), np.array([1, 1, 1, 2, 2]))
