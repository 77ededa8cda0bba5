"""Clipping: no client moves the sum by more than a norm. Both halves: the client's mod, and the same on the server.

McMahan, Ramage, Talwar, Zhang: "Learning Differentially Private Recurrent Language Models", 2018, section 2: *flat*,
the whole update to the norm S, or *per layer*, each of the L arrays of the model to S / sqrt(L), which also bounds the
whole by S. Clipped is on the client, before anything leaves it or is added to others' updates, and again on the server
once an update is decoded: so what a codec adds, or a client that does not clip, cannot exceed the norm either.

What differs from the paper: an update that is too long is shortened to 1 - 2^-23 of the norm. So no rounding makes it
longer than the norm, and clipping a second time changes no bit: packed and unpacked clients give the same sum.

Partial sums: a node adds up clipped updates, which the server cannot clip again. Who is protected from whom by central
privacy makes that sound: a node that does not clip lets only those clients count too much whose data it holds anyway;
the bound of everybody else's update is kept by their own nodes.

Clients of one node stand or fall together in a message: where it is lost, or its sum is refused, none of them counts.
Noise and accounting go by who was asked, so that a loss makes no difference to them as long as it does not hang on a
client's data. In a deployment it can: a client whose training ends the process takes the k clients of its message with
it, and the sum moves by up to k S for one of them. So central privacy of single clients presumes nodes that host one
client each, or 'clients-per-message' 1; else what is promised is the privacy of a message's clients together, at k S.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from strategies import wire
from strategies.admission import norm
from strategies.fixed_point import FloatVector
from strategies.layout import ModelLayout
from strategies.updates import Update

PREFIX = "privacy-"  # of the settings in a request
NORM, PER_LAYER, COUNT = "clipping-norm", "per-layer-clipping", "count-within"
WITHIN = "within-clipping-norm"  # a metric: 1 where the update was not longer than the norm, else 0
SHORTER = 1.0 - 2.0**-23


@dataclass(frozen=True)
class Clipping:
    """To which L2 norm updates are clipped, and whether clients tell which of them were not too long."""

    norm: float
    per_layer: bool = False
    count_within: bool = False

    def to_config(self) -> dict[str, float]:
        """Return the settings that clients need."""
        return {NORM: self.norm, PER_LAYER: float(self.per_layer), COUNT: float(self.count_within)}

    @classmethod
    def from_config(cls, config: Mapping[str, float]) -> Self:
        """Read what `to_config` gave."""
        return cls(config[NORM], bool(config[PER_LAYER]), bool(config[COUNT]))

    def clip(self, update: Update, layout: ModelLayout) -> Update:
        """Return the update, of a norm of at most ``norm``.

        Tells in its metrics whether it was so before, where that is counted and the client has not told already. One
        that is not finite stays so, and admission rejects it.
        """
        length = norm(update.delta)
        metrics = update.metrics
        if self.count_within and WITHIN not in metrics:
            metrics = {**metrics, WITHIN: float(length <= self.norm)}
        delta = self._by_layer(update.delta, layout) if self.per_layer else _shortened(update.delta, self.norm, length)
        if delta is update.delta and metrics is update.metrics:
            return update
        return replace(update, delta=delta, metrics=metrics)

    def _by_layer(self, delta: FloatVector, layout: ModelLayout) -> FloatVector:
        each = self.norm / math.sqrt(len(layout.names))
        own = [delta[start : start + size] for start, size in zip(layout.offsets, layout.sizes, strict=True)]
        clipped = [_shortened(layer, each, norm(layer)) for layer in own]
        untouched = all(one is other for one, other in zip(own, clipped, strict=True))
        return delta if untouched else np.concatenate(clipped)


def _shortened(delta: FloatVector, limit: float, length: float) -> FloatVector:
    """Return a vector of this length as it is, or a copy that is at most as long as the limit."""
    if length <= limit:
        return delta
    shorter = np.empty_like(delta)
    with np.errstate(invalid="ignore"):  # infinity times 0
        np.multiply(delta, limit / length * SHORTER, out=shorter, dtype=np.float64, casting="same_kind")
    return shorter


def within(metrics: Mapping[str, float]) -> bool:
    """Tell whether a client says that its update was not too long: it counts once, whatever number it sends."""
    return metrics.get(WITHIN, 0.0) >= 0.5  # false for NaN


def clip_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Clip the flat update in a training reply as the request says; a request that says nothing passes through."""
    clipping = asked(wire.config_of(message))
    reply = call_next(message, context)
    if clipping is not None and reply.has_content() and wire.UPDATE in reply.content:
        layout = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS)).layout
        _clip_in(reply.content, clipping, layout)
    return reply


def asked(config: ConfigRecord) -> Clipping | None:
    """Return how a request wants updates clipped; None where it says nothing."""
    if PREFIX + NORM not in config:
        return None
    return Clipping.from_config({key: wire.number(config, PREFIX + key) for key in (NORM, PER_LAYER, COUNT)})


def _clip_in(content: RecordDict, clipping: Clipping, layout: ModelLayout) -> None:
    update = wire.update_of("", content)
    told = {name: value for name, value in update.metrics.items() if name != WITHIN}
    clipped = clipping.clip(replace(update, metrics=told), layout)
    content[wire.UPDATE] = wire.array_record({wire.DELTA: clipped.delta})
    if WITHIN in clipped.metrics:
        content[wire.METRICS] = MetricRecord({**wire.metrics_of(content), WITHIN: clipped.metrics[WITHIN]})
