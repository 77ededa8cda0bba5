"""Whether this process trains clients of a simulation only, told by what runs it and never by what it is sent.

A simulation derives its noise for privacy from the run's seed, so that a run can be repeated. On a deployed node that
would give the noise away to whoever knows the seed, as the server does. A node's config cannot tell the two apart:
``partition-id`` and ``num-partitions``, which Flower gives to simulated nodes, may be set on a SuperNode too. So it
takes evidence from this side: clients are simulated in the actors of Ray (Flower's engine and ours), or are called by
the `simulation.inline.InlineGrid` of this very process. A SuperNode starts an ordinary process for every message.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_called: ContextVar[bool] = ContextVar("clients are called by a simulation in this process", default=False)


@contextmanager
def simulated_here() -> Iterator[None]:
    """Say that the clients called inside, in this thread, are simulated."""
    token = _called.set(True)
    try:
        yield
    finally:
        _called.reset(token)


def in_simulation() -> bool:
    """Tell whether it is certain that the clients called here are simulated."""
    return _called.get() or _in_ray_actor()


def _in_ray_actor() -> bool:
    ray = sys.modules.get("ray")  # in an actor it is there, and it takes a second to import
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None
