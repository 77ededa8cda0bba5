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
from app.compose import composition, example_level
from app.config import RunConfig
from app.errors import UserError
from app.overrides import merged_config
from app.user_paths import user_path
from strategies.errors import StrategyError
from strategies.privacy.accounting import UNSAMPLED, Epsilons
from strategies.privacy.example_level import ExamplePlan
from strategies.privacy.plan import Plan, with_least_noise

AnyPlan = Plan | ExamplePlan

DIGITS = 4  # of a noise multiplier, after the point; it is rounded up
POINTS = 24  # of a curve
SIZE = (640.0, 400.0)


@dataclass(frozen=True)
class Request:
    """What was typed: ``-c`` arguments in their order, an epsilon to keep to, how many clients there are and how many
    examples one of them has, a file to draw to.
    """

    overrides: tuple[str, ...] = ()
    epsilon: float | None = None
    population: int | None = None
    examples: int | None = None
    plot: Path | None = None
    folder: Path = field(default_factory=Path.cwd)


def answer(request: Request, project: Path, console: Console) -> None:
    """Print the epsilon of the config over its rounds, and what that covers.

    With ``request.epsilon`` it is that of the smallest noise multiplier that keeps to it. Raises UserError where the
    config has no differential privacy, or none of this kind is possible.
    """
    config = merged_config(request.overrides, project, request.folder)
    try:
        for plan in plans(config, request):
            for said in answers(config, request, plan):
                console.print(said, soft_wrap=isinstance(said, str), markup=False, highlight=False)
            request = replace(request, plot=None)  # one file, of the first
    except StrategyError as error:
        raise UserError(str(error)) from None


def answers(config: RunConfig, request: Request, plan: AnyPlan) -> Iterator[str | Table]:
    """Yield the sentences and the table about one plan, after drawing it where that is asked for."""
    if request.epsilon is not None:
        plan, setting = calibrated(plan, request.epsilon)
        yield f"Smallest noise for epsilon {request.epsilon:g}: -c {setting}"
    yield summary(plan)
    yield table(plan)
    yield from sentences(config, plan)
    if request.plot is not None:
        yield f"Wrote {draw(plan, user_path(str(request.plot), '--plot', request.folder))}"


def plans(config: RunConfig, request: Request) -> Iterator[AnyPlan]:
    """Yield what a run of this config does for the privacy of clients, of their examples, or of both."""
    level = example_level(config)
    if level is None or composition(config).privacy.noise_multiplier is not None:
        yield planned(config, request.population)
    if level is None:
        return
    if request.examples is None:
        raise UserError(
            f"The key 'dp-sgd-clip' is {config.dp_sgd_clip:g}: what that is worth depends on how many examples a "
            "client has: say so by --examples."
        )
    yield ExamplePlan(level, request.examples, config.num_rounds)


def calibrated(plan: AnyPlan, epsilon: float) -> tuple[AnyPlan, str]:
    """Return the plan with the smallest noise multiplier that keeps to ``epsilon``, and the setting that gives it."""
    if isinstance(plan, ExamplePlan):
        noise = _rounded_up(with_least_noise(plan.steps, epsilon)).noise_multiplier
        return plan.with_noise(noise), f"dp-sgd-noise-multiplier={noise:g}"
    found = _rounded_up(with_least_noise(plan, epsilon))
    return found, f"noise-multiplier={found.noise_multiplier:g}"


