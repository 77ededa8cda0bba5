"""Which SuperLink a run goes to, and whether the one that Flower keeps running on this machine is fit for it.

`flwr run` starts a SuperLink of its own for simulations and leaves it running. Its environment and its directory are
those of the command that started it first, whatever later commands say; so they are looked at before a run goes there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sysconfig
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.config_sentences import did_you_mean
from app.errors import UserError

DEFAULT_PORT = "39091"
PORT_VARIABLE = "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"
MANAGED = (":local:", ":local-in-memory:")
NO_INSTALLATION = "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"
PACKAGES = ("app", "strategies", "tasks", "simulation")
INHERITED = (
    *("KERAS_HOME", "HF_HOME", "HF_DATASETS_CACHE", "FEDKERAS_CACHE", "PYTHONPATH"),
    *("CUDA_VISIBLE_DEVICES", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS"),
)
"""Variables that a user sets for a run, but that count as they were when the SuperLink was started."""

STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Connection:
    """A connection of Flower's config.toml; ``managed``: to the SuperLink that Flower itself keeps on this machine.

    Others have an address, and the certificate of the authority that they trust unless they are ``insecure``.
    """

    name: str
    managed: bool
    address: str = ""
    authority: Path | None = None
    insecure: bool = False


@dataclass(frozen=True)
class Listener:
    """The process that listens on the managed SuperLink's port, as far as this user may look at it."""

    pid: int
    command: tuple[str, ...]
    environment: dict[str, str]
    folder: Path | None

    @property
    def is_superlink(self) -> bool:
        """Whether it is a SuperLink for simulations."""
        return (
            any(Path(word).name == "flower-superlink" for word in self.command[:2]) and "--simulation" in self.command
        )


def flower_home() -> Path:
    """Return Flower's folder: ``$FLWR_HOME``, else ``~/.flwr``."""
    return Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr")


def port() -> int:
    """Return the port of the managed SuperLink. Raises UserError where the user set it to none."""
    text = os.environ.get(PORT_VARIABLE, DEFAULT_PORT)
    if not (text.isdecimal() and len(text) < 6 and 0 < int(text) < 65536):
        raise UserError(f"{PORT_VARIABLE} is '{text[:80]}', but must be a port, from 1 to 65535: correct or unset it.")
    return int(text)


def scripts() -> Path:
    """Return the folder of the ``flwr`` and ``flower-...`` commands that belong to this Python."""
    return Path(sysconfig.get_path("scripts"))


def find_connection(name: str | None) -> Connection:
    """Return the connection of this name, or the default one, from Flower's config.toml.

    A missing file means what Flower would write into it: one connection "local". Raises UserError for unknown names.
    """
    default, connections = _connections()
    chosen = name or default
    for connection in connections:
        if connection.name == chosen:
            return connection
    names = [connection.name for connection in connections]
    raise UserError(
        f"There is no SuperLink connection '{chosen}' in {flower_home() / 'config.toml'}, which has "
        f"{', '.join(names) or 'none'}{did_you_mean(chosen, names) or '.'}"
    )


def managed_connection() -> Connection | None:
    """Return a connection to the managed SuperLink, whatever its name; None where config.toml has none."""
    return next((connection for connection in _connections()[1] if connection.managed), None)


def _connections() -> tuple[str, list[Connection]]:
    """Read the default's name and all connections."""
    file = flower_home() / "config.toml"
    try:
        superlinks = tomllib.loads(file.read_text(encoding="utf-8")).get("superlink", {})
    except FileNotFoundError:
        superlinks = {"default": "local", "local": {"address": MANAGED[0]}}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"The file {file} cannot be read as TOML ({error}): correct it.") from None
    tables = {name: table for name, table in superlinks.items() if isinstance(table, dict)}
    return superlinks.get("default", ""), [_connection(name, table) for name, table in tables.items()]


def _connection(name: str, table: Mapping[str, object]) -> Connection:
    if _is_managed(table):
        return Connection(name, managed=True)
    authority, address = table.get("root-certificates"), str(table.get("address", ""))
    trusted = Path(authority) if isinstance(authority, str) else None
    return Connection(name, False, address, trusted, insecure=table.get("insecure") is True)


