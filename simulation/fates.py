"""What becomes of each client that a server asks at one moment: who finishes in time, who is late, lost or not needed.

A client's time is its computing and its network together. The round is over when ``goal`` clients have finished (with
over-selection, Bonawitz et al., "Towards Federated Learning at Scale: System Design", 2019, section 2.2); else when all
have answered, a client that drops out being noticed at once; else, where somebody is missing, at the deadline.
A straggler may send the part of its work that it has done by the deadline instead. Who is one may also be drawn, and
how much of its training each gets done in the time that others take for all of theirs: so are stragglers simulated in
Li et al., "Federated Optimization in Heterogeneous Networks", 2020, "FedProx", section 5.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simulation.draws import Floats
from strategies.admission import Reason


@dataclass(frozen=True)
class Terms:
    """What the server grants: simulated seconds, and how many finishers it needs (0 = all).

    ``deadline`` 0 means none; nobody is waited for longer than ``patience``. ``partial`` lets stragglers send the part
    that they have done.
    """

    deadline: float = 0.0
    goal: int = 0
    patience: float = math.inf
    partial: bool = False

    @property
    def limit(self) -> float:
        """How long a client may take."""
        return min(self.deadline or math.inf, self.patience)


@dataclass(frozen=True)
class Work:
    """What each client would take; all arrays in one order, times in simulated seconds since it was asked.

    ``lost`` is when a client drops out, infinity where it does not; ``rank`` says who is first of those that take
    equally long; ``done`` is the part of its training, in (0, 1], that a client gets done in its time.
    """

    compute: Floats
    network: Floats
    lost: Floats
    rank: Floats
    done: Floats

    @property
    def total(self) -> Floats:
        """Computing and network together."""
        return self.compute + self.network


@dataclass(frozen=True)
class Fates:
    """``reasons``: why a client gives no update, "" where it does. ``shares``: of its work that it does, in (0, 1].

    ``answered``: seconds after which the server knows; ``end`` is the last of them.
    """

    reasons: list[str]
    shares: Floats
    answered: Floats
    end: float


def fates(work: Work, terms: Terms) -> Fates:
    """Return what becomes of clients that are asked together."""
    cut = _cut(work, terms)
    times = np.where(cut < 1, terms.limit, work.total)
    lost = work.lost <= np.minimum(times, terms.limit)
    late = ~lost & ((times > terms.limit) | ((work.done < 1) & (not terms.partial)))
    finished = np.flatnonzero(~lost & ~late)
    order = finished[np.lexsort((work.rank[finished], times[finished]))]
    needed = order[: terms.goal or None]
    noticed = np.where(late, np.minimum(times, terms.limit), np.where(lost, terms.deadline or work.lost, times))
    is_reached = 0 < terms.goal <= len(order)
    end = float((times[needed] if is_reached else noticed).max(initial=0.0))
    reasons = np.full(len(times), str(Reason.SURPLUS), dtype=object)
    for flags, reason in ((needed, ""), (lost, str(Reason.DROPOUT)), (late, str(Reason.LATE))):
        reasons[flags] = reason
    return Fates(reasons.tolist(), cut * work.done, np.minimum(noticed, end), end)


def _cut(work: Work, terms: Terms) -> Floats:
    """Return 1, or the part of its time for training that a straggler has had when it must send for the deadline."""
    cut = np.ones_like(work.compute)
    if terms.partial and terms.deadline:
        tardy = (work.total > terms.limit) & (work.network < terms.limit)
        cut[tardy] = (terms.limit - work.network[tardy]) / work.compute[tardy]
    return cut
