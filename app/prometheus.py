"""Rounds as metrics for Prometheus, scraped from a port of this machine's loopback.

Names and types follow https://prometheus.io/docs/practices/naming: a gauge says how it is after the latest round, a
counter ends in ``_total`` and counts from the start of this process (`rate` and `increase` know of restarts). Each run
has a registry of its own.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from app.alerts.engine import Event
from app.alerts.health import turnout
from app.errors import UserError
from strategies.records import RoundRecord

logger = logging.getLogger(__name__)

Made = TypeVar("Made", Gauge, Counter)

LOOPBACK = "127.0.0.1"
SETS = ("train", "central", "federated")

GAUGES: Mapping[str, tuple[str, ...]] = {
    "run_info": ("The run, by the name of its directory.", "run"),
    "rounds_planned": ("Rounds that the run is to have.",),
    "round": ("The latest round that is over.",),
    "round_finished_timestamp_seconds": ("When it was over, in seconds since 1970.",),
    "clients_offered": ("Clients that could be drawn.",),
    "clients_selected": ("Clients that were asked.",),
    "clients_accepted": ("Clients whose update counted.",),
    "clients_banned": ("Clients that could not be drawn for what they had done.",),
    "participation_ratio": ("Share of the clients asked whose update counted.",),
    "reporting_ratio": ("Share of the clients asked and needed that sent an update.",),
    "rejected_ratio": ("Share of them whose update was rejected for what it is.",),
    "phase_seconds": ("Seconds of a phase of the round.", "phase"),
    "round_seconds": ("Seconds of the round.",),
    "simulated_seconds": ("Clock of the simulated world.",),
    "loss": ("Loss of the model.", "set"),
    "accuracy_ratio": ("Accuracy of the model.", "set"),
    "accuracy_worst_tenth_ratio": ("Mean accuracy of the worst tenth of clients.",),
    "privacy_epsilon": ("What all rounds have cost in privacy of clients.",),
    "privacy_epsilon_left": ("What is left of the budget of privacy.",),
    "example_privacy_epsilon": ("What all rounds have cost the examples of a client.",),
    "checkpoint_round": ("The last round before this one that the run could go on from.",),
    "group_accepted": ("Updates that counted, by device class and region.", "kind", "group"),
    "groups_effective": ("exp(entropy) of the groups' shares.", "kind"),
    "update_norm": ("Norms of the updates that counted.", "quartile"),
    "alert_active": ("1 while an alert of the run fires.", "alert", "subject"),
}
"""What is exported as it is after the latest round: the name after ``fedkeras_``, what it means, and its labels."""

COUNTERS: Mapping[str, tuple[str, ...]] = {
    "rounds_skipped_total": ("Rounds that did not count.",),
    "updates_total": ("Updates that counted.",),
    "rejected_total": ("Clients asked whose update did not count.", "reason"),
    "repeated_total": ("Clients whose reply came again, of which the first alone is taken.",),
    "bytes_total": ("Bytes of messages as Flower sends them.", "direction"),
}
"""What is exported as a sum over rounds."""

Sample = tuple[str, tuple[str, ...], float | None]
"""A name, the values of its labels, and what it is after a round; None where that round does not tell."""


class Metrics:
    """All that is exported of a run. What is not known yet is NaN, or not there: 0 would be a claim."""

    def __init__(self, run: str, num_rounds: int) -> None:
        self.registry = CollectorRegistry()
        self._gauges = {name: self._made(Gauge, name, *about) for name, about in GAUGES.items()}
        self._counters = {name: self._made(Counter, name, *about) for name, about in COUNTERS.items()}
        for name, about in GAUGES.items():
            if len(about) == 1:
                self.set(name, math.nan)
        self.set("run_info", 1, run)
        self.set("rounds_planned", num_rounds)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Let a gauge be this."""
        gauge = self._gauges[name]
        (gauge.labels(*labels) if labels else gauge).set(value)

    def take(self, record: RoundRecord) -> None:
        """Export a round that is over."""
        self._gauges["group_accepted"].clear()  # a group that is gone must not stand there for ever
        for name, labels, value in gauges_of(record):
            if value is not None:
                self.set(name, value, *labels)
        for name, labels, value in counters_of(record):
            counter = self._counters[name]
            (counter.labels(*labels) if labels else counter).inc(value)
        self.set("round_finished_timestamp_seconds", time.time())

    def note(self, event: Event) -> None:
        """Export that an alert has begun or is over."""
        self.set("alert_active", event.state == "firing", event.alert, event.subject)

    def _made(self, kind: type[Made], name: str, meaning: str, *labels: str) -> Made:
        return kind(f"fedkeras_{name}", meaning, labels, registry=self.registry)


