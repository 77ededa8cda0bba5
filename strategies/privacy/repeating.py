"""What it costs to repeat a round with other noise, as a run does that goes on after its process was killed.

A mechanism that pays for every round pays for the repeated one too, as it begins. Where it counts on the sampling of
clients, the repeated round is another sample (`strategies.selection`), independent of the first as the ledger takes
them to be. With the same cohort k times all together would be one sampled mechanism of sqrt(k) times less noise: of one
client in 100 and z = 1, epsilon is 0.32 at delta 1e-5 for five samples, and 4.2 for five times the same.

A mechanism that pays for a pass of rounds (DP-FTRL) asks nothing for those within it, and so must pay for the pass a
second time: what is released of it before and after is two sequences that share the noise of the rounds before. Each of
them alone is the mechanism that was paid for, so what a client changes in both together, measured in the noise of
either, is at most sqrt(2) times as long: the cost of two such mechanisms (Kairouz et al., 2021, appendix B, bound a
client's part in the nodes of a tree likewise).
"""

from __future__ import annotations

from strategies.composition import Composition
from strategies.privacy.budget import Budget
from strategies.updates import State


def paid_again(round: int, composition: Composition, budget: Budget, ledger: State, clients: int) -> State:
    """Return the ledger once the pass is paid again in which this round is not the first; else as it is.

    ``clients`` is how many can be drawn. Raises StrategyError where that would exceed the budget.
    """
    privacy, sampler = composition.privacy, composition.sampler
    if not ledger or privacy.release(round, sampler, clients) is not None:
        return ledger
    earlier = (privacy.release(number, sampler, clients) for number in range(round - 1, 0, -1))
    release = next((found for found in earlier if found is not None), None)
    if release is None:
        return ledger
    from strategies.privacy.ledger import Ledger  # dp-accounting takes a second to import

    before = Ledger.of(ledger)
    if budget.epsilon:
        before.check(release, budget.epsilon, budget.delta)
    return {**ledger, **before.after(release).state()}
