"""Run directories: names, uniqueness, files that can be read back by others, and sentences where none can be made."""

import json
import os
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from flwr.common.config import get_fused_config_from_dir, parse_config_args
from hypothesis import given
from hypothesis import strategies as st

from app import plain_json
from app.errors import UserError
from app.run_directory import RunDirectory, RunState, Scalar, file_name, to_toml
from app.versions import installed_versions
from strategies.population import ClientInfo

WHEN = datetime(2025, 3, 9, 14, 5, 0)


def test_the_folder_is_named_by_date_and_name(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "runs", "digits-cnn-small", WHEN)
    assert directory.path == tmp_path / "runs" / "20250309-140500-digits-cnn-small"
    assert directory.path.is_dir()


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("mnist-mlp", "mnist-mlp"),
        ("npz:/data/heart 1.npz?x=a&client=b-mlp", "npz-data-heart-1.npz-x-a-client-b-mlp"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "run"),
        ("", "run"),
        ("/", "run"),
        ("ünïcode\n\0", "n-code"),
        ("x" * 300, "x" * 80),
    ],
)
def test_any_name_becomes_a_file_name(given_name: str, expected: str) -> None:
    assert file_name(given_name) == expected


@given(st.text())
def test_a_file_name_is_never_more_than_a_name(name: str) -> None:
    plain = file_name(name)
    assert plain == Path(plain).name
    assert plain.isascii()
    assert 0 < len(plain) <= 80


def test_runs_that_start_together_do_not_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: RunDirectory.create(tmp_path / "runs", "same", WHEN), range(64)))
    assert len({directory.path for directory in made}) == 64
    assert len(list((tmp_path / "runs").iterdir())) == 64
    assert (tmp_path / "runs" / "20250309-140500-same-2").is_dir()


def test_a_sentence_where_the_parent_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"No such file or directory\): set the key 'runs-dir' to a folder that you can"
    ):
        RunDirectory.create(tmp_path / "no" / "runs", "x", WHEN)


def test_a_sentence_where_runs_dir_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match=r"'.*/runs' \(.*\): set the key 'runs-dir'"):
        RunDirectory.create(tmp_path / "runs", "x", WHEN)


