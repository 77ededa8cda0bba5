"""Rejections carry a reason that admission can count."""

from typing import get_args, get_type_hints

from strategies.admission import Reason
from strategies.errors import LayoutError, StrategyError


def test_every_reason_of_a_layout_error_is_counted() -> None:
    reasons = get_args(get_type_hints(LayoutError.__init__)["reason"])
    assert {Reason(reason).value for reason in reasons} == set(reasons)


def test_both_are_value_errors_with_the_sentence_as_message() -> None:
    error = LayoutError("shape", "The sentence.")
    assert isinstance(error, StrategyError | ValueError)
    assert (error.reason, str(error)) == ("shape", "The sentence.")
