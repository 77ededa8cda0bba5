"""The layout: a model of three parameters and numbers written down; strictness towards what others send."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies.errors import StrategyError
from strategies.layout import DTYPES, LayoutError, ModelLayout

GLOBAL = [np.array([[1.0, 2.0]], dtype=np.float32), np.array(3.0, dtype=np.float32)]
LAYOUT = ModelLayout(("kernel", "bias"), ((1, 2), ()), ("float32", "float32"))


def test_from_arrays_describes_three_parameters() -> None:
    assert ModelLayout.from_arrays(GLOBAL, ["kernel", "bias"]) == LAYOUT
    assert hash(ModelLayout.from_arrays(GLOBAL, ["kernel", "bias"])) == hash(LAYOUT)
    assert (LAYOUT.size, LAYOUT.sizes, LAYOUT.offsets) == (3, (2, 1), (0, 2))
    assert ModelLayout.from_arrays(GLOBAL).names == ("0", "1")
    assert LAYOUT.nbytes == 12 and ModelLayout(("a", "b"), ((3,), ()), ("int8", "float64")).nbytes == 11


def test_flatten_and_delta_by_hand() -> None:
    flat = LAYOUT.flatten(GLOBAL)
    assert flat.dtype == np.float32
    assert flat.tolist() == [1.0, 2.0, 3.0]
    local = [np.array([[1.5, 1.0]], dtype=np.float32), np.array(-3.0, dtype=np.float32)]
    assert LAYOUT.delta(local, flat).tolist() == [0.5, -1.0, -6.0]


def test_unflatten_copies_into_shapes() -> None:
    vector = np.array([4, 5, 6], dtype=np.float32)
    kernel, bias = LAYOUT.unflatten(vector)
    assert (kernel.tolist(), bias.tolist(), bias.shape) == ([[4.0, 5.0]], 6.0, ())
    vector[0] = 9
    assert kernel[0, 0] == 4


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "bool"])
def test_nobody_can_change_unflattened_arrays(dtype: str) -> None:
    """Nor through what they are views of: so a round's weights can be taken for the same ones without looking."""
    (array,) = ModelLayout(("a",), ((2, 3),), (dtype,)).unflatten(np.ones(6, np.float32))
    owner = array if array.base is None else array.base
    assert not array.flags.writeable and not owner.flags.writeable
    for one in (array, owner):
        with pytest.raises(ValueError, match="read-only"):
            one[:1] = 0


def test_fortran_order_and_foreign_byte_order_mean_the_same_numbers() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    layout = ModelLayout.from_arrays([array])
    for same in (np.asfortranarray(array), array.astype(">f4")):
        assert layout.flatten([same]).tolist() == [0, 1, 2, 3, 4, 5]
        assert layout.delta([same], np.ones(6, dtype=np.float32)).tolist() == [-1, 0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ([GLOBAL[0]], "malformed"),
        ([*GLOBAL, GLOBAL[1]], "malformed"),
        ([[[1.0, 2.0]], GLOBAL[1]], "malformed"),
        ([GLOBAL[0], np.array([3.0], dtype=np.float32)], "shape"),
        ([np.ones((1, 1), dtype=np.float32), GLOBAL[1]], "shape"),
        ([GLOBAL[0].T, GLOBAL[1]], "shape"),
        ([GLOBAL[0].astype(np.float64), GLOBAL[1]], "dtype"),
        ([GLOBAL[0].astype(np.float16), GLOBAL[1]], "dtype"),
        ([GLOBAL[0].astype(np.complex64), GLOBAL[1]], "dtype"),
        ([GLOBAL[0].astype(object), GLOBAL[1]], "dtype"),
        ([GLOBAL[0].astype(str), GLOBAL[1]], "dtype"),
    ],
)
def test_nothing_but_the_exact_layout_is_taken(arrays: list[np.ndarray], reason: str) -> None:
    for read in (LAYOUT.flatten, lambda given: LAYOUT.delta(given, np.zeros(3, dtype=np.float32))):
        with pytest.raises(LayoutError) as caught:
            read(arrays)
        assert caught.value.reason == reason
        assert isinstance(caught.value, StrategyError)


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        (np.zeros(4, dtype=np.float32), "shape"),
        (np.zeros((1, 3), dtype=np.float32), "shape"),
        (np.zeros(3), "dtype"),
        ([0.0, 0.0, 0.0], "malformed"),
    ],
)
def test_vectors_of_another_shape_or_dtype_are_refused(vector: np.ndarray, reason: str) -> None:
    for read in (LAYOUT.unflatten, lambda given: LAYOUT.delta(GLOBAL, given)):
        with pytest.raises(LayoutError) as caught:
            read(vector)
        assert caught.value.reason == reason