def gauges_of(record: RoundRecord) -> Iterator[Sample]:
    """Yield how things are after a round."""
    line = record.to_json()
    came, private = turnout(line), line["privacy"] or {}
    yield "round", (), record.round
    yield "clients_offered", (), record.offered
    yield "clients_selected", (), len(record.selected)
    yield "clients_accepted", (), len(record.accepted)
    yield "clients_banned", (), record.banned
    yield "participation_ratio", (), record.participation()
    yield "reporting_ratio", (), came.participation
    yield "rejected_ratio", (), came.rejected
    yield "round_seconds", (), record.seconds.get("total")
    yield from (("phase_seconds", (phase,), value) for phase, value in record.seconds.items() if phase != "total")
    yield "simulated_seconds", (), record.simulated_seconds
    yield "privacy_epsilon", (), private.get("epsilon")
    yield "privacy_epsilon_left", (), private.get("epsilon-left")
    yield "example_privacy_epsilon", (), (line["example-privacy"] or {}).get("epsilon")
    yield "checkpoint_round", (), record.checkpoint
    yield from _learning(line)
    yield from _groups(line["diversity"] or {})
    yield from (("update_norm", (quartile,), value) for quartile, value in (line["update-norms"] or {}).items())


def _learning(line: Mapping[str, Any]) -> Iterator[Sample]:
    for name in SETS:
        told = line[name] or {}
        yield "loss", (name,), told.get("loss")
        yield "accuracy_ratio", (name,), told.get("accuracy")
    yield "accuracy_worst_tenth_ratio", (), (line["federated"] or {}).get("accuracy-worst-10")


def _groups(diversity: Mapping[str, Any]) -> Iterator[Sample]:
    for kind, told in diversity.items():
        yield "groups_effective", (kind,), told["effective"]
        yield from (("group_accepted", (kind, name), group["counted"]) for name, group in told["groups"].items())


def counters_of(record: RoundRecord) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Yield what a round adds."""
    yield "rounds_skipped_total", (), record.skipped
    yield "updates_total", (), len(record.accepted)
    yield from (("rejected_total", (reason,), count) for reason, count in record.rejected.items())
    yield "repeated_total", (), record.repeated
    yield "bytes_total", ("down",), record.bytes_down
    yield "bytes_total", ("up",), record.bytes_up


class Prometheus:
    """Serves `Metrics` at ``/metrics`` until it is closed."""

    def __init__(self, metrics: Metrics, port: int) -> None:
        """Listen. Raises UserError where the port is taken: a run that nobody can watch as was asked does not begin."""
        self._metrics = metrics
        try:
            self._server, self._thread = start_http_server(port, LOOPBACK, metrics.registry)
        except OSError as error:
            raise UserError(
                f"The key 'prometheus-port' is {port}, but nothing can listen there ({error.strerror}): another run "
                "may have it. Choose another port, or 0 to do without."
            ) from None
        logger.info("Prometheus finds this run at http://%s:%d/metrics", LOOPBACK, self._server.server_port)

    @property
    def address(self) -> str:
        """Where the metrics are found."""
        return f"http://{LOOPBACK}:{self._server.server_port}/metrics"

    def round(self, record: RoundRecord) -> None:
        """Export the round."""
        self._metrics.take(record)

    def note(self, event: Event) -> None:
        """Export the alert."""
        self._metrics.note(event)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
