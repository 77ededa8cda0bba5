"""Rounds as metrics for Prometheus, scraped from a port of this machine's loopback.

Names and types follow https://prometheus.io/docs/practices/naming: a gauge says how it is after the latest round, a
counter ends in ``_total`` and counts from the start of this process (`rate` and `increase` know of restarts). Each run
has a registry of its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from app.alerts.engine import Event
from app.alerts.health import turnout
from app.errors import UserError
from strategies.records import RoundRecord

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
SETS = ("train", "central", "federated")


class Metrics:
    """All that is exported of a run, by the names that rules and dashboards use."""

    def __init__(self, run: str, num_rounds: int) -> None:
        self.registry = registry = CollectorRegistry()

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            made = Gauge(f"fedkeras_{name}", meaning, labels, registry=registry)
            if not labels:
                made.set(math.nan)  # until it is known: 0 would be a claim
            return made

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"fedkeras_{name}", meaning, labels, registry=registry)

        gauge("run_info", "The run, by the name of its directory.", "run").labels(run).set(1)
        gauge("rounds_planned", "Rounds that the run is to have.").set(num_rounds)
        self.round = gauge("round", "The latest round that is over.")
        self.finished = gauge("round_finished_timestamp_seconds", "When it was over, in seconds since 1970.")
        self.skipped = counter("rounds_skipped_total", "Rounds that did not count.")
        self.offered = gauge("clients_offered", "Clients that could be drawn.")
        self.selected = gauge("clients_selected", "Clients that were asked.")
        self.accepted = gauge("clients_accepted", "Clients whose update counted.")
        self.banned = gauge("clients_banned", "Clients that could not be drawn for what they had done.")
        self.participation = gauge("participation_ratio", "Share of the clients asked whose update counted.")
        self.reporting = gauge("reporting_ratio", "Share of the clients asked and needed that sent an update.")
        self.refused = gauge("rejected_ratio", "Share of them whose update was rejected for what it is.")
        self.updates = counter("updates_total", "Updates that counted.")
        self.rejected = counter("rejected_total", "Clients asked whose update did not count.", "reason")
        self.bytes = counter("bytes_total", "Bytes of messages as Flower sends them.", "direction")
        self.phase = gauge("phase_seconds", "Seconds of a phase of the round.", "phase")
        self.seconds = gauge("round_seconds", "Seconds of the round.")
        self.simulated = gauge("simulated_seconds", "Clock of the simulated world.")
        self.loss = gauge("loss", "Loss of the model.", "set")
        self.accuracy = gauge("accuracy_ratio", "Accuracy of the model.", "set")
        self.worst = gauge("accuracy_worst_tenth_ratio", "Mean accuracy of the worst tenth of clients.")
        self.epsilon = gauge("privacy_epsilon", "What all rounds have cost in privacy of clients.")
        self.left = gauge("privacy_epsilon_left", "What is left of the budget of privacy.")
        self.examples = gauge("example_privacy_epsilon", "What all rounds have cost the examples of a client.")
        self.checkpoint = gauge("checkpoint_round", "The last round before this one that the run could go on from.")
        self.groups = gauge("group_accepted", "Updates that counted, by device class and region.", "kind", "group")
        self.effective = gauge("groups_effective", "exp(entropy) of the groups' shares.", "kind")
        self.norm = gauge("update_norm", "Norms of the updates that counted.", "quartile")
        self.alert = gauge("alert_active", "1 while an alert of the run fires.", "alert", "subject")

    def take(self, record: RoundRecord) -> None:
        """Export a round that is over."""
        self.round.set(record.round)
        self.finished.set_to_current_time()
        self.skipped.inc(record.skipped)
        self._clients(record)
        self.bytes.labels("down").inc(record.bytes_down)
        self.bytes.labels("up").inc(record.bytes_up)
        for phase, seconds in record.seconds.items():
            (self.seconds if phase == "total" else self.phase.labels(phase)).set(seconds)
        _set(self.simulated, record.simulated_seconds)
        _set(self.checkpoint, record.checkpoint)
        line = record.to_json()
        came = turnout(line)
        _set(self.reporting, came.participation)
        _set(self.refused, came.rejected)
        self._learning(line)
        self._privacy(line)
        self._groups(line["diversity"] or {})
        for name, value in (line["update-norms"] or {}).items():
            self.norm.labels(name).set(value)

    def _clients(self, record: RoundRecord) -> None:
        self.offered.set(record.offered)
        self.selected.set(len(record.selected))
        self.accepted.set(len(record.accepted))
        self.banned.set(record.banned)
        self.participation.set(record.participation())
        self.updates.inc(len(record.accepted))
        for reason, count in record.rejected.items():
            self.rejected.labels(reason).inc(count)

    def _learning(self, line: Mapping[str, Any]) -> None:
        for name in SETS:
            told = line[name] or {}
            for measure, gauge in (("loss", self.loss), ("accuracy", self.accuracy)):
                if measure in told:
                    gauge.labels(name).set(told[measure])
        _set(self.worst, (line["federated"] or {}).get("accuracy-worst-10"))

    def _privacy(self, line: Mapping[str, Any]) -> None:
        _set(self.epsilon, (line["privacy"] or {}).get("epsilon"))
        _set(self.left, (line["privacy"] or {}).get("epsilon-left"))
        _set(self.examples, (line["example-privacy"] or {}).get("epsilon"))

    def _groups(self, diversity: Mapping[str, Any]) -> None:
        self.groups.clear()  # one that is gone must not stand there for ever
        for kind, told in diversity.items():
            self.effective.labels(kind).set(told["effective"])
            for name, group in told["groups"].items():
                self.groups.labels(kind, name).set(group["counted"])

    def note(self, event: Event) -> None:
        """Export that an alert has begun or is over."""
        self.alert.labels(event.alert, event.subject).set(event.state == "firing")


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


def _set(gauge: Gauge, value: float | None) -> None:
    """Set a gauge to what a round tells; where it does not, the last value stays."""
    if value is not None:
        gauge.set(value)
