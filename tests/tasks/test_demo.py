"""The digits as silos: the same for everyone, also when several processes want them at once."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tasks.datasets import DataSpec, load_data
from tasks.datasets.demo import SILOS, digits_silos, write_npz_silos
from tasks.errors import TaskError
from tasks.partition import Partition


def everything(data, part: str) -> np.ndarray:
    stream = data.central_test() if part == "central" else getattr(data, part[0])(part[1])
    return np.concatenate(
        [x.reshape(len(x), -1) for x, _ in stream.batches(64, seed=None, epochs=1).as_numpy_iterator()]
    )


def test_the_silos_hold_every_digit_once() -> None:
    data = digits_silos()
    parts = ["central", *((kind, silo) for kind in ("train", "test") for silo in SILOS)]
    rows = np.concatenate([everything(data, part) for part in parts])
    x = load_digits().data / 16
    assert (data.client_ids, data.num_classes, data.input_shape) == (SILOS, 10, (8, 8, 1))
    np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(x.astype(np.float32), axis=0))
    assert len(rows) == len(x) == 1797
    assert len(data.central_test()) == 359


def test_silos_are_skewed_but_lack_no_digit() -> None:
    counts = digits_silos().label_counts()
    assert counts.min() >= 1
    assert (counts.max(axis=0) > 2 * counts.min(axis=0)).all()


def test_the_second_call_writes_nothing() -> None:
    digits_silos()
    (folder,) = Path(os.environ["FEDKERAS_CACHE"]).glob("digits-silos-*")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    digits_silos()
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_racing_callers_get_the_same() -> None:
    with ThreadPoolExecutor(4) as pool:
        data = list(pool.map(lambda _: digits_silos(), range(4)))
    for other in data[1:]:
        np.testing.assert_array_equal(other.label_counts(), data[0].label_counts())
    assert [path.name for path in Path(os.environ["FEDKERAS_CACHE"]).glob("*digits*")] == ["digits-silos-1"]


def test_the_run_config_finds_them() -> None:
    data = load_data(DataSpec("tasks.datasets.demo:digits_silos", Partition("natural"), 0.2, 0.2, 0))
    assert data.client_ids == SILOS


def test_a_cache_that_cannot_be_written_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDKERAS_CACHE", "/proc/nowhere")
    with pytest.raises(TaskError, match=r"cannot be written to .* FEDKERAS_CACHE"):
        digits_silos()


def test_files_for_nodes_hold_the_same_silos_and_the_servers_file_no_client(tmp_path: Path) -> None:
    files = write_npz_silos(tmp_path / "nodes")
    assert [path.name for path in files] == [*(f"{silo}.npz" for silo in SILOS), "held-out.npz"]
    opened = [load_data(DataSpec(f"npz:{path}", Partition("natural"), 0, 0, 0)) for path in files]
    assert [data.client_ids for data in opened] == [*((silo,) for silo in SILOS), ()]
    silos = digits_silos()
    for silo, data in zip(SILOS, opened, strict=False):
        own = [everything(silos, (part, silo)) for part in ("train", "test")]
        expected = np.unique(np.concatenate(own), axis=0)
        np.testing.assert_array_equal(np.unique(data.train(silo).x.reshape(-1, 64), axis=0), expected)
    np.testing.assert_array_equal(opened[-1].central_test().x.reshape(-1, 64), everything(silos, "central"))


def test_files_for_nodes_need_a_folder_that_can_be_written() -> None:
    with pytest.raises(TaskError, match="No silos can be written to '/proc/nowhere'"):
        write_npz_silos(Path("/proc/nowhere"))


def test_files_for_nodes_are_wholly_there_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in write_npz_silos(tmp_path)}
    savez = np.savez_compressed

    def disk_runs_full(file: Path, **arrays: np.ndarray) -> None:
        savez(file, **arrays)
        os.truncate(file, 100)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", disk_runs_full)
    with pytest.raises(TaskError, match=r"No silos can be written to .* \(No space left on device\)"):
        write_npz_silos(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
