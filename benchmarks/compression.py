"""Codecs: bits per parameter, and milliseconds to write and to read an update, beside a plain copy and zstandard.

    uv run python -m benchmarks.compression [--sizes 1663370 25000000] [--repeats 7] [--training]

The update is drawn from Student's distribution with 4 degrees of freedom, times 0.001: most values small, some large,
as updates of neural networks are; zstandard's gain, and the share that a threshold keeps, depend on that. "copy" is
that of the float32 array, and "zstandard" its own one-shot functions at level 1 on the array's bytes, without a header
or check of ours. GB/s is what float32 takes, 4 bytes a parameter, over the time.

One process, one thread, candidates alternating, medians of the processor's seconds, which other work on the machine
disturbs less than the wall clock. ``--training`` also trains one client of the FedAvg paper's CNN (1,663,370
parameters) on 600 images of 28x28, E = 1, B = 10, to tell what part of that writing takes.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import zstandard

from strategies.compression.registry import codec_of
from strategies.options import Option
from strategies.updates import AnyArray, FloatVector

CNN = 1_663_370
SEED, ROUND_SEED = 1, 2

CODECS: dict[str, dict[str, Option]] = {
    "zstd": {"codec": "zstd"},
    "float16": {"codec": "float16", "codec-lossless": "none"},
    "float16 + zstd": {"codec": "float16"},
    **{f"qsgd of {bits}": {"codec": "qsgd", "codec-bits": bits, "codec-lossless": "none"} for bits in (8, 4, 2, 1)},
    **{f"qsgd of {bits} + zstd": {"codec": "qsgd", "codec-bits": bits} for bits in (8, 4, 2)},
    "qsgd of 4, rotated": {"codec": "qsgd", "codec-bits": 4, "codec-rotation": True, "codec-lossless": "none"},
    "sign": {"codec": "sign"},
    "drive": {"codec": "drive"},
    "top-k, 10 %": {"codec": "top-k", "codec-share": 0.1},
    "top-k, 1 %": {"codec": "top-k"},
    "top-k, 1 %, qsgd of 4": {"codec": "top-k", "codec-quantization": "uniform", "codec-bits": 4},
    "stc, 1 %": {"codec": "stc"},
    "stc, 1/400": {"codec": "stc", "codec-share": 1 / 400},
    "threshold, 3 rms": {"codec": "threshold"},
    "random-k, 1 %": {"codec": "random-k"},
}


@dataclass(frozen=True)
class Candidate:
    """Something that writes a vector and reads it again."""

    name: str
    write: Callable[[FloatVector], AnyArray | bytes]
    read: Callable[[AnyArray | bytes], object]


def candidates(size: int) -> list[Candidate]:
    """Return all that is measured, for vectors of this length."""
    found = [
        Candidate("copy", np.copy, np.array),
        Candidate(
            "zstandard",
            lambda delta: zstandard.ZstdCompressor(level=1).compress(delta.data),
            lambda written: zstandard.ZstdDecompressor().decompress(written),
        ),
    ]
    for name, options in CODECS.items():
        codec = codec_of(options)
        found.append(
            Candidate(
                name,
                lambda delta, codec=codec: codec.encode(delta, SEED, ROUND_SEED),  # type: ignore[misc]
                lambda written, codec=codec: codec.decode(written, size, ROUND_SEED),  # type: ignore[misc]
            )
        )
    return found


def measure(size: int, repeats: int, training: float | None) -> None:
    """Print the table of one size."""
    generator = np.random.default_rng(0)
    delta = np.concatenate([generator.standard_t(4, len(part)) for part in np.array_split(np.empty(size), 16)])
    update = (delta * 1e-3).astype(np.float32)
    measured = candidates(size)
    writing: dict[str, list[float]] = {candidate.name: [] for candidate in measured}
    reading: dict[str, list[float]] = {candidate.name: [] for candidate in measured}
    lengths = {}
    for _ in range(repeats):
        for candidate in measured:
            started = time.process_time()
            written = candidate.write(update)
            between = time.process_time()
            candidate.read(written)
            reading[candidate.name].append(time.process_time() - between)
            writing[candidate.name].append(between - started)
            lengths[candidate.name] = memoryview(written).nbytes
    print(f"\n{size:,} parameters, {4 * size / 1e6:.1f} MB as float32\n")
    print("| codec | bits | smaller | write (ms) | GB/s | read (ms) | GB/s |" + (" of training |" if training else ""))
    print("|---|---:|---:|---:|---:|---:|---:|" + ("---:|" if training else ""))
    for candidate in measured:
        length = lengths[candidate.name]
        cells = [candidate.name, f"{8 * length / size:.3f}", f"{4 * size / length:.1f}"]
        both = [statistics.median(times[candidate.name]) for times in (writing, reading)]
        for median in both:
            cells += [f"{median * 1e3:.1f}", f"{4 * size / median / 1e9:.2f}"]
        cells += [f"{both[0] / training:.2%}"] if training else []
        print("| " + " | ".join(cells) + " |", flush=True)


def training_seconds(repeats: int) -> float:
    """Return the median processor's seconds that one client of the CNN trains, after a first one."""
    from benchmarks.workloads import learnable_images
    from tasks.local_training import LocalTraining
    from tasks.training import trainer, use_one_thread

    use_one_thread()
    own = trainer("cnn", (28, 28, 1), 10, LocalTraining(10))
    weights = [np.asarray(weight) for weight in own.compiled.model.get_weights()]
    assert sum(weight.size for weight in weights) == CNN
    data, taken = learnable_images(600, (28, 28, 1)), []
    for seed in range(1 + repeats):
        started = time.process_time()
        own.train(weights, data, 0.1, seed)
        taken.append(time.process_time() - started)
    return statistics.median(taken[1:])


def main() -> None:
    """Print where and with what was measured, then a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[CNN, 25_000_000])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--training", action="store_true")
    arguments = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "zstandard"))
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {packages}")
    training = training_seconds(3) if arguments.training else None
    if training:
        print(f"one client of the CNN: {training:.2f} s")
    for size in arguments.sizes:
        measure(size, arguments.repeats, training if size == CNN else None)


if __name__ == "__main__":
    main()
