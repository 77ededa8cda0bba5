"""Whose updates make the model: device classes and regions of the clients that were asked, and of those that counted.

The effective number of groups is exp(H) of the Shannon entropy H of their shares in the updates that counted (Hill
number of order 1; Hill, "Diversity and Evenness: A Unifying Notation and Its Consequences", 1973): n where n groups
contribute alike, near 1 where one of them contributes nearly all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from strategies.population import ClientInfo, Population

MOST = 50  # groups that are told, those with the most clients: names are the clients' invention


def diversity(population: Population, selected: Iterable[str], counted: Iterable[str]) -> dict[str, Any] | None:
    """Return the ``effective`` number of groups of each kind, and each one's ``clients``, ``selected`` and ``counted``.

    A kind of which no client has named its own is left out, None is returned where that is all; clients that are gone
    from the population are left out too. A client in ``counted`` twice counts twice. Costs as much as there are clients
    selected.
    """
    known = {kind: groups for kind, groups in population.groups.items() if any(groups)}
    if not known:
        return None
    drawn, good = _present(population, selected), _present(population, counted)
    return {
        kind: _told(groups, Counter(map(Population.KINDS[kind], drawn)), Counter(map(Population.KINDS[kind], good)))
        for kind, groups in known.items()
    }


def effective_number(counts: Iterable[int]) -> float:
    """Return exp(entropy) of the shares; 0 where nothing was counted."""
    present = [count for count in counts if count]
    total = sum(present)
    return math.exp(-math.fsum(count / total * math.log(count / total) for count in present)) if total else 0.0


def _present(population: Population, clients: Iterable[str]) -> list[ClientInfo]:
    return [population[client] for client in clients if client in population]


def _told(clients: Mapping[str, int], selected: Mapping[str, int], counted: Mapping[str, int]) -> dict[str, Any]:
    largest = sorted(clients, key=lambda name: (-clients[name], name))[:MOST]
    groups = {
        name: {"clients": clients[name], "selected": selected.get(name, 0), "counted": counted.get(name, 0)}
        for name in sorted(largest)
    }
    return {"effective": effective_number(counted.values()), "groups": groups}
