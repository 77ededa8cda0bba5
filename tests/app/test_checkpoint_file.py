"""Checkpoints as bytes: everything comes back as it was, and nothing that has changed by a bit comes back at all."""

from __future__ import annotations

import json
import zlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.checkpoint_file import Content, DamagedError, from_bytes, parts_of

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.unicode_string_dtypes(max_len=5),
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
NAMES = st.text(max_size=10)  # any, also with quotes, blanks, slashes and NUL
GROUPS = st.dictionaries(NAMES, st.dictionaries(NAMES, ARRAYS, max_size=3), max_size=4)
FACTS = st.dictionaries(
    NAMES,
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False), NAMES),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
        max_leaves=5,
    ),
    max_size=4,
)
SOME = Content({"round": 7}, {"weights": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "bans": {}})


def to_bytes(content: Content) -> bytes:
    return b"".join(parts_of(content))


@settings(deadline=None, max_examples=150)
@given(facts=FACTS, groups=GROUPS)
def test_everything_comes_back(facts: dict[str, object], groups: dict[str, dict[str, np.ndarray]]) -> None:
    found = from_bytes(to_bytes(Content(facts, groups)))
    assert found.facts == facts
    assert {name: list(arrays) for name, arrays in found.groups.items()} == {
        name: list(arrays) for name, arrays in groups.items()
    }
    for group, arrays in groups.items():
        for name, array in arrays.items():
            same = found.groups[group][name]
            assert (same.dtype, same.shape) == (array.dtype, array.shape)
            assert same.tobytes() == array.tobytes()  # to the bit, also NaN and -0
            assert not same.flags.writeable


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_bit_flips_and_nothing_is_cut_off_or_added_without_notice(data: st.DataObject) -> None:
    whole = bytearray(to_bytes(SOME))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "add"]))
    place = data.draw(st.integers(0, len(whole) - 1))
    if kind == "flip":
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del whole[place:]
    else:
        at = len(whole) if kind == "add" else place
        whole[at:at] = data.draw(st.binary(min_size=1, max_size=50))
    with pytest.raises(DamagedError):
        from_bytes(bytes(whole))


@pytest.mark.parametrize("junk", [b"", b"\0" * 1000, b"PK\x03\x04", b"fedkeras checkpoint 2\n", b"\x80\x04}."])
def test_what_never_was_a_checkpoint_is_none(junk: bytes) -> None:
    with pytest.raises(DamagedError, match="are not those that were written"):
        from_bytes(junk)


def test_one_of_another_version_says_so() -> None:
    other = to_bytes(SOME).replace(b"checkpoint 2\n", b"checkpoint 1\n")
    with pytest.raises(DamagedError, match="written by another version of this program"):
        from_bytes(other)


def test_the_format_is_what_it_is_said_to_be() -> None:
    """Read by hand, with none of the code that has written it."""
    first, header, rest = to_bytes(SOME).split(b"\n", 2)
    assert first == b"fedkeras checkpoint 2"
    assert json.loads(header) == {
        "facts": {"round": 7},
        "groups": ["weights", "bans"],
        "arrays": [["weights", "kernel", "<f4", [2, 3], "C"]],
    }
    assert rest[:-4] == np.arange(6, dtype="<f4").tobytes()
    assert zlib.crc32(to_bytes(SOME)[:-4]).to_bytes(4, "little") == rest[-4:]


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(24, dtype=np.int16)[::2],
        np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
        np.broadcast_to(np.float32(3), (4, 5)),
    ],
    ids=["columns first", "every other", "axes swapped", "one number"],
)
def test_arrays_come_back_however_they_lie_in_memory(array: np.ndarray) -> None:
    same = from_bytes(to_bytes(Content({}, {"privacy": {"tree": array}}))).groups["privacy"]["tree"]
    assert same.dtype == array.dtype and np.array_equal(same, array)
    assert same.flags.owndata and (same.flags.fnc if array.flags.fnc else same.flags.c_contiguous)


def test_no_array_is_copied_to_be_written() -> None:
    array = np.arange(6.0)
    (part,) = (part for part in parts_of(Content({}, {"weights": {"w": array}})) if isinstance(part, memoryview))
    assert np.shares_memory(np.asarray(part), array)


@pytest.mark.parametrize(
    "array",
    [np.array([object()]), np.zeros(2, ml_dtypes.bfloat16), np.array([{}], dtype=object)],
    ids=["object", "bfloat16", "dict"],
)
def test_what_would_not_come_back_as_it_was_is_not_written(array: np.ndarray) -> None:
    with pytest.raises(TypeError, match=r"The array 'privacy/tree' is of the dtype .*, which a checkpoint cannot hold"):
        to_bytes(Content({}, {"privacy": {"tree": array}}))