def planned(config: RunConfig, population: int | None = None) -> Plan:
    """Return what a run of this config releases, as its own parts say, if all clients are there in every round."""
    from strategies.privacy.adaptive import AdaptiveDPFedAvg
    from strategies.privacy.dp_fedavg import ClippedSum
    from strategies.privacy.dp_ftrl import DPFTRL

    if population is None and config.partition == "natural":
        raise UserError(
            "The key 'partition' is 'natural', so that only the data set knows how many clients there are: say so by "
            "--population."
        )
    parts, clients = composition(config), population or config.num_clients
    noise, release = parts.privacy.noise_multiplier, parts.privacy.release(1, parts.sampler, clients)
    if noise is None or release is None:
        raise UserError(
            f"The key 'strategy' is '{config.strategy}', which has no differential privacy to account for: choose "
            "'dp-fedavg', 'dp-fedavg-adaptive', 'dp-ftrl', 'dp-mf' or 'local-dp', or set 'privacy' to one of them; or "
            "set 'dp-sgd-clip'."
        )
    correlated = parts.privacy.correlated if isinstance(parts.privacy, DPFTRL) else None
    return Plan(
        population=clients,
        clients_per_round=config.clients_per_round,
        sampling=release.sampling,
        rounds=config.num_rounds,
        noise_multiplier=noise,
        delta=config.budget_delta,
        adaptive=isinstance(parts.privacy, AdaptiveDPFedAvg),
        pass_rounds=correlated.rounds if correlated else 1,
        sensitivity=correlated.sensitivity if correlated else 1.0,
        noise_cohort_size=parts.privacy.noise_cohort_size if isinstance(parts.privacy, ClippedSum) else 0,
    )


def summary(plan: AnyPlan) -> str:
    """Say in a line what is accounted."""
    if isinstance(plan, ExamplePlan):
        steps, level = plan.level.steps(plan.examples), plan.level
        who = f"a client with {plan.examples} examples, {steps} steps a round in batches of {level.batch_size}"
        return f"{who}; {_noise(level.noise_multiplier)}; delta {plan.delta:g}"
    if plan.sampling == "local":
        who = "each client for itself, asked in every round"
    else:
        once = f"each once in a pass of {plan.pass_rounds} rounds"
        how = {"poisson": "on average", "fixed": "exactly", "none": "all of them", "cyclic": once}[plan.sampling]
        who = f"{plan.cohort} of {plan.population} clients a round, {how}"
    simulated = f"; {plan.caveat}" if plan.caveat else ""
    return f"{who}; {_noise(plan.noise_multiplier)}; delta {plan.delta:g}{simulated}"


def _noise(multiplier: float) -> str:
    return f"noise multiplier {multiplier:g}" if multiplier > 0 else "no noise, no privacy"


def table(plan: AnyPlan) -> Table:
    """Return epsilon by both accountants after 1, 2, 5, 10, ... rounds and at the end."""
    rows = Table("rounds", "RDP", "PLD", "epsilon", header_style="bold")
    for rounds in milestones(plan.rounds):
        found = plan.after(rounds)
        rows.add_row(str(rounds), _number(found.rdp), _number(found.pld), _number(found.tightest))
    return rows


def sentences(config: RunConfig, plan: AnyPlan) -> Iterator[str]:
    """Yield what the guarantee covers, when the budget ends the run, and what weakens it."""
    yield from plan.warnings()
    yield plan.meaning(plan.after(plan.rounds).tightest)
    if config.partition != "natural" and (isinstance(plan, ExamplePlan) or plan.sampling == "local"):
        asked = plan.rounds * min(1.0, (config.clients_per_round or config.num_clients) / config.num_clients)
        yield f"That is for a client that is asked in every round; on average one is asked in {asked:.3g} of them."
    if isinstance(plan, ExamplePlan):
        return
    if config.budget_epsilon > 0:
        rounds = plan.rounds_within(config.budget_epsilon)
        yield f"The budget, epsilon {config.budget_epsilon:g}, allows {rounds} of the {plan.rounds} rounds."
    if plan.sampling == "cyclic":
        yield (
            "The seed and its id say in which round of a pass a client takes part ('pass-rounds'), the same in every "
            "pass, and all may know both. A pass is paid as a whole when it begins."
        )
    if plan.sampling not in UNSAMPLED and (config.availability < 1 or config.availability_trace):
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


def draw(plan: AnyPlan, file: Path) -> Path:
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