def _is_managed(table: Mapping[str, object]) -> bool:
    """Tell as Flower does; a table with options only is its older way to write a simulation."""
    return table.get("address") in MANAGED or ("address" not in table and "options" in table)


def check_running_superlink(project: Path) -> None:
    """Refuse a managed SuperLink that is running already and would train with the wrong code or libraries."""
    listener = find_listener(port())
    if listener is None:
        return
    if not listener.is_superlink:
        raise UserError(
            f"Port {port()} is taken by process {listener.pid} ({' '.join(listener.command)[:60]}), but a simulation "
            "needs it: stop that process, or set FLWR_LOCAL_SUPERLINK_HTTP_API_PORT to a free port."
        )
    if reason := _unfit(listener, project):
        raise UserError(
            f"A SuperLink is already running (process {listener.pid}, port {port()}), but {reason}: stop it with "
            "'fedkeras down', or set FLWR_LOCAL_SUPERLINK_HTTP_API_PORT and FLWR_LOCAL_CONTROL_API_PORT to free ports."
        )


def stop_managed(unfinished: Sequence[str]) -> int | None:
    """Stop the managed SuperLink and return its process id, or None where none is running.

    Raises UserError where it still has unfinished runs, and where it does not stop.
    """
    listener = find_listener(port())
    if listener is None:
        return None
    if not listener.is_superlink:
        raise UserError(f"Process {listener.pid} on port {port()} is no SuperLink for simulations: it is left alone.")
    if unfinished:
        raise UserError(f"Run {unfinished[0]} has not ended: wait for it, or end it too with 'fedkeras down --force'.")
    os.kill(listener.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while find_listener(port()) is not None:
        if time.monotonic() > deadline:
            raise UserError(f"Process {listener.pid} does not stop: end it with 'kill -9 {listener.pid}'.")
        time.sleep(0.2)
    return listener.pid


def _unfit(listener: Listener, project: Path) -> str:
    """Say why this SuperLink must not get our run; empty where it may, or where its environment cannot be read."""
    if Path(listener.command[0]).parent.resolve() != scripts().resolve():
        return f"it belongs to another Python environment ({listener.command[0]})"
    if listener.environment and listener.environment.get(NO_INSTALLATION) != "1":
        return f"it was started without {NO_INSTALLATION}=1 and so would install dependencies anew for every run"
    for name in INHERITED if listener.environment else ():
        if listener.environment.get(name, "") != os.environ.get(name, ""):
            return f"it was started with {name}='{listener.environment.get(name, '')}' and would keep to it"
    if listener.folder is None or listener.folder == project:
        return ""
    if not listener.folder.is_dir():
        return f"the directory that it was started from is gone ({listener.folder})"
    foreign = [name for name in PACKAGES if (listener.folder / name).is_dir()]
    if foreign:
        return (
            f"it was started from {listener.folder}, whose '{foreign[0]}' folder would be trained instead of this one"
        )
    return ""


def find_listener(port: int) -> Listener | None:
    """Return this user's process that listens on a TCP port of this machine; None without one, or without /proc."""
    sockets = set(_listening_sockets(port))
    for folder in Path("/proc").glob("[0-9]*") if sockets else ():
        if any(name in sockets for name in _open_files(folder)):
            return _inspect(folder)
    return None


def _open_files(process: Path) -> Iterator[str]:
    """Yield what a process has open, as /proc names it, less what it closes meanwhile; nothing of other users'."""
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield descriptor.readlink().name


def _listening_sockets(port: int) -> Iterator[str]:
    """Yield the sockets (as /proc names them) that listen on a port; the tables are those of proc(5)."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{fields[9]}]"


def _inspect(process: Path) -> Listener:
    def entries(name: str) -> list[str]:
        with contextlib.suppress(OSError):
            return (process / name).read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        return []

    folder = None
    with contextlib.suppress(OSError):
        folder = Path(str((process / "cwd").readlink()).removesuffix(" (deleted)"))
    environment = dict(entry.partition("=")[::2] for entry in entries("environ") if "=" in entry)
    return Listener(int(process.name), tuple(entries("cmdline")), environment, folder)
