"""Clipping against TensorFlow Privacy's query, its bound for any update, and the clients' half in the mod."""

import math
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import Mod
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies import wire
from strategies.admission import Limits, Reason, judge
from strategies.layout import ModelLayout
from strategies.privacy.clipping import PREFIX, WITHIN, Clipping, clip_mod, within
from strategies.updates import FloatVector, Update
from tests.strategies.toy_federation import message_with, start_arrays

LAYOUT = ModelLayout(("kernel", "bias", "scale"), ((2, 3), (3,), (1,)), ("float32",) * 3)
SIZE = 10
NORMS = st.floats(1e-3, 1e3)
DELTAS = hnp.arrays(np.float32, SIZE, elements=st.floats(-(2.0**100), 2.0**100, width=32))


def update(delta: Sequence[float] | FloatVector, **metrics: float) -> Update:
    named = {name.replace("_", "-"): value for name, value in metrics.items()}
    return Update("a", np.asarray(delta, dtype=np.float32), 1.0, named)


def length(delta: FloatVector) -> float:
    return float(np.linalg.norm(delta.astype(np.float64)))


def check_bound(kind: type[Clipping], delta: FloatVector, norm: float, per_layer: bool) -> None:
    """Nothing is longer than the norm, and clipping twice changes no bit."""
    clipping = kind(norm, per_layer)
    once = clipping.clip(update(delta), LAYOUT)
    assert length(once.delta) <= norm and once.delta.dtype == np.float32
    assert clipping.clip(once, LAYOUT) is once
    if per_layer:
        for start, size in zip(LAYOUT.offsets, LAYOUT.sizes, strict=True):
            assert length(once.delta[start : start + size]) <= norm / math.sqrt(3)


@given(DELTAS, NORMS, st.booleans())
@example(np.zeros(SIZE, np.float32), 1.0, False)
@example(np.full(SIZE, np.finfo(np.float32).max, np.float32), 1e-3, True)
@example(np.full(SIZE, 1e-45, np.float32), 1e-3, True)
def test_nothing_is_longer_than_the_norm_and_clipping_twice_changes_no_bit(
    delta: FloatVector, norm: float, per_layer: bool
) -> None:
    check_bound(Clipping, delta, norm, per_layer)


@given(hnp.arrays(np.float16, SIZE, elements=st.floats(-60000, 60000, width=16)), NORMS)
def test_updates_of_a_float16_model_are_bounded_too(local: np.ndarray, norm: float) -> None:
    layout = ModelLayout(("w",), ((SIZE,),), ("float16",))
    delta = layout.delta([local], np.zeros(SIZE, np.float32))
    assert length(Clipping(norm).clip(update(delta), layout).delta) <= norm


@given(DELTAS, NORMS)
def test_the_direction_stays_and_short_updates_stay_as_they_are(delta: FloatVector, norm: float) -> None:
    clipped = Clipping(norm).clip(update(delta), LAYOUT).delta
    if length(delta) <= norm:
        assert clipped is delta or clipped.tobytes() == delta.tobytes()
    else:
        exact = delta.astype(np.float64) * (norm / length(delta))
        np.testing.assert_allclose(clipped, exact, rtol=3e-7, atol=1e-40)


