"""Whatever a user writes as a path is a path or a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.errors import UserError
from app.user_paths import user_path


def test_path_is_expanded_and_starts_at_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a/b", "runs-dir") == tmp_path / "a" / "b"
    assert user_path("a/../b", "runs-dir", tmp_path) == (tmp_path / "b").resolve()
    assert user_path("/a", "runs-dir", tmp_path) == Path("/a")
    assert user_path("a", "runs-dir") == Path("a")


def test_path_below_a_file_is_left_to_the_caller(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not user_path("file/x", "runs-dir", tmp_path).exists()


@pytest.mark.parametrize("folder", [None, Path("/tmp")])
@pytest.mark.parametrize("text", ["~no-such-user/x", "x" * 5000, "a\0b"])
def test_what_is_no_path_is_a_sentence(text: str, folder: Path | None) -> None:
    with pytest.raises(UserError, match=r"^The key 'runs-dir' is '.*, which is no path here .*: correct it") as caught:
        user_path(text, "runs-dir", folder)
    assert len(str(caught.value)) < 250


def test_circular_link_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="The option '-c' is 'loop/x'"):
        user_path("loop/x", "-c", tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(UserError, match="Permission denied"):
        user_path("closed/x", "dataset", tmp_path)


def test_refused_permission_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(UserError, match=r"The key 'dataset' is 'x', which is no path here \(Permission denied\)"):
        user_path("x", "dataset")
