"""200 rounds with a fifth of the clients at fault: nothing aborts, capacity comes back, and memory is flat."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median

import pytest

from simulation.pool import WorkerPool
from tests.simulation.faults import COHORT, DEADLINE, SIZE, Watch, faults, rejected, to_files, world
from tests.simulation.toy_runs import inline, on, train, until_all_answer

ROUNDS, KILLS = 200, 20
RULES = {"rounds": ROUNDS, "cohort": COHORT, "size": SIZE, "round_deadline": DEADLINE}


@pytest.mark.slow
def test_200_rounds_with_a_fifth_of_the_clients_at_fault(pool: WorkerPool, tmp_path: Path) -> None:
    """Of 800 clients 5 % each raise, send NaN and straggle, and 2.5 % kill their worker, whose start takes 2 s."""
    planned = faults(ROUNDS, KILLS)
    assert Counter(planned.values()) == {"raise": 40, "nan": 40, "straggle": 40, "kill": KILLS}
    grid = on(pool, to_files(planned, tmp_path / "faults", "raise", "nan", "kill"))
    until_all_answer(grid, 2)
    watch = Watch(grid, 2)
    digest, records = train(world(grid, planned), observers=(watch,), **RULES)  # type: ignore[arg-type]

    assert [record.round for record in records] == list(range(ROUNDS + 1))
    assert not list((tmp_path / "faults").glob("kill-*"))  # every kill was done
    counted = sum((Counter(record.rejected) for record in records), Counter[str]())
    assert counted == rejected(planned) == {"error": 40, "not-finite": 40, "late": 40}
    for record in records[1:]:
        at_fault = {client for client in record.selected if planned.get((record.round, client), "kill") != "kill"}
        assert set(record.accepted) == set(record.selected) - at_fault

    undisturbed = inline(to_files(planned, tmp_path / "no kills", "raise", "nan"))
    assert digest == train(world(undisturbed, planned), **RULES)[0]  # type: ignore[arg-type]

    killed = {number for (number, _), kind in planned.items() if kind == "kill"}
    assert all(live == 2 for number, live in enumerate(watch.live) if number not in killed)
    assert set(watch.at_full_strength) == {2}
    assert median(watch.resident[-40:]) - median(watch.resident[20:60]) < 30_000_000
