"""The identity: what goes in comes out, without a copy, and nothing else is taken."""

import numpy as np
import pytest

from strategies.compression.codec import Codec, Dense
from strategies.errors import LayoutError
from strategies.guarantees import Property
from strategies.updates import AnyArray

DELTA = np.array([3, 0, 4], dtype=np.float32)


def test_dense_can_be_summed_by_a_node_and_tells_clients_nothing() -> None:
    codec: Codec = Dense()
    assert codec.guarantees.gives >= {Property.SINGLE_UPDATES, Property.NODE_SUMS}
    assert codec.unbiased
    assert codec.settings == {}


def test_dense_returns_what_it_was_given_without_a_copy() -> None:
    assert Dense().decode(Dense().encode(DELTA, seed=0, round_seed=0), 3, round_seed=0) is DELTA


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (DELTA.astype(np.float64), "dtype"),
        (DELTA.astype(">f4"), "dtype"),
        (DELTA.view(np.uint8), "dtype"),
        (DELTA[:2], "shape"),
        (DELTA[None], "shape"),
    ],
)
def test_dense_takes_nothing_else(payload: AnyArray, reason: str) -> None:
    with pytest.raises(LayoutError) as caught:
        Dense().decode(payload, 3, round_seed=0)
    assert caught.value.reason == reason
