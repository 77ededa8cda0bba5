"""Error feedback: what a codec has left out of a client's updates goes into its next one. Both halves.

Seide, Fu, Droppo, Li, Yu: "1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed Training
of Speech DNNs", 2014; Karimireddy, Rebjock, Stich, Jaggi: "Error Feedback Fixes SignSGD and other Gradient Compression
Schemes", 2019, algorithm 2, here for the updates of clients (Sattler et al. 2019, algorithm 2). A client keeps e and

    sends Q(e + delta),    and keeps e' = e + delta - what was sent.

With ``momentum`` m > 0 it is Lin, Han, Mao, Wang, Dally: "Deep Gradient Compression", 2018, section 3: the client adds
u' = m u + delta instead of delta, and where it sends something it forgets u (momentum factor masking).

An update that did not count (rejected, late, surplus, of a skipped round, of a server that went on from an older
checkpoint) goes back into e whole. A client learns that with its next request, see `ClientStates.last`: until then it
keeps both, what is left if the round counted and if it did not. So all that counted and e are the sum of all updates.
As the model has not moved, the client then trains towards the same again: what comes back overshoots at first.
A client that takes part rarely sends what it has left out long ago, from another model. On its disk are as many states
as `strategies.client_state` says, of eight bytes for each value of the model, or sixteen with momentum.

With a codec that is unbiased already, error feedback only adds up its noise: on MNIST with two shards a client, 2 bits
of QSGD reach 0.914 without it and 0.902 with it (benchmarks/README.md). So 'auto' leaves it off there.

Under central privacy delta is clipped, e is added, the sum is compressed, and what the server decodes it clips again to
the norm S: no client adds more than S in a round, whatever its e, which is the sensitivity that is accounted. What that
cuts off stays in e too. e is made of the client's own updates and of when it was drawn before. Amplification by
sampling survives that where clients are drawn independently ('poisson'): an accountant may be told the draws of all
others, and given those each round is a sampled Gaussian mechanism with another vector of norm S. Of a cohort of fixed
size this cannot be said, and the combination is refused. Under local privacy e holds noised updates alone, of which
anything may be made.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strategies.client_state import Turn
from strategies.compression.codec import Codec
from strategies.compression.registry import codec_of
from strategies.errors import StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.options import Option, Options, number, text
from strategies.updates import AnyArray, FloatVector

logger = logging.getLogger(__name__)

FEEDBACK, MOMENTUM = "error-feedback", "error-feedback-momentum"
CHOICES = ("auto", "on", "off")
COUNTED, LOST = "if-counted", "if-lost"

Rows = npt.NDArray[np.float32]
"""What a client keeps, [1, size]: e; with momentum [2, size]: e and u."""


@dataclass(frozen=True)
class ErrorFeedback:
    """A codec whose clients remember what it has left out."""

    codec: Codec
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise StrategyError(f"The key '{MOMENTUM}' is {self.momentum}, but must be 0 (none) or more and below 1.")

    @property
    def guarantees(self) -> Guarantees:
        """As the codec, with clients that learn which of their updates counted, and send what earlier rounds left."""
        own = self.codec.guarantees
        return Guarantees(own.gives - {Property.INDEPENDENT_SAMPLING}, own.needs | {Property.CLIENT_STATE}, own.takes)

    @property
    def unbiased(self) -> bool:
        """No single update is: it holds others' rest."""
        return False

    @property
    def settings(self) -> Mapping[str, Option]:
        """The codec's, and the momentum."""
        return {**self.codec.settings, FEEDBACK: "on", MOMENTUM: self.momentum}

    def encode(self, delta: FloatVector, seed: int, round_seed: int) -> AnyArray:
        """Write what is to be sent, to which the client has added what it kept."""
        return self.codec.encode(delta, seed, round_seed)

    def decode(self, payload: AnyArray, size: int, round_seed: int) -> FloatVector:
        """Read it."""
        return self.codec.decode(payload, size, round_seed)

    # The client's half.

    def recall(self, turn: Turn, size: int) -> Rows:
        """Return what a client keeps, of whose last update it now learns whether it counted."""
        fresh = np.zeros((2 if self.momentum else 1, size), np.float32)
        state, counted = turn.last({COUNTED: fresh, LOST: fresh})
        return state[COUNTED if counted else LOST].astype(np.float32, copy=False)

    def added(self, kept: Rows, delta: FloatVector) -> Rows:
        """Return what the client has to send, in the first row."""
        if not self.momentum:
            return kept + delta
        velocity = np.float32(self.momentum) * kept[1] + delta
        return np.stack([kept[0] + velocity, velocity])

    def keep(self, turn: Turn, kept: Rows) -> None:
        """Go on with what the client has, whether or not this round counts."""
        turn.save({COUNTED: kept, LOST: kept})

    def remember(self, turn: Turn, total: Rows, sent: FloatVector) -> None:
        """Keep what is left of ``total`` once ``sent`` of it has counted, and all of it in case it does not."""
        left = total.copy()
        left[0] -= sent
        left[1:, sent != 0] = 0
        turn.save({COUNTED: left, LOST: total})


def feeds_back(options: Options) -> bool:
    """Tell whether the options, or else the codec's bias, ask for error feedback.

    What float16 rounds away is biased too, but too little for clients to keep it.
    Raises StrategyError where the codec cannot be, or has left out nothing that could be sent later.
    """
    codec, choice = codec_of(options), text(options, FEEDBACK, "auto")
    if choice not in CHOICES:
        raise StrategyError(f"The key '{FEEDBACK}' is '{choice}', but must be one of {list(CHOICES)}.")
    if choice == "on" and Property.EXACT_UPDATES in codec.guarantees.gives:
        raise StrategyError(
            f"The key '{FEEDBACK}' is 'on', but the codec '{text(options, 'codec', 'none')}' leaves out nothing that "
            "could be sent later: change 'codec', or leave it at 'auto'."
        )
    rounds = [codec.settings.get(key) for key in ("codec", "codec-quantization")] == ["full", "float16"]
    return choice == "on" or (choice == "auto" and not codec.unbiased and not rounds)


def uplink_codec(options: Options) -> Codec:
    """Return the codec of the clients' updates, with error feedback where `feeds_back`; warns where that does harm."""
    codec = codec_of(options)
    if not feeds_back(options):
        return codec
    if codec.unbiased:
        logger.warning(
            "The codec '%s' is unbiased: what it gets wrong averages out, and error feedback only adds it up, which "
            "costs accuracy. Leave '%s' at 'auto'.",
            *(text(options, "codec", "none"), FEEDBACK),
        )
    return ErrorFeedback(codec, number(options, MOMENTUM, 0.0))


def asked_codec(settings: Options) -> Codec:
    """Return the codec that a request asks a client for, of what `Codec.settings` has told."""
    codec = codec_of(settings)
    return ErrorFeedback(codec, number(settings, MOMENTUM, 0.0)) if settings.get(FEEDBACK) == "on" else codec
