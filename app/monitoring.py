"""Who watches a run besides the files in its directory: alerts, and what the config asks for to be told of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

from app.alerts.certificates import days_left
from app.alerts.engine import Engine
from app.alerts.rules import rules_of
from app.alerts.sink import AlertSink, Listener
from app.alerts.webhook import Target, Webhook
from app.config import RunConfig
from app.mlflow_sink import MLflow
from app.run_directory import RunDirectory, RunState
from app.sinks import Sink
from app.user_paths import user_path


@dataclass(frozen=True)
class Monitoring:
    """The ``alerts`` of a run, and all its sinks that watch it, in the order in which they hear of a round.

    ``ended`` are to be called once, with how the run has ended, after all that can fail.
    """

    alerts: AlertSink
    sinks: tuple[Sink, ...]
    ended: tuple[Callable[[RunState], None], ...] = ()

    @classmethod
    def of(cls, config: RunConfig, directory: RunDirectory) -> Monitoring:
        """Open what the config asks for. Raises UserError for what cannot be used, and then has nothing open."""
        engine, name = engine_of(config), directory.path.name
        listeners: list[Listener] = []
        others: list[Sink] = []
        ended: list[Callable[[RunState], None]] = []
        with ExitStack() as opened:
            if config.prometheus_port:
                from app.prometheus import Metrics, Prometheus  # which few runs need

                prometheus = Prometheus(Metrics(name, config.num_rounds), config.prometheus_port)
                others.append(opened.enter_context(closing(prometheus)))
                listeners.append(prometheus.note)
            if config.alert_webhook:
                webhook = Webhook(Target.of(user_path(config.alert_webhook, "alert-webhook")), name)
                others.append(opened.enter_context(closing(webhook)))
                listeners.append(webhook.note)
            if config.mlflow_uri:
                mlflow = MLflow(config.mlflow_uri, name, config.to_run_config())
                opened.callback(mlflow.ended, "failed")
                others.append(mlflow)
                ended.append(mlflow.ended)
            alerts = AlertSink(engine, directory.metrics, directory.alerts, listeners)
            opened.pop_all()
        return cls(alerts, (alerts, *others), tuple(ended))


def engine_of(config: RunConfig) -> Engine:
    """Return the engine of a run's alerts, with its thresholds."""
    named = (name.strip() for name in config.alert_certificates.split(","))
    files = [user_path(name, "alert-certificates") for name in named if name]
    thresholds = {key: value for key, value in config.to_run_config().items() if isinstance(value, int | float)}
    return Engine(rules_of(partial(days_left, files)), thresholds)
