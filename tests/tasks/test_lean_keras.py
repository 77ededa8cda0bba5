"""TensorFlow and Keras are imported without what Keras only looks for, and nobody else misses it."""

import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.lean_keras import UNUSED, lean_keras

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
import app.local_task
print(sorted({"sklearn", "matplotlib"} & set(sys.modules)))
from tasks.datasets import DataSpec, load_data
from tasks.partition import Partition
load_data(DataSpec("digits", Partition("iid", 5)))
print("sklearn" in sys.modules)
import keras, matplotlib.pyplot, sklearn.linear_model
print(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).count_params())
"""


def test_a_process_that_trains_on_digits_has_them_not_but_can_import_them() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "False", "8"]


@pytest.fixture
def unused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an unused library that is not yet imported, and its module another than the true one."""
    name = min(UNUSED)
    for loaded in [key for key in sys.modules if key.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, loaded)
    (tmp_path / f"{name}.py").write_text("found = True\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_only_the_thread_that_imports_keras_goes_without(unused: str) -> None:
    with lean_keras():
        with pytest.raises(ModuleNotFoundError, match=unused):
            importlib.import_module(unused)
        with ThreadPoolExecutor(1) as another:
            assert another.submit(importlib.import_module, unused).result().found
        del sys.modules[unused]
    assert importlib.import_module(unused).found
    del sys.modules[unused]


def test_what_is_raised_inside_leaves_nothing_hidden(unused: str) -> None:
    with pytest.raises(RuntimeError), lean_keras():
        raise RuntimeError
    assert importlib.import_module(unused).found
    del sys.modules[unused]