@pytest.fixture
def nobody() -> Iterator[None]:
    """Permissions bind everyone but root, so root becomes someone else for a while."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)


def test_a_sentence_where_runs_dir_is_not_writable(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tmp_path.chmod(0o555)
    request.getfixturevalue("nobody")
    with pytest.raises(UserError, match=r"Permission denied\): set the key 'runs-dir'"):
        RunDirectory.create(tmp_path / "runs", "x", WHEN)


scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8")),
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), scalars))
def test_toml_reads_back_as_it_was(config: dict[str, Scalar]) -> None:
    read = tomllib.loads(to_toml(config))
    assert read == config
    assert list(map(type, read.values())) == list(map(type, config.values()))


def test_only_scalars_are_written_as_toml() -> None:
    with pytest.raises(TypeError, match="scalars only, not list"):
        to_toml({"key": [1]})  # type: ignore[dict-item]


def test_flower_itself_takes_the_config_file_as_an_override(tmp_path: Path) -> None:
    config: dict[str, Scalar] = {
        "name": 'quotes " and \\ and = signs',
        "learning-rate": 1e-05,
        "server-learning-rate": 1.0,
        "num-rounds": 30,
        "nested": True,
        "client-optimizer-args": "",
    }
    directory = RunDirectory.create(tmp_path, "x", WHEN)
    directory.write_config(config)
    assert parse_config_args([str(directory.config)]) == config
    defaults = to_toml({key: type(value)() for key, value in config.items()})
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "a"\nversion = "1.0"\nlicense = "MIT"\n[tool.flwr.app]\npublisher = "p"\n'
        '[tool.flwr.app.components]\nserverapp = "a:b"\nclientapp = "a:b"\n[tool.flwr.app.config]\n' + defaults
    )
    assert get_fused_config_from_dir(tmp_path, parse_config_args([str(directory.config)])) == config


def test_versions_hold_packages_python_platform_and_code(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path, "x", WHEN)
    directory.write_versions("f00d", "/code")
    versions = json.loads(directory.versions.read_text())
    assert versions["numpy"] == np.__version__
    assert {"fedkeras", "flwr", "tensorflow", "keras", "ray", "python", "platform"} < versions.keys()
    assert (versions["fingerprint"], versions["location"]) == ("f00d", "/code")


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.versions.PACKAGES", ("no-such-package",))
    assert installed_versions()["no-such-package"] is None


CLIENTS = [ClientInfo("b", 3, "phone", "eu"), ClientInfo("a")]


def test_population_by_column(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path, "x", WHEN)
    directory.write_population(CLIENTS, {"a": [1, 0], "b": [1, 2], "c": [9, 9]})
    assert json.loads(directory.population.read_text()) == {
        "clients": ["b", "a"],
        "examples": [3, None],
        "device-classes": ["phone", ""],
        "regions": ["eu", ""],
        "label-counts": [[1, 2], [1, 0]],
    }


@pytest.mark.parametrize("counts", [None, {}, {"a": [1, 2]}])
def test_label_counts_are_all_or_nothing(tmp_path: Path, counts: dict[str, list[int]] | None) -> None:
    directory = RunDirectory.create(tmp_path, "x", WHEN)
    directory.write_population(CLIENTS, counts)
    assert json.loads(directory.population.read_text())["label-counts"] is None


def test_label_counts_may_be_rows_of_an_array(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path, "x", WHEN)
    matrix = np.array([[1, 2], [3, 4]])
    directory.write_population(CLIENTS, dict(zip("ab", matrix, strict=True)))
    assert json.loads(directory.population.read_text())["label-counts"] == [[3, 4], [1, 2]]


@pytest.mark.parametrize(
    ("state", "files", "closed"),
    [
        ("running", (), False),
        ("running", ("metrics.jsonl", "report.html"), False),
        ("interrupted", ("metrics.jsonl",), False),
        ("interrupted", ("metrics.jsonl", "report.html"), True),
        ("failed", (), True),
    ],
)
def test_a_run_is_closed_once_its_report_is_there(
    state: RunState, files: tuple[str, ...], closed: bool, tmp_path: Path
) -> None:
    directory = RunDirectory.create(tmp_path, "run", datetime(2026, 1, 2))
    directory.write_status(state)
    for file in files:
        (directory.path / file).touch()
    assert directory.is_closed() == closed


def test_status_is_replaced(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path, "x", WHEN)
    directory.write_status("running")
    directory.write_status("failed", "no nodes", 3, [1])
    expected = {"state": "failed", "message": "no nodes", "rounds": 3, "resumed-after": [1]}
    assert json.loads(directory.status.read_text()) == directory.read_status() == expected
    assert [path.name for path in directory.path.iterdir()] == ["status.json"]


class Model:
    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def save(self, filepath: str) -> None:
        Path(filepath).write_bytes(b"weights")
        if self.fails:
            raise OSError("disk full")


def test_a_model_is_there_wholly_or_not_at_all(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path, "x", WHEN)
    with pytest.raises(OSError, match="disk full"):
        directory.save_model(Model(fails=True))
    assert list(directory.path.iterdir()) == []
    directory.save_model(Model(fails=False))
    assert directory.model.read_bytes() == b"weights"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_plain_json_is_json(value: object) -> None:
    assert json.loads(plain_json.dumps(value)) == value


def test_numbers_that_json_lacks_are_named_and_read_back() -> None:
    text = plain_json.dumps({"a": [float("nan"), float("inf"), -np.inf], "b": np.float32(0.5), "c": np.arange(2)})
    assert text == '{"a":["NaN","Infinity","-Infinity"],"b":0.5,"c":[0,1]}'
    read = [plain_json.number(value) for value in json.loads(text)["a"]]
    assert np.isnan(read[0])
    assert read[1:] == [np.inf, -np.inf]
    assert plain_json.number(3) == 3.0
    for bad in ("3", "nan", True, None, [1]):
        with pytest.raises(ValueError, match="is not a number"):
            plain_json.number(bad)
