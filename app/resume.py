"""Going on with a run: in which directory, with which config, and with files that tell of no round twice."""

from __future__ import annotations

import json
import logging
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from app.checkpoints import Begun, Checkpoints
from app.compose import composition, learning_rate
from app.config import RunConfig, section_of
from app.errors import UserError
from app.run_directory import CHANGED, RunDirectory
from app.user_paths import user_path
from app.versions import installed_versions
from strategies.census import Census
from strategies.composition import Composition
from strategies.privacy.budget import Budget
from strategies.privacy.repeating import paid_again
from strategies.snapshot import Snapshot

logger = logging.getLogger(__name__)

SHOWN = {"fingerprint": 12}  # letters, in which no two agree
COLLUDING = ("alie", "ipm", "collusion")

WAITING = "it says how long to wait, and not for what"
MEASURING = "it changes what is measured, and not the model"
KEEPING = "it says what is kept of a run, and not what the run does"
WATCHING = "it says what is watched of a run, and not what the run does"

MAY_CHANGE: Mapping[str, str] = {
    "num-rounds": "a run may be longer or shorter than was thought, where nothing in it goes by its length",
    "resume": "it says that the run goes on",
    "runs-dir": "the run has a directory already",
    "min-nodes": WAITING,
    "node-timeout": WAITING,
    "round-timeout": WAITING,
    "max-skipped-rounds": WAITING,
    "min-replies": "nodes may be gone for good",
    "clients-per-message": "however clients travel, the model is the same",
    "evaluate-every": MEASURING,
    "federated-evaluate-every": MEASURING,
    "federated-evaluate-clients": MEASURING,
    "checkpoint-every": KEEPING,
    "checkpoint-share": KEEPING,
    "checkpoints-kept": KEEPING,
    **dict.fromkeys(
        (
            *("prometheus-port", "mlflow-uri", "alert-participation", "alert-rejected", "alert-stagnation-rounds"),
            *("alert-budget", "alert-duration", "alert-loss", "alert-checkpoint", "alert-absent"),
            *("alert-certificates", "alert-certificate-days", "alert-webhook"),
        ),
        WATCHING,
    ),
    "budget-epsilon": "what has been spent stays in the ledger, and how much may be is the owner's to say",
}
"""The keys that may be another when a run goes on, and why. With any other, it would not be the same run."""

MAY_CHANGE_TOGETHER: Mapping[str, str] = {"Monitoring": "it says who is told of a run, and of what"}
"""The sections all of whose keys may be others, and why."""


def directory_to_resume(config: RunConfig) -> RunDirectory:
    """Return the directory that the config says to go on in.

    Raises UserError where there is none, or the config is not that of its run.
    """
    directory = RunDirectory(user_path(config.resume, "resume").resolve())
    refuse_changes(saved_config(directory), config)
    done = max(Checkpoints(directory.checkpoints).rounds(), default=0)
    if config.num_rounds < done:
        raise UserError(
            f"The key 'num-rounds' is {config.num_rounds}, but the run to be resumed has done {done} already: give "
            "that or more."
        )
    return directory


