"""``fedkeras privacy``: what a run config is worth in epsilon before it runs, and what noise an epsilon asks for."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app.atomic import write_bytes
from app.config import RunConfig
from app.errors import UserError
from app.overrides import merged_config
from app.user_paths import user_path
from strategies.errors import StrategyError
from strategies.privacy.accounting import Epsilons
from strategies.privacy.plan import Plan, with_least_noise

DIGITS = 4  # of a noise multiplier, after the point; it is rounded up
POINTS = 24  # of a curve
SIZE = (640.0, 400.0)


@dataclass(frozen=True)
class Request:
    """What was typed: ``-c`` arguments in their order, an epsilon to keep to, how many clients, a file to draw to."""

    overrides: tuple[str, ...] = ()
    epsilon: float | None = None
    population: int | None = None
    plot: Path | None = None
    folder: Path = field(default_factory=Path.cwd)


def answer(request: Request, project: Path, console: Console) -> None:
    """Print the epsilon of the config over its rounds, and what that covers.

    With ``request.epsilon`` it is that of the smallest noise multiplier that keeps to it. Raises UserError where the
    config has no differential privacy, or none of this kind is possible.
    """

    def say(sentence: str) -> None:
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)

    config = merged_config(request.overrides, project, request.folder)
    try:
        plan = planned(config, request.population)
        if request.epsilon is not None:
            plan = _rounded_up(with_least_noise(plan, request.epsilon))
            say(f"Smallest noise for epsilon {request.epsilon:g}: -c noise-multiplier={plan.noise_multiplier:g}")
        say(summary(plan))
        console.print(table(plan))
        for sentence in sentences(config, plan):
            say(sentence)
        if request.plot is not None:
            say(f"Wrote {draw(plan, user_path(str(request.plot), '--plot', request.folder))}")
    except StrategyError as error:
        raise UserError(str(error)) from None


def planned(config: RunConfig, population: int | None = None) -> Plan:
    """Return what a run of this config releases, as its own parts say, if all clients are there in every round."""
    from strategies import registry
    from strategies.privacy.adaptive import AdaptiveDPFedAvg
    from strategies.samplers import KnownSampler

    parts = registry.build(config.strategy, config.to_run_config())
    noise, sampler = parts.privacy.noise_multiplier, parts.sampler
    if noise is None or not isinstance(sampler, KnownSampler):
        raise UserError(
            f"The key 'strategy' is '{config.strategy}', which has no differential privacy to account for: choose "
            "'dp-fedavg' or 'dp-fedavg-adaptive', or set 'privacy' to one of them."
        )
    if population is None and config.partition == "natural":
        raise UserError(
            "The key 'partition' is 'natural', so that only the data set knows how many clients there are: say so by "
            "--population."
        )
    return Plan(
        population=population or config.num_clients,
        clients_per_round=config.clients_per_round,
        sampling=sampler.sampling,
        rounds=config.num_rounds,
        noise_multiplier=noise,
        delta=config.budget_delta,
        adaptive=isinstance(parts.privacy, AdaptiveDPFedAvg),
    )


def summary(plan: Plan) -> str:
    """Say in a line what is accounted."""
    who = {"poisson": "on average", "fixed": "exactly", "none": "all of them"}[plan.sampling]
    privacy = f"noise multiplier {plan.noise_multiplier:g}" if plan.noise_multiplier > 0 else "no noise, no privacy"
    return f"{plan.cohort} of {plan.population} clients a round, {who}; {privacy}; delta {plan.delta:g}"


def table(plan: Plan) -> Table:
    """Return epsilon by both accountants after 1, 2, 5, 10, ... rounds and at the end."""
    rows = Table("rounds", "RDP", "PLD", "epsilon", header_style="bold")
    for rounds in milestones(plan.rounds):
        found = plan.after(rounds)
        rows.add_row(str(rounds), _number(found.rdp), _number(found.pld), _number(found.tightest))
    return rows


def sentences(config: RunConfig, plan: Plan) -> Iterator[str]:
    """Yield what the guarantee covers, when the budget ends the run, and what weakens it."""
    yield from plan.warnings()
    yield plan.meaning(plan.after(plan.rounds).tightest)
    if config.budget_epsilon > 0:
        rounds = plan.rounds_within(config.budget_epsilon)
        yield f"The budget, epsilon {config.budget_epsilon:g}, allows {rounds} of the {plan.rounds} rounds."
    if plan.sampling != "none" and (config.availability < 1 or config.availability_trace):
        yield (
            "Where fewer clients are online, each of them takes part more often: the run accounts for those that there "
            "are in a round, and its epsilon may be larger than this."
        )
    if plan.sampling == "fixed":
        yield "For cohorts of a fixed size only RDP is known, and it is loose: 'selection' 'poisson' costs far less."


def milestones(rounds: int) -> list[int]:
    """Return 1, 2, 5, 10, ... below ``rounds``, and ``rounds``."""
    powers = range(len(str(rounds)))
    return [*(n for power in powers for n in (10**power, 2 * 10**power, 5 * 10**power) if n < rounds), rounds]


def draw(plan: Plan, file: Path) -> Path:
    """Draw epsilon over the rounds, in the format that the file's ending names; a file that is there is replaced."""
    from app.report.figure import SERIES, drawing

    rounds = sorted({max(1, round(plan.rounds * step / POINTS)) for step in range(POINTS + 1)})
    found = [plan.after(number) for number in rounds]
    picture = io.BytesIO()
    with drawing("privacy", *SIZE) as canvas:
        for name, colour, values in _curves(found, SERIES):
            canvas.axes.plot(rounds, values, color=colour, label=name)
        canvas.axes.set(xlabel="rounds", ylabel=f"epsilon at delta {plan.delta:g}", ylim=(0, None), title=summary(plan))
        if canvas.axes.lines:
            canvas.axes.legend(frameon=False)
        try:
            canvas.figure.savefig(picture, format=file.suffix.removeprefix(".") or "png", dpi=144)
        except ValueError as error:
            raise UserError(f"--plot {file.name} cannot be written ({error}): let it end in .png.") from None
    try:
        write_bytes(file, picture.getvalue())
    except OSError as error:
        raise UserError(f"--plot {file} cannot be written ({error.strerror}): choose another file.") from None
    return file


def _curves(found: list[Epsilons], colours: tuple[str, ...]) -> Iterator[tuple[str, str, list[float]]]:
    """Yield a curve for each accountant that has an answer; PLD may lack one for many rounds."""
    curves = {"RDP": [of.rdp for of in found], "PLD": [math.nan if of.pld is None else of.pld for of in found]}
    for (name, values), colour in zip(curves.items(), colours, strict=False):
        if any(map(math.isfinite, values)):
            yield name, colour, values


def _rounded_up(plan: Plan) -> Plan:
    return replace(plan, noise_multiplier=math.ceil(plan.noise_multiplier * 10**DIGITS) / 10**DIGITS)


def _number(epsilon: float | None) -> str:
    if epsilon is None:
        return "-"
    return f"{epsilon:.4g}" if math.isfinite(epsilon) else "no privacy"
