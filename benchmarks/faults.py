"""200 rounds on Ray workers with a fifth of the clients at fault: what is rejected, how capacity comes back, memory.

    python -m benchmarks.faults [--rounds 200] [--kills 40]

The app is the toy of the tests (NumPy, 100,000 parameters), four clients a round: a twentieth each raises, sends NaN,
straggles beyond the deadline of the simulated world, and kills its worker.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from simulation import cluster
from simulation.resources import Placement, Wish

WORKERS = 2
SETTLED = 20  # rounds


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--kills", type=int, default=40)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    cluster.start(Wish(WORKERS))  # before Ray is imported: it tells of every death otherwise
    from simulation.pool import WorkerPool
    from tests.simulation.faults import COHORT, DEADLINE, SIZE, Watch, faults, rejected, to_files, world
    from tests.simulation.toy_runs import on, train, until_all_answer

    planned = faults(given.rounds, given.kills)
    pool = WorkerPool(Placement(WORKERS), cluster.WORKER_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        grid = on(pool, to_files(planned, Path(folder) / "faults", "raise", "nan", "kill"))
        until_all_answer(grid, WORKERS)
        watch, start = Watch(grid, WORKERS), time.perf_counter()
        _, records = train(
            world(grid, planned), given.rounds, COHORT, observers=(watch,), size=SIZE, round_deadline=DEADLINE
        )
    seconds = time.perf_counter() - start
    pool.close()
    cluster.stop()
    counted = sum((Counter(record.rejected) for record in records), Counter[str]())
    print(f"injected: {dict(Counter(planned.values()))} of {given.rounds * COHORT} clients")
    print(f"rejected: {dict(counted)}; must be: {dict(rejected(planned))}")
    fewer, back = (sum(live < WORKERS for live in lives) for lives in (watch.live, watch.at_full_strength))
    print(f"rounds completed: {len(records) - 1} of {given.rounds}; fewer than {WORKERS} workers", end=" ")
    print(f"at the end of {fewer}, at the start of {back}")
    median, most = statistics.median(watch.restarts or [0]), max(watch.restarts, default=0)
    print(f"a killed worker is replaced in {median:.1f} s (median), {most:.1f} s at most")
    print(f"driver's memory at round {SETTLED}: {watch.resident[SETTLED] / 1e6:.0f} MB,", end=" ")
    print(f"at round {given.rounds}: {watch.resident[-1] / 1e6:.0f} MB; {seconds:.0f} s in all")


if __name__ == "__main__":
    main()
