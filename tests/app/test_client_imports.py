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
        "from tasks.datasets.demo import write_npz_silos; import pathlib, tempfile; "
        "write_npz_silos(pathlib.Path(tempfile.mkdtemp()))",
    ],
)
def test_no_more_is_imported_than_is_needed(importing: str) -> None:
    program = f"import sys; {importing}; print(sorted({HEAVY} & set(sys.modules)))"
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