def saved_config(directory: RunDirectory) -> RunConfig:
    """Return the config that the run in a directory was started with; raises UserError where it cannot be read."""
    named = f"The key 'resume' is '{directory.path}'"
    instead = "name the directory of a run, on the machine where the server runs."
    if not directory.path.is_dir():
        raise UserError(f"{named}, where there is no folder: {instead}")
    if not directory.config.is_file():
        raise UserError(f"{named}, where there is no config.toml, and so no run: {instead}")
    try:
        saved = tomllib.loads(directory.config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{named}, whose config.toml cannot be read ({error}): {instead}") from None
    if unknown := sorted(saved.keys() - set(RunConfig.key_names())):
        raise UserError(
            f"{named}, whose config.toml has the keys {', '.join(unknown)}: its run is of another version of this "
            "program, which alone can go on with it."
        )
    return RunConfig.from_run_config(saved)


def refuse_changes(before: RunConfig, now: RunConfig) -> None:
    """Raise UserError, a sentence per key, where the run would not be the same any more."""
    old, new = before.to_run_config(), now.to_run_config()
    sentences = [
        f"The key '{key}' is {new[key]!r}, but the run to be resumed has {old[key]!r}: leave it so, or start a new run."
        for key in new
        if new[key] != old[key] and not _may_change(key)
    ]
    if not sentences and before.num_rounds != now.num_rounds and _lasts(before) != _lasts(now):
        sentences = [
            f"The key 'num-rounds' is {now.num_rounds}, but the run to be resumed has {before.num_rounds}, by which "
            "its learning rate or its noise goes: leave it so, or start a new run."
        ]
    sentences += _unkept(now)
    if sentences:
        raise UserError("\n".join(sentences))


def _may_change(key: str) -> bool:
    (field,) = (field for field in RunConfig.model_fields.values() if field.alias == key)
    return key in MAY_CHANGE or section_of(field) in MAY_CHANGE_TOGETHER


def _unkept(config: RunConfig) -> Iterator[str]:
    """Yield a sentence for what no checkpoint holds, so that the run would not be the same."""
    if config.strategy == "fedbuff" and config.attack in COLLUDING:
        yield (
            f"A run of 'fedbuff' under the attack '{config.attack}' cannot be resumed, as attackers who begin together "
            "know of each other, and not all are at work any more: start a new one."
        )


def _lasts(config: RunConfig) -> object:
    """Return all that may go by the number of rounds."""
    return composition(config), learning_rate(config)


def is_finished(directory: RunDirectory, config: RunConfig) -> bool:
    """Tell whether the run was completed, and the config asks for no more than that."""
    status, before = directory.read_status(), saved_config(directory)
    as_before = (config.num_rounds, config.budget_epsilon) == (before.num_rounds, before.budget_epsilon)
    return status.get("state") == "completed" and (as_before or config.num_rounds == status["rounds"])


def note_versions(directory: RunDirectory, fingerprint: str, location: str) -> None:
    """Write down which versions are at work, and warn where they are not those that the run was left with.

    That is no reason to refuse: an error that has been mended is why many a run goes on, and what was paid for privacy
    is kept as numbers, of which another version reads all or says that it cannot.
    """
    before = directory.read_versions()
    now = {**installed_versions(), "fingerprint": fingerprint}
    changed = ", ".join(
        f"{name} {str(now[name])[: SHOWN.get(name)]} instead of {str(before[name])[: SHOWN.get(name)]}"
        for name in now
        if before.get(name, now[name]) != now[name]
    )
    if changed:
        logger.warning(
            "The run goes on with other code than it was left with (%s): it need not be to the bit what it would have "
            "been, and what the code measures or accounts otherwise is so from here on only.",
            changed,
        )
    directory.write_versions(fingerprint, location, "; ".join(filter(None, (before.get(CHANGED, ""), changed))))


def left_by(
    directory: RunDirectory, checkpoints: Checkpoints, parts: Composition, budget: Budget, census: Census
) -> Snapshot | None:
    """Return what the run in a directory was left with, and cut off what is told of later rounds.

    None for a new run, and for one that was killed before anybody was asked. Raises UserError or StrategyError where
    the run cannot go on.
    """
    checkpoints.tidy()
    left, begun = checkpoints.newest(), None if census.simulated else checkpoints.begun()
    if left is None and begun is not None:
        raise UserError(
            f"Round {begun.round} was begun, and no checkpoint is in {checkpoints.folder}: the run cannot be resumed. "
            "Start a new one, and count the budget of this one as spent."
        )
    if left is None and directory.metrics.exists():
        logger.warning("No checkpoint is in %s: the run begins anew.", checkpoints.folder)
    if left is not None:
        _check_client_states(directory, parts, census, left)
    if left is not None and begun is not None:
        left = _with_all_that_was_begun(left, begun, parts, budget, census)
    for file in (directory.metrics, directory.clients, directory.alerts):
        forget_rounds_after(-1 if left is None else left.round, file)
    return left


def _with_all_that_was_begun(
    left: Snapshot, begun: Begun, parts: Composition, budget: Budget, census: Census
) -> Snapshot:
    """Return the state with what the rounds have cost that were begun after it: they are begun again, with other noise.

    (Not so in a simulation, which repeats a round to the bit, so that it is the same release.)
    """
    ledger = begun.ledger
    if begun.round > left.round:
        ledger = paid_again(left.round + 1, parts, budget, ledger, len(census.population()))
    return replace(left, states=replace(left.states, ledger=ledger))


def _check_client_states(directory: RunDirectory, parts: Composition, census: Census, left: Snapshot) -> None:
    """Raise UserError where what nodes have kept of rounds that counted is gone."""
    needed = parts.keeps_on_nodes and census.simulated and left.committed
    if needed and not directory.client_states.exists():
        raise UserError(
            f"The run in {directory.path} cannot go on: what its clients remember was deleted when it was completed. "
            "Start a new run with more rounds."
        )


def forget_rounds_after(last: int, file: Path) -> None:
    """Cut a file of JSON lines off before the first that tells of a later round; where there is none, do nothing.

    Lines stand in the order of their rounds. A last one without its end was cut off by a crash, and goes too. Raises
    UserError for another that tells of no round.
    """
    if not file.is_file():
        return
    with file.open("r+b") as lines:
        end = 0
        for line in lines:
            if not line.endswith(b"\n") or _round_of(line, file) > last:
                break
            end += len(line)
        lines.truncate(end)
        os.fsync(lines.fileno())


def _round_of(line: bytes, file: Path) -> int:
    try:
        return int(json.loads(line)["round"])
    except (ValueError, KeyError, TypeError):
        shown = line[:60].decode(errors="replace").strip()
        raise UserError(f"{file} has a line that tells of no round ({shown}): correct or delete it.") from None
