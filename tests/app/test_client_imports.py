"""What is not imported: Flower starts a process for each message of a node, and a command should answer at once."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"tensorflow", "keras", "ray", "scipy", "sklearn", "pandas", "matplotlib", "datasets", "dp_accounting"}


@pytest.mark.parametrize(
    "importing",
    [
        "import app.client",  # before it has a message
        "import app.flower_run",
        "import pathlib; from tasks.datasets.demo import write_npz_silos; write_npz_silos(pathlib.Path(sys.argv[1]))",
    ],
)
def test_no_more_is_imported_than_is_needed(importing: str, tmp_path: Path) -> None:
    program = f"import sys; {importing}; print(sorted({HEAVY} & set(sys.modules)))"
    repository = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