def test_it_is_the_clipping_of_tensorflow_privacy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "skip_tf_privacy_import", True, raising=False)
    import tensorflow as tf
    from tensorflow_privacy.privacy.dp_query.gaussian_query import GaussianSumQuery
    from tensorflow_privacy.privacy.dp_query.nested_query import NestedSumQuery

    deltas = np.random.default_rng(1).normal(size=(20, SIZE)).astype(np.float32) * 2
    flat = GaussianSumQuery(3.0, 0.0)
    nested = NestedSumQuery([GaussianSumQuery(3.0 / math.sqrt(3), 0.0)] * 3)
    of_flat, of_nested = (query.derive_sample_params(query.initial_global_state()) for query in (flat, nested))
    for delta in deltas:
        theirs = flat.preprocess_record(of_flat, tf.constant(delta)).numpy()
        np.testing.assert_allclose(Clipping(3.0).clip(update(delta), LAYOUT).delta, theirs, rtol=1e-6)
        layers = [tf.constant(layer) for layer in np.split(delta, [6, 9])]
        theirs = np.concatenate([layer.numpy() for layer in nested.preprocess_record(of_nested, layers)])
        np.testing.assert_allclose(Clipping(3.0, True).clip(update(delta), LAYOUT).delta, theirs, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("per_layer", [False, True])
def test_what_is_not_finite_stays_so_and_is_rejected(value: float, per_layer: bool) -> None:
    delta = np.ones(SIZE, np.float32)
    delta[7] = value
    clipped = Clipping(1.0, per_layer).clip(update(delta), LAYOUT)
    assert judge(clipped, SIZE, Limits(10.0)) == Reason.NOT_FINITE


def test_whether_an_update_was_within_is_told_only_where_it_is_asked() -> None:
    short, long = update([0.5] + [0.0] * 9), update([2.0] + [0.0] * 9)
    counting = Clipping(1.0, count_within=True)
    assert [WITHIN in Clipping(1.0).clip(one, LAYOUT).metrics for one in (short, long)] == [False, False]
    assert [counting.clip(one, LAYOUT).metrics[WITHIN] for one in (short, long)] == [1.0, 0.0]
    # The server sees what the client has clipped, and believes its bit.
    assert counting.clip(counting.clip(long, LAYOUT), LAYOUT).metrics[WITHIN] == 0.0


@pytest.mark.parametrize(
    ("told", "counts"), [(1.0, 1), (0.0, 0), (1e30, 1), (-1e30, 0), (math.nan, 0), (math.inf, 1), (0.7, 1), (0.2, 0)]
)
def test_a_client_counts_once_at_most_whatever_it_tells(told: float, counts: int) -> None:
    assert within({WITHIN: told}) == counts


def test_who_tells_nothing_counts_as_too_long() -> None:
    assert not within({"loss": 1.0})


@pytest.mark.parametrize("clipping", [Clipping(0.1), Clipping(3.0, True), Clipping(1 / 3, False, True)])
def test_settings_travel_to_the_bit(clipping: Clipping) -> None:
    assert Clipping.from_config(clipping.to_config()) == clipping


def answered(settings: dict[str, float], delta: Sequence[float], mod: Mod = clip_mod, **metrics: float) -> RecordDict:
    """What the mod makes of a handler's reply to a request with these settings."""
    request = message_with(RecordDict({"arrays": start_arrays(), "config": ConfigRecord(settings)}))

    def handler(message: Message, context: Context) -> Message:
        update = wire.array_record({wire.DELTA: np.array(delta, np.float32)})
        named = {name.replace("_", "-"): value for name, value in metrics.items()}
        return Message(RecordDict({"update": update, "metrics": MetricRecord(named)}), reply_to=message)

    return mod(request, Context(1, 1, {}, RecordDict(), {}), handler).content


def delta_in(content: RecordDict) -> list[float]:
    return wire.decode(content[wire.UPDATE][wire.DELTA]).tolist()  # type: ignore[no-any-return]


def asked(clipping: Clipping) -> dict[str, float]:
    return {PREFIX + key: value for key, value in clipping.to_config().items()}


def check_client(mod: Mod) -> None:
    content = answered(asked(Clipping(1.0)), [3.0, 0.0, 0.0, 0.0, 4.0], mod, loss=0.25)
    assert delta_in(content) == pytest.approx([0.6, 0.0, 0.0, 0.0, 0.8])
    assert dict(content["metrics"]) == {"loss": 0.25}


def test_the_mod_clips_before_the_update_leaves() -> None:
    check_client(clip_mod)


def test_the_mod_tells_the_bit_itself_whatever_the_handler_says() -> None:
    counting = asked(Clipping(1.0, count_within=True))
    content = answered(counting, [3.0, 0.0, 0.0, 0.0, 4.0], **{WITHIN: 1.0})
    assert content["metrics"][WITHIN] == 0.0
    assert answered(counting, [0.1] * 5)["metrics"][WITHIN] == 1.0


def test_a_request_without_a_norm_passes_through() -> None:
    assert delta_in(answered({}, [3.0, 0.0, 0.0, 0.0, 4.0])) == [3.0, 0.0, 0.0, 0.0, 4.0]


def test_layers_are_the_models_arrays() -> None:
    content = answered(asked(Clipping(math.sqrt(2.0), per_layer=True)), [0.3, 0.0, 0.0, 0.0, 9.0])
    assert delta_in(content) == pytest.approx([0.3, 0.0, 0.0, 0.0, 1.0])  # kernel of four, bias of one
