"""`fedkeras deploy connect`: put a SuperLink with TLS into Flower's config.toml, for `fedkeras run` and `flwr`."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from app.atomic import write_text
from app.deploy.folder import Deployment, read_bytes
from app.deploy.probe import check_server
from app.errors import UserError
from app.superlink import Connection, flower_home

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def connect(folder: Path, address: str, name: str) -> tuple[Path, str]:
    """Add the connection and return the file that has it and what was found at the address.

    ``folder`` is the deployment's own or any other that has ``ca.crt``. What else is in the file stays, comments too.
    Raises UserError for a server that is not to be trusted and for a name that is taken by another connection.
    """
    own = Deployment(folder).authority.certificate
    authority = (own if own.exists() else folder / own.name).absolute()
    read_bytes(authority)
    if not _NAME.fullmatch(name) or name == "default":
        raise UserError(
            f"--name is '{name[:80]}', but must be up to 64 letters, digits, '_' and '-', and not 'default'."
        )
    found = check_server(address, authority)
    file = flower_home() / "config.toml"
    table = {"address": address, "root-certificates": str(authority)}
    text = _text(file)
    present = _superlinks(text, file).get(name)
    if present is None:
        write_text(file, _extended(text, name, table, file))
    elif present != table:
        raise UserError(f"{file} has another connection '{name}' already: change it there, or give another --name.")
    return file, found


def look(connection: Connection) -> str:
    """Return what is to be said of a SuperLink elsewhere before a run goes there; "" where nothing is known of it.

    Raises UserError for a server that is not to be trusted: `flwr run` tries such a one for long, and does not say why.
    """
    if connection.insecure:
        return (
            f"WARNING: the connection '{connection.name}' is insecure: whoever is on the way to {connection.address} "
            "can read and change all that is sent. Use it on one machine alone."
        )
    return check_server(connection.address, connection.authority) if connection.authority else ""


def _text(file: Path) -> str:
    """Return the file's text; where it is missing, what Flower itself would write into it."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        from flwr.cli.constant import DEFAULT_FLOWER_CONFIG_TOML

        file.parent.mkdir(parents=True, exist_ok=True)
        return DEFAULT_FLOWER_CONFIG_TOML
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The file {file} cannot be read ({error}): correct it.") from None


def _extended(text: str, name: str, table: dict[str, str], file: Path) -> str:
    lines = [f"[superlink.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    extended = text.rstrip() + "\n\n" + "\n".join(lines) + "\n"
    try:
        tomllib.loads(extended)
    except tomllib.TOMLDecodeError:  # "superlink" is there, but not as tables of its own
        raise UserError(f"{file} takes no table '{lines[0]}' at its end: write it there by hand, as {table}.") from None
    return extended


def _superlinks(text: str, file: Path) -> dict[str, object]:
    try:
        found = tomllib.loads(text).get("superlink", {})
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"The file {file} cannot be read as TOML ({error}): correct it.") from None
    return found if isinstance(found, dict) else {}
