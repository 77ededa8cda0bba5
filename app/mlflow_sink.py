"""Rounds as an MLflow run: the config as parameters, every scalar of a round as a metric at its step.

MLflow is an extra (``pip install fedkeras[mlflow]``), and a run never waits for its server or ends with it: rounds are
sent from a thread of their own, and after the first one that could not be sent no more are. How the run ends stands
there as in ``status.json``; of a process that was killed, MLflow goes on to say that it is running.
"""

from __future__ import annotations

import importlib
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from app.errors import UserError
from app.run_directory import RunState
from app.sinks import scalars
from strategies.records import RoundRecord

logger = logging.getLogger(__name__)

EXPERIMENT = "fedkeras"
RUN_TAG = "fedkeras.run"
MOST_PARAMS, MOST_METRICS = 100, 1000  # of one request, as MLflow's REST interface has it
MOST_WAITING = 1000
PATIENCE = 10.0  # seconds that the end of a run waits for what is not sent yet
# MLflow's own defaults are to try for minutes.
LESS_PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}

Item = TypeVar("Item")

STATUS: Mapping[RunState, str] = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "pruned": "KILLED",
}
"""What MLflow calls the states of a run."""


class MLflow:
    """Sends rounds to a tracking server; a run of the same directory that is there already is continued.

    It outlasts the other sinks, as a run can fail after its last round: `ended` ends it.
    """

    def __init__(self, uri: str, run: str, config: Mapping[str, Any], patience: float = PATIENCE) -> None:
        """Raises UserError where MLflow is not installed, or the URI holds a password."""
        if urlsplit(uri).password or urlsplit(uri).username:
            raise UserError(
                "The key 'mlflow-uri' holds a user name or password, which every client would get to see: put them in "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the server's environment."
            )
        try:
            self._mlflow = importlib.import_module("mlflow")
            self._entities = importlib.import_module("mlflow.entities")
        except ImportError:
            raise UserError(
                "The key 'mlflow-uri' is set, but MLflow is not installed: install the extra 'mlflow', or leave the "
                "key empty."
            ) from None
        for name, value in LESS_PATIENT.items():
            os.environ.setdefault(name, value)
        self._uri, self._run, self._config, self._patience = uri, run, config, patience
        # Its put may be interrupted by another: a signal that ends the run is handled amid whatever is under way.
        self._waiting: queue.SimpleQueue[RoundRecord | RunState] = queue.SimpleQueue()
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def round(self, record: RoundRecord) -> None:
        """Let the round be sent, and do not wait for it."""
        if self._failed:
            return
        if self._waiting.qsize() < MOST_WAITING:
            self._waiting.put(record)
        else:
            logger.warning("MLflow is too slow: round %d was not sent.", record.round)

    def flush(self) -> None:
        """Nobody waits for others."""

    def close(self) -> None:
        """Nothing yet: how the run ends is still to come."""

    def ended(self, state: RunState) -> None:
        """Say how the run has ended, and wait a little for what is not sent yet."""
        self._waiting.put(state)
        self._thread.join(self._patience)

    def _work(self) -> None:
        try:
            client = self._mlflow.MlflowClient(tracking_uri=self._uri)
            run = self._begin(client)
            while isinstance(told := self._waiting.get(), RoundRecord):
                for part in _parts(self._metrics(told), MOST_METRICS):
                    client.log_batch(run, metrics=part)
            client.set_terminated(run, STATUS[told])
        except Exception as error:  # whatever MLflow raises, the run goes on
            self._failed = True
            logger.warning("Nothing more is sent to MLflow: %s", error)

    def _begin(self, client: Any) -> str:
        known = client.get_experiment_by_name(EXPERIMENT)
        experiment = client.create_experiment(EXPERIMENT) if known is None else known.experiment_id
        found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{self._run}'", max_results=1)
        if found:
            client.update_run(found[0].info.run_id, STATUS["running"])
            return str(found[0].info.run_id)
        run = str(client.create_run(experiment, run_name=self._run, tags={RUN_TAG: self._run}).info.run_id)
        params = [self._entities.Param(key, str(value)) for key, value in self._config.items()]
        for part in _parts(params, MOST_PARAMS):
            client.log_batch(run, params=part)
        return run

    def _metrics(self, record: RoundRecord) -> list[Any]:
        now = time.time_ns() // 10**6
        return [self._entities.Metric(name, value, now, record.round) for name, value in scalars(record).items()]


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
