"""What stands behind ``-c``: presets, TOML files and KEY=VALUE pairs, merged into one checked run config."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

from app.config import RunConfig
from app.config_sentences import did_you_mean
from app.errors import UserError
from app.run_directory import RunDirectory
from app.user_paths import user_path

PATH_DATASETS = ("npz:", "tfrecord:")


def merged_config(arguments: Sequence[str], project: Path, folder: Path) -> RunConfig:
    """Return the defaults, overridden by the files in their order and then by the KEY=VALUE pairs in theirs.

    With 'resume' they override the config of the run to go on with, where its directory can be seen from here.
    ``project`` holds ``presets/``; relative paths start at ``folder``. Raises UserError, one sentence per mistake.
    """
    values: dict[str, Any] = {}
    for argument in arguments:
        if "=" not in argument:
            values.update(_read(_find(argument, project, folder)))
    for argument in arguments:
        if "=" in argument:
            values.update(_pairs(argument))
    if resumed := values.get("resume"):
        values = {**_of_run(user_path(str(resumed), "resume", folder)), **values}
    return RunConfig.from_run_config(values)


def with_absolute_paths(config: RunConfig, folder: Path) -> RunConfig:
    """Return the config with its paths made absolute: the processes of a run do not start in the user's folder.

    Raises UserError where the dataset's file or folder does not exist.
    """
    values = config.to_run_config()
    values["runs-dir"] = str(user_path(config.runs_dir, "runs-dir", folder))
    for prefix in PATH_DATASETS:
        if config.dataset.startswith(prefix):
            path, mark, query = config.dataset.removeprefix(prefix).partition("?")
            absolute = user_path(path, "dataset", folder)
            if not absolute.exists():
                raise UserError(
                    f"The key 'dataset' is '{config.dataset}', but there is no {absolute}: correct the path."
                )
            values["dataset"] = f"{prefix}{absolute}{mark}{query}"
    if config.resume:
        values["resume"] = str(user_path(config.resume, "resume", folder))
    if config.availability_trace:
        values["availability-trace"] = str(user_path(config.availability_trace, "availability-trace", folder))
    return RunConfig.from_run_config(values)


def preset_names(project: Path) -> list[str]:
    """Return the names of the ready-made files under ``presets/``, without their ending."""
    return sorted(file.stem for file in (project / "presets").glob("*.toml"))


def _find(argument: str, project: Path, folder: Path) -> Path:
    """Return the file that is meant: in ``folder``, else in the project, else the preset of this bare name."""
    names = preset_names(project)
    if argument in names:
        return project / "presets" / f"{argument}.toml"
    for file in (user_path(argument, "-c", folder), project / argument):
        if file.is_file():
            return file
    hint = did_you_mean(Path(argument).stem, [*names, *RunConfig.key_names()])
    raise UserError(
        f"'-c {argument}' is neither a file, nor KEY=VALUE, nor one of the presets {', '.join(names) or '(none)'}"
        + (hint or ".")
    )


def _of_run(directory: Path) -> dict[str, Any]:
    """Return the config of the run in a directory, nothing where there is none: the server may be elsewhere.

    Without keys that are not known, as of another version: who goes on with the run says so (`app.resume`).
    """
    file = RunDirectory(directory).config
    known = RunConfig.key_names()
    return {key: value for key, value in _read(file).items() if key in known} if file.is_file() else {}


def _read(file: Path) -> dict[str, Any]:
    try:
        return flat(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The file {file} cannot be read as TOML ({error}): correct it.") from None


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables with dotted keys, as Flower reads them."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return found


def _pairs(argument: str) -> dict[str, Any]:
    """Read ``KEY=VALUE``, or several in one argument as `flwr run` takes them: ``"num-rounds=3 seed=1"``."""
    parts = _words(argument)
    several = len(parts) > 1 and all(part.partition("=")[0] in RunConfig.key_names() for part in parts)
    pairs = (part.partition("=") for part in (parts if several else [argument]))
    return {key.strip(): _value(key.strip(), text.strip()) for key, _, text in pairs}


def _words(argument: str) -> list[str]:
    try:
        return shlex.split(argument)
    except ValueError:  # a quote that is not closed: then it is one value that holds a quote
        return [argument]


def _value(key: str, text: str) -> Any:
    """Read a value by the type of its key: text needs no quotes; what should be a number but is none stays text."""
    if _is_text(key):
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        return text[1:-1] if quoted else text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML; more digits than Python reads; too many brackets
        return text


def _is_text(key: str) -> bool:
    annotations: Iterable[Any] = (f.annotation for f in RunConfig.model_fields.values() if f.alias == key)
    return all(annotation is str or get_origin(annotation) is not None for annotation in annotations)
