"""The user's npz file: what its keys mean, and that no bytes in it do more than raise a TaskError."""

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data import FederatedData
from tasks.datasets import DataSpec, load_data
from tasks.errors import TaskError
from tasks.partition import Partition

HEART = "heart_disease_uci/fed_heart_flamby_split.npz"
X = np.arange(24, dtype=np.float32).reshape(8, 3)
Y = np.array([0, 1, 0, 1, 2, 2, 0, 1])


def spec(dataset: str, kind: Any = "natural", test_fraction: float = 0.25, **partition: Any) -> DataSpec:
    return DataSpec(dataset, Partition(kind, min_examples=1, **partition), test_fraction, 0.25, seed=3)


def opened(path: Path | str, query: str = "", **options: Any) -> FederatedData:
    return load_data(spec(f"npz:{path}{query}", **options))


def saved(folder: Path, name: str = "own.npz", **arrays: Any) -> Path:
    path = folder / name
    np.savez_compressed(path, **{"x": X, "y": Y, **arrays})
    return path


def rows(data: FederatedData, client: str) -> list[float]:
    """The first numbers of a client's examples: which ones it has."""
    train, test = data.train(client), data.test(client)
    return sorted([*train.x[:, 0].tolist(), *test.x[:, 0].tolist()])


# What a file means


def test_flamby_heart_disease_opens_as_it_is(shared_data: Path) -> None:
    path = shared_data / HEART
    data = opened(path, "?x=x_percenter_norm&client=center&client-names=centers&test=test")
    sizes = {client: (data.num_train(client), len(data.test(client))) for client in data.client_ids}
    published = {"cleveland": (199, 104), "hungarian": (172, 89), "switzerland": (30, 16), "va": (85, 45)}
    assert sizes == published
    assert (data.num_classes, data.input_shape, len(data.central_test())) == (2, (13,), 254)
    with np.load(path) as file:
        own = (file["center"] == 3) & (file["test"] == 1)
        np.testing.assert_array_equal(data.test("va").x, file["x_percenter_norm"][own])
        np.testing.assert_array_equal(data.test("va").y, file["y"][own])
        every = np.bincount(file["center"][file["test"] == 0] * 2 + file["y"][file["test"] == 0].astype(int))
    np.testing.assert_array_equal(data.label_counts(), every.reshape(4, 2))


def test_without_names_the_clients_are_the_numbers(shared_data: Path) -> None:
    data = opened(shared_data / HEART, "?x=x_raw&client=center")
    assert data.client_ids == ("0", "1", "2", "3")
    assert data.num_train("2") == 30


def test_femnist_by_writer_are_scaled_images(shared_data: Path) -> None:
    data = opened(shared_data / "femnist_digits_by_writer/femnist_digits_190.npz", "?client-names=writers")
    assert (len(data.client_ids), data.input_shape, data.num_classes) == (190, (28, 28, 1), 10)
    x = data.train(data.client_ids[0]).x
    assert x.dtype == np.float32
    assert x.max() == np.float32(255) * np.float32(1 / 255)


def test_every_example_is_somewhere_once_and_the_mask_is_never_trained_on(tmp_path: Path) -> None:
    mask = np.array([0, 0, 1, 0, 1, 0, 0, 1])
    path = saved(tmp_path, client=np.array(list("baabbaab")), test=mask)
    data = opened(path)
    assert data.client_ids == ("a", "b")
    assert rows(data, "a") == X[[1, 2, 5, 6], 0].tolist()
    assert rows(data, "b") == X[[0, 3, 4, 7], 0].tolist()
    np.testing.assert_array_equal(data.test("b").y, Y[[4, 7]])
    np.testing.assert_array_equal(data.central_test().x, X[mask == 1])


def test_whoever_has_nothing_to_train_on_is_no_client(tmp_path: Path) -> None:
    data = opened(saved(tmp_path, client=Y, test=Y == 1))
    assert data.client_ids == ("0", "2")
    assert len(data.central_test()) == 3


def test_a_file_that_is_all_test_set_is_what_a_server_holds(tmp_path: Path) -> None:
    data = opened(saved(tmp_path, test=np.ones(8, bool)))
    assert data.client_ids == ()
    assert data.label_counts().shape == (0, 3)
    np.testing.assert_array_equal(data.central_test().x, X)


@pytest.mark.parametrize("mask", [np.zeros(8, bool), np.array([1, 0, 0, 0, 0, 0, 0, 1], np.float64)])
def test_other_partitions_leave_the_mask_to_the_central_test(tmp_path: Path, mask: np.ndarray) -> None:
    data = opened(saved(tmp_path, test=mask, client=Y), kind="iid", num_clients=2)
    held_out = X[mask == 1, 0].tolist()
    assert data.central_test().x[:, 0].tolist() == held_out
    assert sorted([*rows(data, "0"), *rows(data, "1"), *held_out]) == X[:, 0].tolist()


