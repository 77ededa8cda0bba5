"""``fedkeras sweep``: from a sweep file to its report. Starts fast: what is heavy is imported once the file is read."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.errors import UserError

if TYPE_CHECKING:
    from app.config import RunConfig
    from simulation.sweep.plan import Plan
    from simulation.sweep.results import Result
    from simulation.sweep.study import Configuration, Runner
    from strategies.federated import Observer

FAILED = 1

Say = Callable[[str], None]


def sweep(
    file: Annotated[str, typer.Argument(metavar="FILE.toml|NAME", help="A sweep file, or one of presets/sweeps.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that train; default: as many as fit this machine.")
    ] = None,
    engine: Annotated[
        Literal["ray", "inline"], typer.Option(help="Train in worker processes, or in this one.")
    ] = "ray",
    ray_address: Annotated[str | None, typer.Option(help="Join this Ray cluster instead of starting one.")] = None,
) -> None:
    """Try many configurations, compare them in one report; goes on where it was stopped."""
    from app.console import PlainLines, log_to_console
    from app.flower_run import project_folder
    from simulation.quiet import without_noise
    from simulation.sweep.plan import read_plan

    plan = read_plan(sweep_file(file, project_folder()), project_folder(), Path.cwd())
    log_to_console(PlainLines())
    for name in (
        "app",
        "strategies",
        "simulation.simulate",
    ):  # a line per run is enough: what a round says is in the run's directory
        logging.getLogger(name).setLevel(logging.WARNING)
    with without_noise(), _simulation(workers, engine, ray_address) as runner:
        best = carry_out(plan, runner, typer.echo)
    raise typer.Exit(0 if best is not None else FAILED)


def sweep_file(argument: str, project: Path) -> Path:
    """Return the file that is meant: a path, or a ready-made sweep's name. Raises UserError where there is none.

    A ready-made one may also be named as other presets are, ``presets/NAME.toml``.
    """
    ready = sorted((project / "presets" / "sweeps").glob("*.toml"))
    for file in (Path(argument), *(file for file in ready if argument in (file.stem, f"presets/{file.name}"))):
        if file.is_file():
            return file
    names = ", ".join(file.stem for file in ready) or "(none)"
    raise UserError(f"'{argument}' is neither a sweep file nor one of the ready-made sweeps {names}.")


def carry_out(plan: Plan, runner: Runner, say: Say) -> Result | None:
    """Run what is not run yet, write results and report also when stopped, and return the best configuration."""
    from app.fingerprint import code_fingerprint, user_modules
    from simulation.sweep.memory import Memory, alone
    from simulation.sweep.results import best_of, ranked
    from simulation.sweep.study import run_sweep

    folder = plan.runs_dir / plan.name
    _make(folder)
    with alone(folder):
        memory = Memory.open(folder, plan, code_fingerprint(user_modules(plan.config({}, 0, "").to_run_config())))
        known = f"{len(memory.outcomes)} runs known in {folder}"
        say(f"{plan.configurations} configurations, {len(plan.seeds)} seeds; {known}")
        through: list[Configuration] = []
        try:
            for configuration in run_sweep(plan, runner, memory, _Lines(plan, say).told):
                through.append(configuration)
        except KeyboardInterrupt:
            say("Interrupted. The same command goes on from here.")
            raise
        finally:
            results = ranked(plan, through)
            _write(folder, plan, results, say)
        return best_of(results)


class _Lines:
    """Says how each run ended."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self._plan, self._say = plan, say

    def told(self, configuration: Configuration) -> None:
        from app.report.curves import show
        from app.report.findings import show as plain

        last, metric = configuration.ended[-1], self._plan.metric
        reached = "" if last.run is None else f"{metric.name} {show(metric.final(last.run), metric.unit)}"
        values = " ".join(f"{key}={plain(value)}" for key, value in configuration.values.items())
        place = f"{configuration.number + 1}/{self._plan.configurations}"
        parts = [place, values, f"seed {last.seed}", last.outcome.state, reached, last.outcome.reason]
        self._say(" | ".join(part for part in parts if part))


def _write(folder: Path, plan: Plan, results: Sequence[Result], say: Say) -> None:
    from simulation.sweep.importance import importance
    from simulation.sweep.page import write_page
    from simulation.sweep.results import best_of, write_results
    from simulation.sweep.table import Pivot, write_table

    if not results:
        return
    write_results(folder, plan, results)
    if pivot := Pivot.of(plan, results):
        write_table(folder, pivot)
    say(f"Report: {write_page(folder, plan, results, importance(plan, results))}")
    if (best := best_of(results)) is not None:
        say(f"Best: {best.label}. Run it again: fedkeras simulate -c {shlex.quote(str(folder / 'best.toml'))}")
    else:
        say("No configuration was run to its end with a finite value: the report says why.")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The sweep's folder '{folder}' cannot be made ({error.strerror}): set 'runs-dir' in [base]."
        ) from None


@contextlib.contextmanager
def _simulation(workers: int | None, engine: Literal["ray", "inline"], address: str | None) -> Iterator[Runner]:
    from simulation.simulate import ONE_OF_MANY, Simulation

    class Quiet:
        """Runs without a log line per round and without pages of their own."""

        def run(self, config: RunConfig, observers: Sequence[Observer] = ()) -> object:
            return simulation.run(config, observers, ONE_OF_MANY)

    with Simulation(workers=workers, engine=engine, address=address) as simulation:
        yield Quiet()


if __name__ == "__main__":
    try:
        typer.run(sweep)
    except UserError as error:
        sys.exit(str(error))
