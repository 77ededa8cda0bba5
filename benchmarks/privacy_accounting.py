"""What it costs to tell epsilon after a round: RDP, and PLD on our grid and on dp-accounting's own.

uv run python -m benchmarks.privacy_accounting

Milliseconds of processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

from strategies.privacy.accounting import Release, pld_epsilon, rdp_epsilon, renyi

DELTA = 1e-5
ROUNDS = 5  # that follow each other, of which the median is told
RUNS = (
    (10 / 50, 0.5, 30),
    (50 / 190, 1.0, 100),
    (50 / 190, 2.0, 100),
    (120 / 3383, 1.2, 100),
    (256 / 60000, 1.1, 14063),
    (1e-3, 1.0, 30000),
)
"""Sampling rate, noise multiplier, rounds."""


def main() -> None:
    """Print a line for each kind of run."""
    print("| q, z, rounds | epsilon: RDP | PLD | RDP: ms | PLD: ms | once | on the finest grid | above that one's |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for rate, noise, rounds in RUNS:
        print(line(Release("poisson", rate, noise), rounds), flush=True)


def line(release: Release, rounds: int) -> str:
    """Measure the last rounds of a run as it tells them, each of which is one release more."""
    renyi(release)
    first, _ = timed(lambda: pld_epsilon({release: rounds - ROUNDS}, DELTA))
    last = range(rounds - ROUNDS + 1, rounds + 1)
    by_rdp = [timed(lambda count=count: rdp_epsilon(count * renyi(release), DELTA)) for count in last]  # type: ignore[misc]
    by_pld = [timed(lambda count=count: pld_epsilon({release: count}, DELTA)) for count in last]  # type: ignore[misc]
    finest = from_gaussian_mechanism(release.noise_multiplier, sampling_prob=release.rate)
    slow, exact = timed(lambda: finest.self_compose(rounds).get_epsilon_for_delta(DELTA))
    told = by_pld[-1][1]
    cells = [f"{release.rate:.3g}, {release.noise_multiplier:g}, {rounds}", f"{by_rdp[-1][1]:.4g}", f"{told:.4g}"]
    times = [median(seconds for seconds, _ in by_rdp), median(seconds for seconds, _ in by_pld), first, slow]
    cells += [f"{1000 * seconds:.{0 if seconds > 0.001 else 1}f}" for seconds in times]
    return f"| {' | '.join(cells)} | {told / exact - 1:.0e} |"


def timed(compute: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds that it takes a processor, and what comes out."""
    start = time.process_time()
    value = float(compute())
    return time.process_time() - start, value


if __name__ == "__main__":
    main()
