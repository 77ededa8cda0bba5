"""A sweep file, read and checked as a whole: every configuration that it can lead to is sound before anything runs."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from app.compose import composition
from app.config import RunConfig, Value
from app.config_sentences import did_you_mean
from app.contradictions import does_nothing
from app.errors import ConfigError, UserError
from app.overrides import merged_config, with_absolute_paths
from simulation.sweep.metrics import METRICS, Metric
from simulation.sweep.sections import Conduct, Draw, Halving, Table, base_values, draws, grid_values, section
from strategies.errors import StrategyError

MAX_CONFIGURATIONS = 1000
SECTIONS = ("name", "base", "grid", "random", "sweep", "table")
_SHOWN_MISTAKES = 10

Assignment = Mapping[str, Value]


@dataclass(frozen=True)
class Plan:
    """What a sweep tries: each combination of ``grid``, with each draw of ``random`` if there is any, with each seed.

    ``base`` holds what the file says of all runs, and nothing of what varies; relative paths start at ``folder``.
    """

    name: str
    base: Assignment
    grid: Mapping[str, tuple[Value, ...]]
    random: Mapping[str, Draw]
    seeds: tuple[int, ...]
    metric: Metric
    draws: int
    sampler: str
    halving: Halving | None
    folder: Path
    table: Table | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that vary."""
        return (*self.grid, *self.random)

    @property
    def configurations(self) -> int:
        """How many configurations are tried."""
        return self.draws * math.prod(len(values) for values in self.grid.values())

    @property
    def runs_dir(self) -> Path:
        """The folder that the sweep's own folder stands in."""
        return Path(self.config({}, 0, "").runs_dir)

    def combinations(self) -> list[dict[str, Value]]:
        """Return every combination of the grid, the last key varying fastest; one empty one without a grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    def config(self, values: Assignment, seed: int, name: str) -> RunConfig:
        """Return the run config of a configuration. Raises UserError where it is not sound.

        What the base says of keys that do nothing in this configuration, but something in another, is left out. No
        checkpoints are kept, as a run that was stopped is run anew.
        """
        whole = {**self._whole(values), "seed": seed, "name": name, "checkpoint-every": 0}
        idle = {key for key in self._at_times if does_nothing(key, whole)}
        given = {key: value for key, value in whole.items() if key not in idle}
        return with_absolute_paths(RunConfig.from_run_config(given), self.folder)

    def probes(self) -> Iterator[dict[str, Value]]:
        """Yield each combination of the grid, and each end of what is drawn: what can be wrong shows in one of them."""
        yield from self.combinations()
        for key, draw in self.random.items():
            for value in draw.ends:
                yield {key: value}

    def as_json(self) -> dict[str, Any]:
        """Return all that the results depend on, as plain values."""
        return {
            "base": {**self.base, "runs-dir": str(self.runs_dir)},
            "grid": {key: list(values) for key, values in self.grid.items()},
            "random": {key: dataclasses.asdict(draw) for key, draw in self.random.items()},
            "seeds": list(self.seeds),
            "metric": self.metric.name,
            "trials": self.draws,
            "sampler": self.sampler,
            "halving": None if self.halving is None else self.halving.model_dump(by_alias=True),
        }

    @cached_property
    def _at_times(self) -> frozenset[str]:
        """The keys of the base that do something in at least one configuration."""
        wholes = [self._whole(values) for values in self.probes()]
        return frozenset(key for key in self.base if not all(does_nothing(key, whole) for whole in wholes))

    def _whole(self, values: Assignment) -> dict[str, Value]:
        first = {key: ends[0] for key, ends in self._ends().items()}
        return {**RunConfig().to_run_config(), **self.base, **first, **values}

    def _ends(self) -> dict[str, tuple[Value, ...]]:
        return {**self.grid, **{key: draw.ends for key, draw in self.random.items()}}


def read_plan(file: Path, project: Path, folder: Path) -> Plan:
    """Read a sweep file. ``project`` holds ``presets/``; relative paths in the file start at ``folder``.

    Raises UserError, one sentence per mistake: nothing of a sweep runs unless all of it can.
    """
    table = _toml(file)
    problems = [
        f"A sweep file has no '{key}'{did_you_mean(key, SECTIONS) or '; it has ' + ', '.join(SECTIONS) + '.'}"
        for key in table
        if key not in SECTIONS
    ]
    unsectioned = [key for key in SECTIONS[1:] if not isinstance(table.get(key, {}), dict)]
    problems += [f"'{key}' must be a section: [{key}]." for key in unsectioned]
    if problems:
        raise ConfigError("\n".join(problems))
    plan = _plan(table, file.stem, project, folder)
    _check(plan)
    return plan


def _plan(table: Mapping[str, Any], stem: str, project: Path, folder: Path) -> Plan:
    problems: list[str] = []
    base, judged = dict(table.get("base", {})), dict(table.get("sweep", {}))
    halving = judged.pop("halving", None)
    files = base.pop("from", [])
    if not isinstance(files, list) or not all(isinstance(name, str) and "=" not in name for name in files):
        problems.append(f"'from' in [base] is {files!r}, but must be a list of presets and of TOML files.")
    values = base_values(base, problems)
    grid, random = grid_values(table.get("grid", {}), problems), draws(table.get("random", {}), problems)
    problems += _twice(table)
    conduct = section(Conduct, judged, "[sweep]", problems)
    rule = None if halving is None else _halving(halving, problems)
    shown = _table(table["table"], grid, random, problems) if "table" in table else None
    if not table.get("grid") and not table.get("random"):
        problems.append("Nothing varies: name keys in [grid] with lists of values, or in [random].")
    if problems or conduct is None:
        raise ConfigError("\n".join(problems))
    given = merged_config(files, project, folder).to_run_config() if files else {}
    fixed = {key: value for key, value in {**given, **values}.items() if key not in (*grid, *random, "name")}
    return Plan(
        name=RunConfig.from_run_config({"name": table.get("name", stem)}).name or stem,
        base=fixed,
        grid=grid,
        random=random,
        seeds=_seeds(conduct.seeds, fixed.get("seed", 0)),
        metric=METRICS[conduct.metric],
        draws=conduct.trials if random else 1,
        sampler=conduct.sampler,
        halving=rule,
        folder=folder,
        table=shown,
    )


def _check(plan: Plan) -> None:
    """Raise ConfigError for too many configurations, and for any that is unsound."""
    if plan.configurations > MAX_CONFIGURATIONS:
        raise ConfigError(
            f"These are {plan.configurations} configurations, more than {MAX_CONFIGURATIONS}: take values out of "
            "[grid], or name the keys in [random] and set 'trials' in [sweep]."
        )
    found: list[str] = []
    for values in plan.probes():
        try:
            config = plan.config(values, plan.seeds[0], "")
            composition(config)  # whose parts have conditions of their own
            found += _unjudged(plan, config)
        except (UserError, StrategyError) as error:
            found += str(error).splitlines()
    if found:
        raise ConfigError("\n".join(list(dict.fromkeys(found))[:_SHOWN_MISTAKES]))


def _unjudged(plan: Plan, config: RunConfig) -> list[str]:
    """Return why the metric or the halving cannot judge such a run."""
    found = []
    key = "evaluate-every" if plan.metric.group == "central" else "federated-evaluate-every"
    every = config.evaluate_every if plan.metric.group == "central" else config.federated_evaluate_every
    if every == 0:
        found.append(f"The metric '{plan.metric.name}' is never measured with {key} = 0: set it to 1 or more.")
    if plan.metric.key == "backdoor" and config.attack != "backdoor":
        found.append(f"The metric 'backdoor' is never measured with attack '{config.attack}': set it to 'backdoor'.")
    if plan.halving is not None and plan.halving.min_rounds >= config.num_rounds:
        found.append(
            f"'min-rounds' of halving is {plan.halving.min_rounds}, but a run has only {config.num_rounds} rounds: "
            "make it smaller, or leave halving out."
        )
    return found


def _halving(given: Any, problems: list[str]) -> Halving | None:
    if isinstance(given, dict):
        return section(Halving, given, "halving", problems)
    problems.append(f"'halving' in [sweep] is {given!r}, but must be {{ min-rounds = ..., factor = ... }}.")
    return None


def _table(
    given: Mapping[str, Any], grid: Mapping[str, Any], random: Mapping[str, Any], problems: list[str]
) -> Table | None:
    found = section(Table, given, "[table]", problems)
    if found is not None and (random or sorted(found.keys) != sorted(grid)):
        problems.append(
            f"[table] shows {', '.join(found.keys)}, but what varies is {', '.join((*grid, *random)) or 'nothing'}: "
            "each key that varies must stand in [grid] and be one of 'rows', 'columns' and, of three, 'panels'."
        )
        return None
    return found


def _twice(table: Mapping[str, Any]) -> list[str]:
    pairs = itertools.combinations(("base", "grid", "random"), 2)
    return [
        f"The key '{key}' stands in [{one}] and in [{other}]: leave it in one of them."
        for one, other in pairs
        for key in table.get(one, {})
        if key in table.get(other, {})
    ]


def _seeds(given: int | Sequence[int], first: Any) -> tuple[int, ...]:
    """Return the seeds that a list names, or so many from the run config's own on."""
    start = RunConfig.from_run_config({"seed": first}).seed
    return tuple(range(start, start + given)) if isinstance(given, int) else tuple(given)


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no sweep file '{file}': give the path of a TOML file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The sweep file '{file}' cannot be read as TOML ({error}): correct it.") from None
