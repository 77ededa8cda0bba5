"""``fedkeras audit``: an ordinary run with canaries among its clients, and what they prove of its privacy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli import Overrides, Verbose

if TYPE_CHECKING:
    from app.federated_run import FederatedRun

USUAL, BROKEN = 100, 1


def audit(
    overrides: Overrides = None,
    canaries: Annotated[int, typer.Option(min=1, help="Clients more, that betray themselves.")] = USUAL,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that train; default: one per core.")] = None,
    engine: Annotated[
        Literal["ray", "inline"], typer.Option(help="Train in worker processes, or in this one.")
    ] = "ray",
    verbose: Verbose = False,
) -> None:
    """Simulate a run with canaries, and set what they prove of epsilon beside what is accounted.

    The exit code is 1 where they prove more, and where the run fails.
    """
    from simulation.command import Request, run

    asked = (*(overrides or ()), f"canaries={canaries}")
    raise typer.Exit(run(Request(asked, workers, engine=engine, verbose=verbose), judged))


def judged(run: FederatedRun) -> int:
    """Show what the audit of a run has found, and return the exit code."""
    from rich.console import Console

    from simulation.audit.outcome import Outcome

    outcome = Outcome.of_json(json.loads(run.directory.audit.read_text(encoding="utf-8")))
    Console().print(outcome.table())
    return BROKEN if outcome.broken else 0
