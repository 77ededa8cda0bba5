"""Who watches a run besides the files in its directory: alerts, and what the config asks for to be told of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from app.alerts.certificates import days_left
from app.alerts.engine import Engine
from app.alerts.rules import rules_of
from app.alerts.sink import AlertSink, Listener
from app.alerts.webhook import Target, Webhook
from app.config import RunConfig
from app.mlflow_sink import MLflow
from app.run_directory import RunDirectory
from app.sinks import Sink
from app.user_paths import user_path


@dataclass(frozen=True)
class Monitoring:
    """The ``alerts`` of a run, and all its sinks that watch it, in the order in which they hear of a round."""

    alerts: AlertSink
    sinks: tuple[Sink, ...]

    @classmethod
    def of(cls, config: RunConfig, directory: RunDirectory) -> Monitoring:
        """Open what the config asks for. Raises UserError for what cannot be used."""
        listeners: list[Listener] = []
        others: list[Sink] = []
        if config.alert_webhook:
            webhook = Webhook(Target.of(user_path(config.alert_webhook, "alert-webhook")), directory.path.name)
            others.append(webhook)
            listeners.append(webhook.note)
        if config.prometheus_port:
            from app.prometheus import Metrics, Prometheus  # which few runs need

            prometheus = Prometheus(Metrics(directory.path.name, config.num_rounds), config.prometheus_port)
            others.append(prometheus)
            listeners.append(prometheus.note)
        if config.mlflow_uri:
            others.append(MLflow(config.mlflow_uri, directory.path.name, config.to_run_config()))
        alerts = AlertSink(engine_of(config), directory.metrics, directory.alerts, listeners)
        return cls(alerts, (alerts, *others))


def engine_of(config: RunConfig) -> Engine:
    """Return the engine of a run's alerts, with its thresholds."""
    named = (name.strip() for name in config.alert_certificates.split(","))
    files = [user_path(name, "alert-certificates") for name in named if name]
    thresholds = {key: value for key, value in config.to_run_config().items() if isinstance(value, int | float)}
    return Engine(rules_of(config.checkpoint_every, partial(days_left, files)), thresholds)
