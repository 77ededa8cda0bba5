"""Which clients a node hosts, by its --node-config."""

from pathlib import Path

import pytest

from app.config import RunConfig
from app.errors import UserError
from app.hosting import hosted_clients
from tests.app.inline_runs import write_digits

CONFIG = RunConfig.from_run_config({"num-clients": 4, "clients-per-round": 2})


def test_a_misspelt_key_is_not_ignored(tmp_path: Path) -> None:
    file = write_digits(tmp_path / "own.npz", slice(0, 50))
    with pytest.raises(UserError, match=r"has the key 'data_path', but knows .*; did you mean 'data-path'\?"):
        hosted_clients(CONFIG, {"client-id": "east", "data_path": str(file)})


def test_files_called_alike_are_not_one_client(tmp_path: Path) -> None:
    file = write_digits(tmp_path / "data.npz", slice(0, 50))
    with pytest.raises(UserError, match="does not say which client it is"):
        hosted_clients(CONFIG, {"data-path": str(file)})
    (client,) = hosted_clients(CONFIG, {"data-path": str(file), "client-id": "east"}).clients()
    assert client.id == "east"


def test_a_file_that_lacks_a_class_can_say_how_many_there_are(tmp_path: Path) -> None:
    file = write_digits(tmp_path / "own.npz", slice(0, 5))
    own = {"client-id": "east"}
    assert hosted_clients(CONFIG, {**own, "data-path": str(file)}).data.num_classes == 5
    assert hosted_clients(CONFIG, {**own, "data-path": f"{file}?classes=10"}).data.num_classes == 10
