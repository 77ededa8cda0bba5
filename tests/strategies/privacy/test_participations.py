"""Who was asked how often with how many examples: as a count of all that was ever asked has it, in any order."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from strategies.population import ClientInfo, Population
from strategies.privacy.participations import EXAMPLES, PARTICIPANTS, UNTOLD, after, by_client, examples_of, most
from strategies.updates import State

NAMES = st.sampled_from(["a", "ab", "b", "client-with-a-long-name", "ü", "日本", "z"]) | st.text("abc", min_size=1)
COHORTS = st.dictionaries(NAMES, st.integers(UNTOLD, 3) | st.integers(0, 2**53), max_size=8)


@given(st.lists(COHORTS, max_size=8))
def test_rows_are_those_of_a_count_of_all_that_was_asked(cohorts: list[dict[str, int]]) -> None:
    counted: Counter[tuple[str, int]] = Counter()
    ledger: State = {}
    for cohort in cohorts:
        before = {name: array.copy() for name, array in ledger.items()}
        found = after(ledger, cohort)
        for name, array in before.items():
            np.testing.assert_array_equal(ledger[name], array)  # the one before is left as it was
        ledger = found
        counted.update(cohort.items())
    rows = sorted(counted)
    if cohorts:
        assert list(zip(ledger[PARTICIPANTS].tolist(), ledger[EXAMPLES].tolist(), strict=True)) == rows
        assert not any(array.dtype.hasobject for array in ledger.values())
    flat = {(client, size): times for client, asked in by_client(ledger).items() for size, times in asked.items()}
    assert flat == counted
    sums = Counter[str]()
    for (client, _), times in counted.items():
        sums[client] += times
    assert most(ledger) == max(sums.values(), default=0)


def test_who_tells_no_number_is_not_taken_for_one_with_none() -> None:
    people = Population([ClientInfo("a", None), ClientInfo("b", 0), ClientInfo("c", 1)], [1])
    assert examples_of(people, ["a", "b", "c"]) == {"a": UNTOLD, "b": 0, "c": 1}
    assert UNTOLD not in (0, 1)
