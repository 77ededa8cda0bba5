"""A ClientApp of NumPy alone, for the workers of tests: 12 clients whose faults the run config names.

- ``size``: parameters of the model; ``sleep``: seconds that each client takes.
- ``kill-always``, ``raise-always``, ``nan-always``: clients (ids with commas) that misbehave in every round.
- ``faults``: a folder; a client that finds the file ``<kind>-<round>-<client>`` there does as it says: raise, nan, or,
  once, as the file is removed before: kill, hang.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from strategies import wire
from strategies.client import client_mods
from strategies.describe import NodeDescription
from strategies.population import ClientInfo

IDS = tuple(f"c{number:02d}" for number in range(12))

app = ClientApp()


def examples(client: str) -> int:
    return 10 + 7 * int(client[1:])


def start_arrays(size: int = 1000) -> ArrayRecord:
    return wire.array_record({"w": np.linspace(-1, 1, size, dtype=np.float32)})


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    clients = tuple(ClientInfo(client, examples(client)) for client in IDS)
    return Message(NodeDescription(clients).to_content(), reply_to=message)


@app.train(mods=client_mods())
def train(message: Message, context: Context) -> Message:
    config = wire.config_of(message)
    client, number, seed = str(config["client"]), int(config["round"]), int(config["seed"])
    fault = _fault(context, number, client)
    time.sleep(float(context.run_config.get("sleep", 0)))
    if fault == "raise":
        raise OSError("no disk")
    (weights,) = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS)).arrays
    step = np.random.default_rng(seed).normal(size=weights.shape) / 3 - 0.1 * weights
    trained = (weights + step).astype(np.float32) * np.float32("nan" if fault == "nan" else 1)
    metrics = MetricRecord({"num-examples": examples(client), "loss": float(np.abs(step).mean())})
    return Message(RecordDict({"arrays": wire.array_record({"w": trained}), "metrics": metrics}), reply_to=message)


@app.evaluate(mods=client_mods())
def evaluate(message: Message, context: Context) -> Message:
    client = str(wire.config_of(message)["client"])
    _fault(context, 0, client)
    (weights,) = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS)).arrays
    loss = float(np.abs(weights).mean()) + int(client[1:])
    metrics = MetricRecord({"num-examples": examples(client), "loss": loss, "accuracy": 1 / (1 + loss)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@app.query("pid")
def pid(message: Message, context: Context) -> Message:
    """Say which process and node this is, and how often this was asked in this run."""
    seen = int(context.state["seen"]["times"]) if "seen" in context.state else 0  # type: ignore[call-overload]
    context.state["seen"] = MetricRecord({"times": seen + 1})
    values = {"pid": os.getpid(), "node": int(context.node_config["partition-id"]), "times": seen + 1}
    return Message(RecordDict({"metrics": MetricRecord(values)}), reply_to=message)


def _fault(context: Context, number: int, client: str) -> str:
    """Return the fault that a client has now; one that kills or hangs does it here."""
    fault = next((kind for kind in ("kill", "raise", "nan") if client in _named(context, f"{kind}-always")), "")
    folder = str(context.run_config.get("faults", ""))
    for kind in ("kill", "raise", "nan", "hang") if folder else ():
        file = Path(folder) / f"{kind}-{number}-{client}"
        if file.exists():
            fault = kind
            if kind in ("kill", "hang"):
                file.unlink()
    if fault == "kill":
        os._exit(1)
    if fault == "hang":
        time.sleep(3600)
    return fault


def _named(context: Context, key: str) -> list[str]:
    return str(context.run_config.get(key, "")).split(",")
