"""What TensorFlow found wrong with data that it read in a graph, as a clause for a sentence to the user."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import tensorflow as tf

from tasks.batches import does_not_fit
from tasks.data import ClientData, Examples
from tasks.errors import TaskError


def what_tensorflow_found(error: Exception) -> str:
    """Return the cause in a tf.errors.OpError; the rest of its message is about the graph and its Python code."""
    text = str(error)
    asserted = re.search(r"assertion failed: \[(.*)\]", text)
    if asserted:
        return asserted.group(1).strip("\\'")
    lines = [line.split("[Op:")[0].split("}}")[-1].strip() for line in text.splitlines() if "[[{{node" not in line]
    causes = [re.sub(r"Error in user-defined function .*?: Iterator::\S+ ", "", line) for line in lines if line]
    return causes[-1].rstrip(".") if causes else type(error).__name__


@contextmanager
def told(data: Sequence[ClientData]) -> Iterator[None]:
    """Turn TensorFlow's errors about the content of a stream into sentences."""
    try:
        yield
    except (tf.errors.OpError, TypeError) as error:
        if all(isinstance(part, Examples) for part in data):
            raise
        raise TaskError(does_not_fit(what_tensorflow_found(error))) from error