def test_without_a_mask_both_fractions_are_cut(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.arange(200.0).reshape(100, 2), y=np.arange(100) % 5, client=np.arange(100) // 50)
    data = opened(path, test_fraction=0.1)
    assert len(data.central_test()) == 10
    assert sum(data.num_train(c) + len(data.test(c)) for c in data.client_ids) == 90
    assert 20 <= sum(len(data.test(c)) for c in data.client_ids) <= 25
    every = [*data.central_test().x[:, 0], *rows(data, "0"), *rows(data, "1")]
    assert sorted(every) == np.arange(0, 200, 2).tolist()


def test_a_file_without_clients_is_one_client_named_as_the_file(tmp_path: Path) -> None:
    assert opened(saved(tmp_path, "charité.npz")).client_ids == ("charité",)
    assert opened(saved(tmp_path, "st-mary.npz", test=Y == 1)).client_ids == ("st-mary",)


def test_classes_that_do_not_occur_can_be_announced(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert opened(path).num_classes == 3
    assert opened(path, "?classes=7").num_classes == 7
    assert opened(saved(tmp_path, test=Y == 1), "?classes=7").num_classes == 7
    assert opened(saved(tmp_path, y=np.zeros(8))).num_classes == 2
    with pytest.raises(TaskError, match="label 2, but"):
        opened(saved(tmp_path, test=Y == 1), "?classes=2")


def test_floats_stay_as_they_are_and_bytes_are_scaled_only_as_images(tmp_path: Path) -> None:
    images = np.full((8, 4, 4), 255, np.uint8)
    np.testing.assert_allclose(opened(saved(tmp_path, x=images)).train("own").x, 1.0)
    assert opened(saved(tmp_path, x=images)).input_shape == (4, 4, 1)
    assert opened(saved(tmp_path, x=images.astype(np.float64))).input_shape == (4, 4)
    assert opened(saved(tmp_path, x=images.astype(np.float64))).train("own").x.max() == 255
    assert opened(saved(tmp_path, x=images[:, 0])).train("own").x.max() == 255


@pytest.mark.parametrize(
    "ids", [np.array([b"s\xc3\xbcd", b"ost"] * 4), np.array([7, -3] * 4), np.array([2**63, 1] * 4, np.uint64)]
)
def test_ids_may_be_bytes_and_any_whole_numbers(tmp_path: Path, ids: np.ndarray) -> None:
    data = opened(saved(tmp_path, client=ids))
    expected = {value.decode() if isinstance(value, bytes) else str(value) for value in ids.tolist()}
    assert set(data.client_ids) == expected


def test_a_question_mark_may_belong_to_the_name(tmp_path: Path) -> None:
    assert opened(saved(tmp_path, "what?.npz")).num_classes == 3
    assert opened(saved(tmp_path, "what?.npz"), "?classes=4").num_classes == 4


def test_uncompressed_fortran_and_old_files_open(tmp_path: Path) -> None:
    path = tmp_path / "plain.npz"
    np.savez(path, x=np.asfortranarray(X.astype(">f8")), y=Y.astype(np.uint8)[:, None])
    data = opened(path)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([data.train("plain").x, data.test("plain").x, data.central_test().x]), axis=0), X
    )


# What is wrong with a file

WRONG = [
    ({"x": X[:5]}, r"y has shape \[8\], but must hold one label for each of the 5"),
    ({"y": Y - 1}, "y holds -1 .* whole numbers from 0"),
    ({"y": Y + 0.5}, "y holds 0.5 .* whole numbers from 0"),
    ({"y": Y.astype(float) * np.nan}, "y holds nan"),
    ({"y": Y + 10**12}, "y holds 1000000000000"),
    ({"y": Y.astype(np.uint64) + 2**63}, "y holds 9223372036854775808"),
    ({"y": Y * 400_000}, "label 800000 with only 8 examples"),
    ({"y": Y.astype(str)}, "y has dtype <U"),
    ({"y": np.array(list("abcdefgh"), object)}, "'y' has dtype object"),
    ({"x": np.where(X == 5, np.nan, X)}, "x is NaN or infinite .* example 1"),
    ({"x": np.where(X == 5, 1e300, X.astype(float))}, "x is NaN or infinite"),
    ({"x": X.astype(complex)}, "'x' has dtype complex128"),
    ({"x": X[:, 0]}, r"x has dtype float32 and shape \[8\]"),
    ({"x": X[:0], "y": Y[:0]}, "'x' is empty"),
    ({"test": Y}, r"test mask has dtype int64 .* must hold 0 or 1"),
    ({"test": Y[:3] > 1}, "for each of the 8 examples"),
    ({"client": Y + 0.5}, "'client' has dtype float64"),
    ({"client": Y[:4]}, r"'client' has dtype int64 and shape \[4\]"),
    ({"client": np.array([""] * 7 + ["a"])}, "empty name"),
    ({"client": np.array([b"\xff"] * 8)}, "not UTF-8"),
]


