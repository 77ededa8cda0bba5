"""Which files the processes of a test run begin with, and which of them go to one process."""

import itertools

import pytest

from tests.conftest import LONGEST, REPOSITORY, SHARING, SharedEngines, pytest_collection_modifyitems


def test_the_files_that_are_named_are_there() -> None:
    assert all(list((REPOSITORY / "tests").glob(f"{name}*")) for name in LONGEST)
    assert all((REPOSITORY / name).is_file() for name in SHARING)


def test_the_longest_come_first_and_no_file_is_torn(request: pytest.FixtureRequest) -> None:
    items = list(reversed(request.session.items))
    pytest_collection_modifyitems(items)
    files = [item.path for item in items]
    assert len(set(files)) == 1 + sum(one != two for one, two in itertools.pairwise(files))
    places = [file.relative_to(REPOSITORY / "tests").as_posix() for file in dict.fromkeys(files)]
    named = [place for place in places if place in LONGEST]
    assert named == sorted(named, key=LONGEST.index)


def test_files_that_share_an_engine_are_one_unit_of_work() -> None:
    unit = SharedEngines.__new__(SharedEngines)._split_scope
    assert len({unit(f"{file}::test") for file, engine in SHARING.items() if engine == "engines"}) == 1
    assert unit("tests/test_order.py::test[a::b]") == "tests/test_order.py"
