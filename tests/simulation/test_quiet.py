"""What a terminal is spared, and what it is not."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import REPOSITORY

PROGRAM = """
import os, subprocess, sys
from simulation.quiet import without_noise

with without_noise():
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
    os.write(2, b"I0000 00:00:1795268769.424490    4933 cudart_stub.cc:31] Could not find cuda drivers\\n")
    os.write(2, b"a real error\\n")
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])  # holds the pipe open
    print("in Python", file=sys.stderr)
print("afterwards", file=sys.stderr)
"""


def test_only_noise_is_kept_back_also_while_a_child_lives_on() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in range(3)]
    assert lines == ["a real error\n", "in Python\n", "afterwards\n"]
    assert process.wait(timeout=20) == 0
