"""What the page says of the privacy of single examples: the highest and the median epsilon of the clients' table."""

from __future__ import annotations

from app.example_privacy import read_table
from app.report.reading import Run
from app.run_directory import RunDirectory
from strategies.privacy.example_level import summary


def sentences(run: Run) -> list[str]:
    """Return a sentence about the table that a run with DP-SGD leaves; none where there is no table."""
    path = RunDirectory(run.path).example_privacy
    if not path.exists():
        return []
    try:
        found = read_table(path)
        return [summary(found, float(run.config["dp-sgd-delta"]))] if found else []
    except (OSError, LookupError, TypeError, ValueError) as error:
        return [f"What each client's examples have paid cannot be read from {path.name} ({error})."]