@pytest.mark.parametrize("dtype", [object, "U3", "S3", np.complex64, "datetime64[s]", np.longdouble])
def test_models_of_anything_but_real_numbers_are_refused(dtype: object) -> None:
    with pytest.raises(LayoutError, match="must hold one of") as caught:
        ModelLayout.from_arrays([np.zeros(2, dtype=dtype)])
    assert caught.value.reason == "dtype"


@pytest.mark.parametrize(
    ("names", "shapes", "dtypes", "sentence"),
    [
        (("a",), ((1,), (1,)), ("float32",), "1 names, 2 shapes"),
        (("a", "a"), ((1,), (1,)), ("float32", "float32"), "must differ"),
        ((), (), (), "at least one parameter"),
        (("a",), ((0, 3),), ("float32",), "at least one parameter"),
    ],
)
def test_layouts_that_describe_no_model(names: tuple, shapes: tuple, dtypes: tuple, sentence: str) -> None:
    with pytest.raises(LayoutError, match=sentence):
        ModelLayout(names, shapes, dtypes)


def test_names_must_be_as_many_as_arrays() -> None:
    with pytest.raises(LayoutError, match="1 names, 2 shapes"):
        ModelLayout.from_arrays(GLOBAL, ["kernel"])


def test_integers_are_rounded_and_clipped_to_their_range() -> None:
    layout = ModelLayout.from_arrays(
        [np.zeros(4, dtype=np.int8), np.zeros(2, dtype=np.uint64), np.zeros(2, dtype=bool)]
    )
    vector = np.array([1.5, 2.5, 300, -300, -1, 1e30, 0.4, 0.6], dtype=np.float32)
    small, large, flags = layout.unflatten(vector)
    assert small.tolist() == [2, 2, 127, -128]
    assert large.tolist() == [0, 2**64 - 2048]  # the greatest float64 below 2^64
    assert flags.tolist() == [False, True]


def test_float16_is_clipped_and_float64_kept() -> None:
    layout = ModelLayout.from_arrays([np.zeros(2, dtype=np.float16), np.zeros(1, dtype=np.float64)])
    half, double = layout.unflatten(np.array([1e6, -1e6, 0.1], dtype=np.float32))
    assert half.tolist() == [65504, -65504]
    assert (double.dtype, double.tolist()) == (np.float64, [float(np.float32(0.1))])


def test_a_value_that_is_not_finite_becomes_no_integer() -> None:
    layout = ModelLayout.from_arrays([np.zeros(1, dtype=np.int32)])
    with pytest.raises(LayoutError, match="not finite"):
        layout.unflatten(np.array([np.nan], dtype=np.float32))


def test_a_float64_delta_beyond_float32_is_infinite_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    layout = ModelLayout.from_arrays([np.zeros(2)])
    delta = layout.delta([np.array([1e300, np.nan])], np.zeros(2, dtype=np.float32))
    assert np.isposinf(delta[0])
    assert np.isnan(delta[1])
    assert not recwarn.list


def test_a_delta_of_large_integers_is_subtracted_before_it_is_rounded() -> None:
    layout = ModelLayout.from_arrays([np.array([2**40], dtype=np.int64)])
    start = layout.flatten([np.array([2**40], dtype=np.int64)])
    assert layout.delta([np.array([2**40 + 3], dtype=np.int64)], start).tolist() == [3.0]


@given(st.data())
def test_flatten_then_unflatten_gives_the_arrays_back(data: st.DataObject) -> None:
    exact = sorted(DTYPES - {"int32", "int64", "uint32", "uint64", "float64"})  # all whose values are float32 values
    arrays = data.draw(
        st.lists(
            st.sampled_from(exact).flatmap(
                lambda dtype: hnp.arrays(
                    dtype,
                    hnp.array_shapes(min_dims=0, max_dims=3, max_side=3),
                    elements={"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else None,
                )
            ),
            min_size=1,
            max_size=4,
        )
    )
    layout = ModelLayout.from_arrays(arrays)
    back = layout.unflatten(layout.flatten(arrays))
    for before, after in zip(arrays, back, strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


def test_the_other_byte_order_is_the_same_dtype() -> None:
    """NumPy calls both float32, and reads both."""
    local = [np.asarray(array + 1).astype(">f4") for array in GLOBAL]
    assert LAYOUT.delta(local, LAYOUT.flatten(GLOBAL)).tolist() == [1, 1, 1]


@given(hnp.arrays(np.float32, (2, 3), elements=st.floats(width=32)), hnp.arrays(np.float32, 6))
def test_the_delta_of_float32_is_rounded_once(local: np.ndarray, start: np.ndarray) -> None:
    """float64 holds the difference of two float32 closely enough that rounding it again changes nothing."""
    layout = ModelLayout.from_arrays([local])
    with np.errstate(all="ignore"):
        expected = (local.ravel().astype(np.float64) - start.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(layout.delta([local], start), expected)
