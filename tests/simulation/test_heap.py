"""Kept memory: what is freed is not asked of the system again, which counts the pages of processes of their own."""

import platform
import subprocess
import sys

import pytest

ROUNDS, VECTORS, MEGABYTES = 20, 6, 2
PAGES = ROUNDS * VECTORS * MEGABYTES * 2**20 // 4096

PROGRAM = f"""
import resource
import numpy as np
{{begin}}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def round():
    held = [np.ones({MEGABYTES} * 2**17) for _ in range({VECTORS})]
for _ in range(3):
    round()
before = faults()
for _ in range({ROUNDS}):
    round()
print(faults() - before)
"""
KEPT = "from simulation.heap import keep_freed_memory\nassert keep_freed_memory()"

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such parameters")


def page_faults(begin: str) -> int:
    program = [sys.executable, "-c", PROGRAM.format(begin=begin)]
    return int(subprocess.run(program, capture_output=True, text=True, check=True).stdout)


@glibc
def test_what_a_round_frees_serves_the_next() -> None:
    assert page_faults(KEPT) < PAGES / 100


@glibc
def test_without_it_every_round_asks_the_system() -> None:
    """Where this fails, the module is not needed any more."""
    assert page_faults("") > PAGES / 10


def test_a_c_library_without_it_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from simulation import heap

    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    assert not heap.keep_freed_memory()
