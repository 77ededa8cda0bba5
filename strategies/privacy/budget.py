"""The budget of a run: each round is accounted as it is sampled before it begins, and none begins that would exceed it.

The release of a round is what its mechanism says, of its sampler and the clients that could be drawn in it (online, not
banned): so what is sampled is what is accounted. It is written down before anybody is asked, and stays so whatever
comes of the round: of one that crashed, or whose step was not finite, nobody knows what was seen. A round for which
nobody could be drawn asks nobody, and costs nothing.

Where clients release what they send themselves (`strategies.privacy.local_dp`), each pays for its own participations.
Then the ledger holds what the client has paid that was asked most often, and no round begins that asks a client once
too often.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from strategies.composition import Composition
from strategies.errors import StrategyError
from strategies.privacy import participations
from strategies.updates import State


class BudgetSpentError(StrategyError):
    """The next round would cost more privacy than is left."""


@dataclass(frozen=True)
class Budget:
    """How large ``epsilon`` may become, 0 = as large as it likes, at this ``delta``.

    With ``by_client`` the ledger also holds how often each client was asked, and with how many examples: what it costs
    then to take part, in privacy of these, is for others to know.
    """

    epsilon: float = 0.0
    delta: float = 1e-5
    by_client: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < math.inf:
            raise StrategyError(f"The key 'budget-epsilon' is {self.epsilon}, but must be 0 (no limit) or more.")
        if not 0 < self.delta < 1:
            raise StrategyError(f"The key 'budget-delta' is {self.delta}, but must lie between 0 and 1.")


def account(
    round: int, composition: Composition, budget: Budget, ledger: State, clients: int, cohort: Mapping[str, int]
) -> State:
    """Return the ledger (as arrays) with the round that is about to begin, for which so many clients could be drawn.

    It stays as it is where the mechanism says that the round releases nothing new. ``cohort`` is whom it asks,
    with the number of examples of each. Raises BudgetSpentError where that would exceed the budget.
    """
    release = composition.privacy.release(round, composition.sampler, clients)
    each_pays = release is not None and release.sampling == "local"
    taken_part = participations.after(ledger, cohort) if each_pays or budget.by_client else {}
    if each_pays and participations.most(taken_part) == participations.most(ledger):
        release = None  # nobody pays more than another client has before
    if release is None:
        return {**ledger, **taken_part}
    from strategies.privacy.ledger import Ledger

    before = Ledger.of(ledger)
    if budget.epsilon:
        try:
            before.check(release, budget.epsilon, budget.delta)
        except StrategyError as error:
            raise BudgetSpentError(str(error)) from None
    return {**before.after(release).state(), **taken_part}
