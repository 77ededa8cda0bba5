"""Differences down: milliseconds that one more version of the model takes the server, and a node that has the last.

    uv run python -m benchmarks.downlink [--sizes 1663370 25000000] [--bits 4] [--repeats 7]

The model moves by a hundredth of itself, at random. The server writes the difference, moves its reference and makes the
message; the node reads it, checks the outcome and keeps it in a synced file of a temporary folder. One process, one
thread, medians of the processor's seconds, which other work on the machine disturbs less than the wall clock.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, RecordDict

from strategies import wire
from strategies.client_state import ClientStates
from strategies.compression.codec import Codec
from strategies.compression.differences import Chain, Differing
from strategies.compression.downlink import Broadcast
from strategies.compression.references import Reference
from strategies.compression.registry import codec_of
from strategies.layout import ModelLayout

CLIENT = "a"


def measure(size: int, codec: Codec, repeats: int, folder: Path) -> tuple[float, float]:
    """Return the median seconds of server and node, without those of the first difference, when all is cold."""
    generator = np.random.default_rng(0)
    weights = generator.standard_normal(size, np.float32)
    layout = ModelLayout.from_arrays([weights], names=["weights"])
    chain = Chain(1, weights)
    node(folder, sent(codec, chain, layout))
    server_seconds, node_seconds = [], []
    for number in range(2, repeats + 3):
        weights = weights + 0.01 * generator.standard_normal(size, np.float32)
        started = time.process_time()
        chain = chain.heard([CLIENT], [CLIENT]).moved(codec, weights, number, 0)
        message = sent(codec, chain, layout)
        between = time.process_time()
        node(folder, message)
        node_seconds.append(time.process_time() - between)
        server_seconds.append(between - started)
    return statistics.median(server_seconds[1:]), statistics.median(node_seconds[1:])


def sent(codec: Codec, chain: Chain, layout: ModelLayout) -> Broadcast:
    """Return what the server sends to the client."""
    return Differing.of(codec, chain, layout, 0, {wire.RUN: "run"}).to([CLIENT])


def node(folder: Path, message: Broadcast) -> None:
    """Let a node restore what it was sent."""
    context = Context(0, 0, {}, RecordDict(), {})
    config = ConfigRecord(dict(message.settings))
    Reference.of(config, context, lambda context, run: ClientStates(folder)).restored(message.record)


def main() -> None:
    """Print where and with what was measured, then a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_663_370, 25_000_000])
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "zstandard"))
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {packages}\n")
    print(f"| parameters, in {arguments.bits} bits | server (ms) | node (ms) |\n|---|---:|---:|")
    codec = codec_of({"codec": "qsgd", "codec-bits": arguments.bits})
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            taken = measure(size, codec, arguments.repeats, Path(folder))
        print(f"| {size:,} | " + " | ".join(f"{1e3 * seconds:.0f}" for seconds in taken) + " |", flush=True)


if __name__ == "__main__":
    main()
