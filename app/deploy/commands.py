"""The ``fedkeras deploy`` commands. They start fast: `cryptography` and Flower are imported when needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.deploy import processes
from app.deploy.folder import NodeFiles, ServerFiles
from app.deploy.processes import Isolation

deploy = typer.Typer(help="Certificates and keys of a deployment, and its processes with them.", no_args_is_help=True)

TO_FLOWER = {"allow_extra_args": True, "ignore_unknown_options": True}
"""For commands that hand on to Flower all options that are not theirs."""

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the deployment.")]
ServerFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's 'server' folder; comes first.")]
Days = Annotated[int, typer.Option(min=1, max=3650, help="For how long the server's certificate is valid.")]
Hosts = Annotated[list[str] | None, typer.Option("--host", help="A name or address of the server; repeatable.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="No TLS and no node keys: for one machine alone.")]


@deploy.command()
def init(
    folder: Folder,
    hosts: Hosts = None,
    nodes: Annotated[list[str] | None, typer.Option("--node", help="The name of a node; repeatable.")] = None,
    days: Days = 365,
) -> None:
    """Make a certificate authority, a server certificate and a key per node, as far as they are not there yet."""
    from app.deploy.initialise import initialise

    lines = list(initialise(folder, hosts or [], nodes or [], days))
    typer.echo("\n".join(lines) or f"All of it is in {folder} already.")


@deploy.command()
def renew(folder: Folder, hosts: Hosts = None, days: Days = 365) -> None:
    """Sign a new certificate for the server's key; without --host, for the same names."""
    from app.deploy.initialise import renew as sign_anew

    for line in sign_anew(folder, hosts or [], days):
        typer.echo(line)


@deploy.command()
def connect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's folder, or one with its ca.crt.")],
    address: Annotated[str, typer.Argument(help="HOST:PORT of the SuperLink.")],
    name: Annotated[str, typer.Option(help="How 'fedkeras run' will call it.")] = "mine",
) -> None:
    """Tell Flower where the SuperLink is and whose certificate it must have, for 'fedkeras run' and 'flwr'."""
    from app.deploy.connection import connect as add

    file, found = add(folder, address, name)
    typer.echo(f"{found}\nConnection '{name}' is in {file}: 'fedkeras run {name}'.")


@deploy.command(context_settings=TO_FLOWER)
def superlink(
    context: typer.Context,
    folder: ServerFolder,
    isolation: Annotated[
        Isolation, typer.Option(help="process: runs outlive a restart of the SuperLink; needs 'superexec' too.")
    ] = Isolation.SUBPROCESS,
    insecure: Insecure = False,
) -> None:
    """Start a SuperLink that speaks TLS and takes registered nodes only; other options go to flower-superlink."""
    _start(processes.superlink(ServerFiles(folder), isolation, insecure), context, insecure)


@deploy.command(context_settings=TO_FLOWER)
def superexec(
    context: typer.Context,
    folder: ServerFolder,
    address: Annotated[str, typer.Option("--superlink", help="HOST:PORT of the SuperLink.")] = "127.0.0.1:8000",
    insecure: Insecure = False,
) -> None:
    """Start what starts the runs of a SuperLink with --isolation process; other options go to flower-superexec."""
    _start(processes.superexec(ServerFiles(folder), address, insecure), context, insecure)


@deploy.command(context_settings=TO_FLOWER)
def supernode(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The node's own folder, 'nodes/NAME'; comes first.")],
    address: Annotated[str, typer.Option("--superlink", help="HOST:PORT of the SuperLink, or of the proxy.")],
    insecure: Insecure = False,
) -> None:
    """Start a SuperNode with its key, if the server can be trusted; other options go to flower-supernode."""
    files = NodeFiles(folder)
    command = processes.supernode(files, address, insecure)
    typer.echo(processes.look(files, address, insecure), err=True)
    _start(command, context, insecure)


def _start(command: list[str], context: typer.Context, insecure: bool) -> None:
    if insecure:
        typer.secho(processes.INSECURE, err=True, fg=typer.colors.YELLOW)
    processes.become([*command, *context.args])
