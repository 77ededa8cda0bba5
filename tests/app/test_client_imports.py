"""What a node's process imports before it has a message: Flower starts one for each message, so every second counts."""

import subprocess
import sys
from pathlib import Path

HEAVY = {"tensorflow", "keras", "ray", "scipy", "sklearn", "pandas", "matplotlib", "datasets", "dp_accounting"}


def test_the_client_app_is_imported_without_what_only_some_messages_need() -> None:
    program = f"import sys, app.client; print(sorted({HEAVY} & set(sys.modules)))"
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
