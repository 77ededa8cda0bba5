"""Bytes that updates will take, beside those that they do."""

import numpy as np
import pytest

from strategies.compression.codec import Dense
from strategies.compression.expected import expected_bytes
from strategies.compression.feedback import uplink_codec
from strategies.options import Option


def test_dense_updates_are_floats() -> None:
    assert expected_bytes(Dense(), 1000) == 4000


@pytest.mark.parametrize(
    ("options", "within"),
    [
        ({"codec": "stc", "codec-share": 0.02}, 0.03),
        ({"codec": "random-k", "codec-share": 0.1}, 0.02),
        ({"codec": "qsgd", "codec-bits": 3}, 0.2),  # zstandard finds something in what has heavy tails
        ({"codec": "sign"}, 0.02),
    ],
    ids=str,
)
def test_it_is_about_what_an_update_takes(options: dict[str, Option], within: float) -> None:
    """Of a Laplace distribution, whose tails are heavier than those that the expectation is made of."""
    codec, update = uplink_codec(options), np.random.default_rng(1).laplace(size=50_000).astype(np.float32)
    assert expected_bytes(codec, len(update)) == pytest.approx(codec.encode(update, 5, 6).nbytes, rel=within)
