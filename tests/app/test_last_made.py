import pytest

from app.last_made import LastMade


def test_equal_arguments_are_made_of_once() -> None:
    calls = []
    made = LastMade(lambda *given: calls.append(given) or len(calls))
    assert [made({"a": 1}, "x"), made({"a": 1}, "x"), made({"a": 2}, "x"), made({"a": 2}, "y")] == [1, 1, 2, 3]
    assert made({"a": 1}, "x") == 4  # the last alone is kept


def test_what_is_changed_in_place_is_another_argument() -> None:
    config = {"a": 1}
    made = LastMade(dict)
    first = made(config)
    config["a"] = 2
    assert (first, made(config)) == ({"a": 1}, {"a": 2})


def test_what_could_not_be_made_is_tried_again() -> None:
    answers = iter([ValueError("no"), "yes"])

    def make(config: object) -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    made = LastMade(make)
    with pytest.raises(ValueError, match="no"):
        made({})
    assert made({}) == "yes"
