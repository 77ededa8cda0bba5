"""The code fingerprint: changes with any Python file's name or content, and with nothing else."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from app.fingerprint import PACKAGES, code_fingerprint, code_location, fingerprint, user_modules

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "part").mkdir(parents=True)
    (folder / "a.py").write_text("a = 1\n")
    (folder / "part" / "b.py").write_text("b = 2\n")
    return folder


def test_it_is_the_documented_digest(package: Path) -> None:
    expected = hashlib.sha256(b"8 6 app/a.pya = 1\n" + b"13 6 app/part/b.pyb = 2\n").hexdigest()
    assert fingerprint({"app": package}) == expected


def test_the_same_code_elsewhere_has_the_same_fingerprint(package: Path, tmp_path: Path) -> None:
    before = fingerprint({"app": package})
    copy = shutil.copytree(package, tmp_path / "elsewhere")
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "a.pyc").write_bytes(b"compiled")
    (copy / "notes.md").write_text("not code")
    assert fingerprint({"app": copy}) == before


@pytest.mark.parametrize("change", ["content", "name", "added", "removed", "moved between files"])
def test_any_change_of_code_changes_it(package: Path, change: str) -> None:
    before = fingerprint({"app": package})
    a, b = package / "a.py", package / "part" / "b.py"
    if change == "content":
        a.write_text("a = 2\n")
    elif change == "name":
        a.rename(package / "c.py")
    elif change == "added":
        (package / "c.py").write_text("")
    elif change == "removed":
        b.unlink()
    else:
        a.write_text("a = 1\nb = 2\n")
        b.write_text("")
    assert fingerprint({"app": package}) != before


def test_this_process_runs_the_code_of_this_checkout() -> None:
    assert code_location() == str(REPOSITORY)
    assert code_fingerprint() == fingerprint({name: REPOSITORY / name for name in PACKAGES})
    assert len(code_fingerprint()) == 64


def test_the_users_own_modules_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_task_of_mine.py").write_text("a = 1\n")
    config = {"dataset": "own_task_of_mine:data", "model": "mlp", "num-rounds": 3}
    modules = user_modules(config)
    assert modules == ("own_task_of_mine",)
    first = code_fingerprint(modules)
    assert first != code_fingerprint()
    code_fingerprint.cache_clear()
    (tmp_path / "own_task_of_mine.py").write_text("a = 2\n")
    assert code_fingerprint(modules) != first
    assert code_fingerprint(("nowhere.to.be.found",)) == code_fingerprint()