@pytest.mark.parametrize(("arrays", "sentence"), WRONG)
def test_wrong_values_are_a_sentence_with_the_files_name(tmp_path: Path, arrays: dict, sentence: str) -> None:
    with np.errstate(over="ignore"), pytest.raises(TaskError, match=sentence) as error:
        opened(saved(tmp_path, **arrays))
    assert "own.npz" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?x=pixels", "no array 'pixels' in the file, only 'x', 'y', 'who', 'names': choose keys"),
        ("?y=labels&x=x", "no array 'labels'"),
        ("?test=held_out", "no array 'held_out'"),
        ("?clients=who", "'clients=who' after the '\\?' must be one of x, y, client, test, client-names, classes"),
        ("?client=", "'client=' after"),
        ("?classes=1", "classes=1, but must be a whole number from 2"),
        ("?classes=ten", "classes=ten"),
        ("?classes=" + "9" * 5000, "must be a whole number from 2"),
        ("?client-names=names", "needs an array 'client'"),
        ("?client=who&client-names=who", "must hold indices into 'who'"),
        ("?client=who&client-names=names", "must hold indices into 'names'"),
    ],
)
def test_wrong_queries_are_a_sentence(tmp_path: Path, query: str, sentence: str) -> None:
    path = saved(tmp_path, who=Y, names=np.array(["a", "b"]))
    with pytest.raises(TaskError, match=sentence):
        opened(path, query)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere.npz", "there is no file '.*nowhere.npz'"),
        ("", "there is no file"),
        ("a" * 5000, "a" * 20),
        ("~nobody-has-this-name/a.npz", "write the path in full"),
        ("nul\0byte", "there is no file"),
    ],
)
def test_a_missing_file_is_a_sentence(tmp_path: Path, monkeypatch: Any, name: str, sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError, match=sentence):
        opened("~" + name[1:] if name.startswith("~") else tmp_path / name)


# Bytes that nobody vouches for


def npy(header: str, payload: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + payload


def zipped(path: Path, member: bytes, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("x.npy", member)
        buffer = io.BytesIO()
        np.save(buffer, Y)
        archive.writestr("y.npy", buffer.getvalue())
    return path


HOSTILE = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (8, 1000000000000)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (8, 9999999999999999999999)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-8, -1)}",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,)}",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 8)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 8)}",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': ['<f4'] * 9, 'fortran_order': False, 'shape': (8,)}",
    "(" * 5000,
    "{'descr': __import__('os')}",
    "",
]


@pytest.mark.parametrize("header", HOSTILE)
def test_hostile_headers_are_refused_without_their_memory(tmp_path: Path, header: str) -> None:
    path = zipped(tmp_path / "hostile.npz", npy(header, bytes(32)))
    tracemalloc.start()
    try:
        with pytest.raises(TaskError, match=r"hostile\.npz"):
            opened(path)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_a_directory_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    size = 2**31
    member = npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': (8, {size // 8})}}", bytes(64))
    path = zipped(tmp_path / "bomb.npz", member, compression=zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02") + 24
    raw[at : at + 4] = struct.pack("<I", size + len(member) - 64)
    path.write_bytes(raw)
    with pytest.raises(TaskError, match="declares more bytes than the file holds"):
        opened(path)


def test_a_flipped_bit_in_the_numbers_is_found_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "flipped.npz"
    np.savez(path, x=X, y=Y)
    raw = bytearray(path.read_bytes())
    raw[raw.index(X.tobytes()) + 40] ^= 1
    path.write_bytes(raw)
    with pytest.raises(TaskError, match=r"flipped\.npz.*not a readable npz.*CRC"):
        opened(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 99, npy("{}")])
def test_other_files_are_not_a_readable_npz(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=r"not a readable npz .*numpy\.savez_compressed"):
        opened(path)


def test_exotic_compression_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "lzma.npz", npy("{}"), compression=zipfile.ZIP_LZMA)
    with pytest.raises(TaskError, match="NumPy does not write"):
        opened(path)


BASES = []
for save in (np.savez, np.savez_compressed):
    buffer = io.BytesIO()
    save(buffer, x=X, y=Y, client=Y % 2, test=Y == 2)
    BASES.append(buffer.getvalue())
places = st.integers(0, min(map(len, BASES)) - 1)
mutations = st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)


@settings(max_examples=250, deadline=None)
@given(base=st.sampled_from(BASES), changes=mutations, cut=st.one_of(st.none(), st.tuples(places, places)))
def test_mutated_files_raise_nothing_but_task_errors(
    tmp_path_factory: pytest.TempPathFactory, base: bytes, changes: list[tuple[int, int]], cut: tuple[int, int] | None
) -> None:
    raw = bytearray(base)
    for place, value in changes:
        raw[place] = value
    if cut is not None:
        del raw[min(cut) : max(cut)]
    path = tmp_path_factory.getbasetemp() / "mutated.npz"
    path.write_bytes(raw)
    try:
        data = opened(path)
    except TaskError as error:
        assert "mutated" in str(error)
    else:
        assert data.num_classes >= 2


NPY = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (8, 3), }", X.tobytes())


@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 75), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 9))
def test_mutated_arrays_in_a_sound_zip_raise_nothing_but_task_errors(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], missing: int
) -> None:
    raw = bytearray(NPY)
    for place, value in changes:
        raw[place] = value
    path = zipped(tmp_path_factory.getbasetemp() / "sound.npz", bytes(raw[: len(raw) - missing]))
    try:
        opened(path)
    except TaskError as error:
        assert "sound.npz" in str(error)
