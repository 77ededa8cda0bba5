"""Lines of the tables: the paper's figure, that of an independent re-run, ours, and whether it passes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One line. ``rule`` is what ours must be, and ``passed`` whether it is; None where nothing is asked of it."""

    what: str
    paper: str
    landmark: str
    ours: str
    rule: str = ""
    passed: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """Return the cells as they are printed."""
        verdict = {True: "pass", False: "FAIL", None: ""}[self.passed]
        return self.what, self.paper or "-", self.landmark or "-", self.ours, self.rule, verdict


def print_table(title: str, lines: Iterable[Line]) -> bool:
    """Print the lines as they come; return whether none of them fails."""
    print(f"\n{title}\n")
    print("| | paper | independent re-run | ours | must be | |\n|---|---|---|---|---|---|")
    passed = True
    for line in lines:
        print("| " + " | ".join(line.cells()) + " |", flush=True)
        passed = passed and line.passed is not False
    return passed
