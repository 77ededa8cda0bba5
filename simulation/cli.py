"""The ``fedkeras`` command with what simulates added to it. It starts fast: Ray and Flower are imported when needed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from app.cli import Overrides, Verbose, commands, main
from simulation.audit.command import audit
from simulation.sweep.command import sweep

__all__ = ["audit", "main", "simulate", "sweep"]


class Engine(StrEnum):
    """Where virtual clients run."""

    RAY = "ray"
    INLINE = "inline"


@commands.command()
def simulate(
    overrides: Overrides = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that train; default: one per core.")] = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs that the workers share.")] = 0.0,
    engine: Annotated[Engine, typer.Option(help="ray: worker processes; inline: this one, to debug.")] = Engine.RAY,
    ray_address: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Join this Ray cluster.")] = None,
    verbose: Verbose = False,
) -> None:
    """Train a federated model on virtual clients, fast, without Flower's engine."""
    from simulation.command import Request, run

    request = Request(tuple(overrides or ()), workers, gpus, engine.value, ray_address, verbose)
    raise typer.Exit(run(request))


commands.command()(sweep)
commands.command()(audit)
