"""Audits a run while it lasts: watches its models for the canaries, and writes down at the end what these prove."""

from __future__ import annotations

import logging

from flwr.app import ArrayRecord

from app.federated_run import FederatedRun
from simulation.audit.canary_client import canaries_of
from simulation.audit.outcome import Outcome
from strategies import wire
from strategies.privacy.audit import CONFIDENCE
from strategies.privacy.canaries import Watch
from strategies.privacy.ledger import RELEASES, Ledger
from strategies.records import RoundRecord
from strategies.updates import FloatVector, State

logger = logging.getLogger(__name__)

EACH = 1 - (1 - CONFIDENCE) / 2  # confidence of either bound, so that both hold together with the whole


def audit(run: FederatedRun) -> None:
    """Audit a run, which has not begun yet and of which canaries are a part: it leaves ``audit.json``."""
    auditor = _Auditor(run)
    run.observers = (*run.observers, auditor.see)
    run.watcher = auditor
    run.at_end = (*run.at_end, auditor.tell)


class _Auditor:
    """Sees the weights of a run after each round, from the first ones on."""

    def __init__(self, run: FederatedRun) -> None:
        self._run = run
        self._watch: Watch | None = None

    def see(self, record: RoundRecord) -> None:
        """Observe a round; the first, round 0, shows what the run begins with."""
        if self._watch is None:
            self._watch = Watch(canaries_of(self._run.config), self._weights())
        else:
            self._watch.see(self._weights())

    def state(self) -> State:
        """Return what it remembers, for a run that goes on."""
        return self._watch.state() if self._watch else {}

    def go_on(self, state: State, weights: ArrayRecord) -> None:
        """Go on watching a run that had come to these weights."""
        self._watch = Watch.of(canaries_of(self._run.config), state, wire.read_weights(weights).flat)

    def tell(self) -> None:
        """Write down what has been found, and say it; StrategyError where the model has not moved."""
        outcome = self._outcome()
        self._run.directory.write_audit(outcome.to_json())
        logger.info("Audit: %s", outcome.sentence())

    def _outcome(self) -> Outcome:
        if self._watch is None:
            raise RuntimeError("The run was audited before its first round.")
        config, watch, ledger = self._run.config, self._watch, self._run.ledger
        return Outcome(
            canaries=config.canaries,
            weights=watch.size,
            rounds=watch.looks,
            delta=config.budget_delta,
            confidence=CONFIDENCE,
            promised=Ledger.of(ledger).epsilons(config.budget_delta) if RELEASES in ledger else None,
            final_model=watch.final_model(config.budget_delta, EACH),
            all_models=watch.all_models(config.budget_delta, EACH),
        )

    def _weights(self) -> FloatVector:
        if self._run.weights is None:
            raise RuntimeError("A round was observed before there were weights.")
        return wire.read_weights(self._run.weights).flat
