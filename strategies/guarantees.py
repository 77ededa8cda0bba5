"""What a part of a strategy gives the others and needs of them, so that unsound combinations are refused at start."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Property(StrEnum):
    """A property of a round that a part can give, need or take away; the value completes "needs ..."."""

    LINEAR = "an aggregate that is a weighted sum of the updates, so that partial sums are enough"
    NODE_SUMS = "updates that a node may add up for its clients, as they are and weighted as in the weighted mean"
    SINGLE_UPDATES = "every client's own update in the clear on the server"
    EQUAL_WEIGHTS = "every client to count the same, whatever it claims"
    BOUNDED_UPDATES = "updates whose norm has a known bound"
    KNOWN_SAMPLING = "a cohort whose sampling probabilities are known, as privacy accounting assumes them"
    INDEPENDENT_SAMPLING = "clients that are drawn independently of each other, or that send nothing of earlier rounds"
    BOUNDED_PARTICIPATION = "a cohort in which each client takes part at most once in a pass of so many rounds"
    NOTHING_ELSE = "a round of which the server learns nothing but the noised sum"
    CLIENT_STATE = "rounds that end for all at once, so that every client knows which of its updates counted last"
    ROUNDS = "rounds whose clients are known before any of them is asked, so that each can be paid for"
    EXACT_UPDATES = "updates that reach the server exactly as clients made them"
    EQUAL_SUPPORT = "updates whose values stand at the same places for all clients of a round"
    COMMON_START = "clients that all begin from one model, so that they can be asked about it before"


@dataclass(frozen=True)
class Guarantees:
    """What a part gives, needs and takes away.

    A need is met when some part of the composition gives the property and none takes it away. A compressing codec gives
    SINGLE_UPDATES, a masking one takes it away; a rank-based aggregator needs it. NOTHING_ELSE is needed and
    given by what puts the noise on, and taken away by parts that draw conclusions from the updates themselves.
    """

    gives: frozenset[Property] = frozenset()
    needs: frozenset[Property] = frozenset()
    takes: frozenset[Property] = frozenset()
