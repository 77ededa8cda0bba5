"""The ``fedkeras`` command. It starts fast: nothing here imports TensorFlow or Flower."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.config import RunConfig, allowed_values, section_of
from app.config_sentences import unknown_key
from app.deploy.commands import deploy
from app.errors import UserError

USER_ERROR = 2

Overrides = Annotated[
    list[str] | None,
    typer.Option("--run-config", "-c", metavar="KEY=VALUE|FILE.toml|PRESET", help="Change the run config; repeatable."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Flower's and the workers' whole log.")]

commands = typer.Typer(
    name="fedkeras",
    help="Federated learning for Keras models on Flower.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
commands.add_typer(deploy, name="deploy")


def main() -> None:
    """Run the command line; a user's mistake ends it with one red sentence and exit code 2."""
    try:
        commands()
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), style="red", markup=False, highlight=False)
        sys.exit(USER_ERROR)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedkeras {importlib.metadata.version('fedkeras')}")
        raise typer.Exit


@commands.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Federated learning for Keras models on Flower."""


@commands.command()
def run(
    connection: Annotated[
        str | None,
        typer.Argument(help="A SuperLink connection of Flower's config.toml; none = its default, a simulation."),
    ] = None,
    overrides: Overrides = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that train in a simulation; default: one per core.")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs that a simulation's workers share.")] = 0.0,
    verbose: Verbose = False,
) -> None:
    """Train a federated model and say how the run ended."""
    from app import flower_run

    request = flower_run.Request(connection, tuple(overrides or ()), workers, gpus, verbose)
    raise typer.Exit(flower_run.run(request, typer.echo))


@commands.command()
def config(key: Annotated[str | None, typer.Argument(help="One key instead of all.")] = None) -> None:
    """List the keys of the run config: default, what is allowed, meaning."""
    if key is not None and key not in RunConfig.key_names():
        raise UserError(unknown_key(key, RunConfig.key_names()))
    _console().print(_key_table(key))


@commands.command()
def report(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Run directories; several are laid over.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The page to write.")] = None,
) -> None:
    """Build report.html anew from run directories."""
    from app.report.build import write_report
    from app.report.reading import with_runs

    found, left_out = with_runs(directories)
    for sentence in left_out:
        typer.echo(f"Left out: {sentence}.", err=True)
    typer.echo(f"Wrote {write_report(found, output)}")


@commands.command()
def privacy(
    overrides: Overrides = None,
    epsilon: Annotated[float | None, typer.Option(help="Find the smallest noise multiplier for this epsilon.")] = None,
    population: Annotated[int | None, typer.Option(min=1, help="Clients there are; default: num-clients.")] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="Examples of a client, for DP-SGD on clients.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw epsilon over the rounds.")] = None,
) -> None:
    """Say how private a run will be: epsilon over its rounds, and what that covers."""
    from app import flower_run, privacy_command

    request = privacy_command.Request(tuple(overrides or ()), epsilon, population, examples, plot)
    privacy_command.answer(request, flower_run.project_folder(), _console())


@commands.command()
def down(force: Annotated[bool, typer.Option(help="Also end runs that are still going.")] = False) -> None:
    """Stop the SuperLink that Flower keeps running on this machine after a simulation."""
    from app import flower_commands, superlink

    unfinished = [] if force else flower_commands.unfinished_runs()
    pid = superlink.stop_managed(unfinished)
    typer.echo(f"No SuperLink is running on port {superlink.port()}." if pid is None else f"Stopped process {pid}.")


@commands.command(name="demo-data")
def demo_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go; made if it is not there.")],
) -> None:
    """Write digits as four silos' npz files and a held-out one, to try a deployment with."""
    from tasks.datasets.demo import write_npz_silos
    from tasks.errors import TaskError

    try:
        files = write_npz_silos(folder)
    except TaskError as error:
        raise UserError(str(error)) from None
    for file in files:
        typer.echo(f"Wrote {file}")


def _console() -> Console:
    """Return a console that keeps the table readable when it is piped into a file or a pager."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def _key_table(only: str | None) -> Table:
    table = Table("key", "default", "allowed", "meaning", header_style="bold", row_styles=("", "dim"))
    section = ""
    for field in RunConfig.model_fields.values():
        if only not in (None, field.alias):
            continue
        title = section_of(field)
        if title != section:
            table.add_section()
            table.add_row(f"[bold]{title}[/bold]")
            section = title
        default = "(empty)" if field.default == "" else str(field.default)
        table.add_row(field.alias, default, escape(allowed_values(field)), escape(field.description or ""))
    return table
