"""What ``-c`` takes: presets, files and pairs, in which order they count, and the sentences on mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config import RunConfig
from app.errors import UserError
from app.overrides import merged_config, preset_names, with_absolute_paths


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "presets").mkdir(parents=True)
    (folder / "presets" / "quick.toml").write_text('num-rounds = 2\nmodel = "mlp"\n')
    (folder / "presets" / "slow.toml").write_text("num-rounds = 90\nbatch-size = 64\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "user"
    made.mkdir()
    return made


def merged(project: Path, folder: Path, *arguments: str) -> RunConfig:
    return merged_config(arguments, project, folder)


def test_nothing_given_is_the_defaults(project: Path, folder: Path) -> None:
    assert merged(project, folder) == RunConfig()


def test_files_count_in_their_order_and_pairs_after_them(project: Path, folder: Path) -> None:
    config = merged(project, folder, "batch-size=7", "quick", "slow")
    assert (config.model, config.num_rounds, config.batch_size) == ("mlp", 90, 7)
    assert merged(project, folder, "slow", "quick").num_rounds == 2
    assert merged(project, folder, "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize("name", ["quick", "presets/quick.toml"])
def test_a_preset_is_found_from_everywhere(project: Path, folder: Path, name: str) -> None:
    assert merged(project, folder, name).num_rounds == 2


def test_a_file_of_the_user_comes_before_the_projects(project: Path, folder: Path) -> None:
    (folder / "presets").mkdir()
    (folder / "presets" / "quick.toml").write_text("num-rounds = 5")
    assert merged(project, folder, "presets/quick.toml").num_rounds == 5
    assert merged(project, folder, str(project / "presets" / "quick.toml")).num_rounds == 2


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("learning-rate=1", "learning-rate", 1.0),
        ("learning-rate = 1e-3", "learning-rate", 0.001),
        ("model=cnn", "model", "cnn"),
        ('model="cnn"', "model", "cnn"),
        ("model='cnn'", "model", "cnn"),
        ("partition=iid", "partition", "iid"),
        ("name=", "name", ""),
        ("name=2026", "name", "2026"),
        ("client-optimizer-args=momentum=0.9,nesterov=true", "client-optimizer-args", "momentum=0.9,nesterov=true"),
        ("dataset=npz:/my data/x.npz?x=a&y=b", "dataset", "npz:/my data/x.npz?x=a&y=b"),
        ("runs-dir=it's", "runs-dir", "it's"),
    ],
)
def test_pairs_are_read_by_the_type_of_their_key(
    project: Path, folder: Path, argument: str, key: str, value: object
) -> None:
    assert merged(project, folder, argument).to_run_config()[key] == value


def test_several_pairs_in_one_argument_as_flower_takes_them(project: Path, folder: Path) -> None:
    config = merged(project, folder, "num-rounds=3 model='mlp' seed=9")
    assert (config.num_rounds, config.model, config.seed) == (3, "mlp", 9)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("num-round=3",), "There is no key 'num-round'; did you mean 'num-rounds'?"),
        (("num-rounds=ten",), "The key 'num-rounds' is 'ten', but must be a whole number"),
        (("num-rounds=3 sed=1",), "The key 'num-rounds' is '3 sed=1', but must be a whole number"),
        (("quick", "num-rounds=0"), "The key 'num-rounds' is 0"),
    ],
)
def test_mistakes_in_pairs(project: Path, folder: Path, arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError, match="^" + sentence.replace("?", r"\?")):
        merged(project, folder, *arguments)


def test_a_missing_file_lists_the_presets(project: Path, folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        merged(project, folder, "presets/quik.toml")
    assert str(caught.value) == (
        "'-c presets/quik.toml' is neither a file, nor KEY=VALUE, nor one of the presets quick, slow; "
        "did you mean 'quick'?"
    )
    assert preset_names(project) == ["quick", "slow"]


@pytest.mark.parametrize("content", [b"num-rounds = ", b"\xff\xfe", b"num-rounds = 1\nnum-rounds = 2"])
def test_a_corrupt_file_is_named(project: Path, folder: Path, content: bytes) -> None:
    (folder / "mine.toml").write_bytes(content)
    with pytest.raises(UserError, match=r"mine\.toml cannot be read as TOML") as caught:
        merged(project, folder, "mine.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[model]\nname = 'cnn'", "batch-size = [1, 2]", "seed = 2026-01-01"])
def test_a_file_with_other_things_than_keys_is_refused_in_sentences(project: Path, folder: Path, content: str) -> None:
    (folder / "mine.toml").write_text(content)
    with pytest.raises(UserError, match=r"no key 'model.name'|'batch-size' is|'seed' is"):
        merged(project, folder, "mine.toml")


def test_paths_become_absolute(folder: Path) -> None:
    (folder / "x.npz").touch()
    config = RunConfig.from_run_config({"dataset": "npz:x.npz?x=raw&client=who"})
    absolute = with_absolute_paths(config, folder)
    assert absolute.runs_dir == str(folder / "runs")
    assert absolute.dataset == f"npz:{folder}/x.npz?x=raw&client=who"


def test_other_datasets_and_absolute_paths_stay(folder: Path) -> None:
    config = RunConfig.from_run_config({"runs-dir": "/somewhere/runs", "dataset": "my:data"})
    assert with_absolute_paths(config, folder) == config


def test_a_trace_is_found_from_the_users_folder(folder: Path) -> None:
    config = RunConfig.from_run_config({"availability-trace": "online.csv", "example-seconds": 0.1})
    assert with_absolute_paths(config, folder).availability_trace == str(folder / "online.csv")


def test_a_dataset_file_that_is_missing_is_told_before_the_start(folder: Path) -> None:
    config = RunConfig.from_run_config({"dataset": "tfrecord:silos", "partition": "natural"})
    with pytest.raises(UserError, match=r"The key 'dataset' is 'tfrecord:silos', but there is no .*/user/silos"):
        with_absolute_paths(config, folder)


@pytest.mark.parametrize("path", ["~no-such-user/x", "x" * 5000])
def test_what_is_no_path_is_a_sentence(project: Path, folder: Path, path: str) -> None:
    for values in ({"runs-dir": path}, {"dataset": f"npz:{path}"}, {"dataset": f"npz:{path}?x=raw"}):
        (key,) = values
        with pytest.raises(UserError, match=rf"^The key '{key}' is '.*', which is no path here"):
            with_absolute_paths(RunConfig.from_run_config(values), folder)
    with pytest.raises(UserError, match=r"^The option '-c' is '.*', which is no path here"):
        merged(project, folder, path)


@pytest.mark.parametrize("argument", ["num-rounds=" + "9" * 5000, "seed=" + "[" * 5000, "x" * 5000 + "=1"])
def test_however_long_a_pair_is_it_is_a_sentence(project: Path, folder: Path, argument: str) -> None:
    with pytest.raises(UserError):
        merged(project, folder, argument)
