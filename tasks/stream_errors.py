"""What TensorFlow found wrong with data that it read in a graph, as a clause for a sentence to the user."""

from __future__ import annotations

import re


def what_tensorflow_found(error: Exception) -> str:
    """Return the cause in a tf.errors.OpError; the rest of its message is about the graph and its Python code."""
    text = str(error)
    asserted = re.search(r"assertion failed: \[(.*)\]", text)
    if asserted:
        return asserted.group(1).strip("\\'")
    lines = [line.split("[Op:")[0].split("}}")[-1].strip() for line in text.splitlines() if "[[{{node" not in line]
    causes = [re.sub(r"Error in user-defined function .*?: Iterator::\S+ ", "", line) for line in lines if line]
    return causes[-1].rstrip(".") if causes else type(error).__name__
