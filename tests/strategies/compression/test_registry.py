"""Codecs by name: what each is made of, the way through settings, and a sentence for every wrong choice."""

import re

import pytest

from strategies.compression.codec import Dense
from strategies.compression.compressed import Compressed
from strategies.compression.lossless import NoLossless, Zstandard
from strategies.compression.quantizer import Float16, Float32
from strategies.compression.random_k import RandomK
from strategies.compression.registry import CODECS, DEFAULTS, codec_of
from strategies.compression.rotation import Rotated
from strategies.compression.sign import Sign
from strategies.compression.sparsifier import Everything
from strategies.compression.threshold import Threshold
from strategies.compression.top_k import TopK
from strategies.compression.uniform import Uniform
from strategies.errors import StrategyError
from strategies.guarantees import Property
from strategies.options import Option

UNBIASED = {"none", "full", "random-k", "qsgd", "zstd"}


def test_nothing_said_is_no_codec() -> None:
    assert codec_of({}) == codec_of(DEFAULTS) == Dense()


@pytest.mark.parametrize(
    ("options", "codec"),
    [
        ({"codec": "full"}, Compressed(Everything(), Float32(), Zstandard())),
        ({"codec": "zstd"}, Compressed(Everything(), Float32(), Zstandard())),
        ({"codec": "float16"}, Compressed(Everything(), Float16(), Zstandard())),
        ({"codec": "qsgd"}, Compressed(Everything(), Uniform(8), Zstandard())),
        ({"codec": "qsgd", "codec-quantization": "uniform"}, Compressed(Everything(), Uniform(8), Zstandard())),
        ({"codec": "qsgd", "codec-bits": 3}, Compressed(Everything(), Uniform(3), Zstandard())),
        ({"codec": "sign", "codec-lossless": "none"}, Compressed(Everything(), Sign(), NoLossless())),
        ({"codec": "drive"}, Compressed(Everything(), Rotated(Sign()), Zstandard())),
        ({"codec": "stc", "codec-share": 0.0025}, Compressed(TopK(0.0025), Sign(), Zstandard())),
        ({"codec": "top-k"}, Compressed(TopK(0.01), Float32(), Zstandard())),
        ({"codec": "threshold", "codec-threshold": 2}, Compressed(Threshold(2.0), Float32(), Zstandard())),
        (
            {"codec": "random-k", "codec-quantization": "uniform", "codec-bits": 4, "codec-rotation": True},
            Compressed(RandomK(0.01), Rotated(Uniform(4)), Zstandard()),
        ),
    ],
)
def test_names_stand_for_parts(options: dict[str, Option], codec: Compressed) -> None:
    assert codec_of(options) == codec_of({**DEFAULTS, **options}) == codec


@pytest.mark.parametrize("name", CODECS)
def test_the_settings_of_a_codec_make_an_equal_one(name: str) -> None:
    codec = codec_of({"codec": name, "codec-share": 0.3, "codec-threshold": 1.5, "codec-bits": 5})
    assert codec_of(codec.settings) == codec
    assert set(codec.settings) <= set(DEFAULTS)


@pytest.mark.parametrize("name", CODECS)
def test_guarantees(name: str) -> None:
    codec = codec_of({"codec": name})
    assert Property.SINGLE_UPDATES in codec.guarantees.gives
    assert (Property.NODE_SUMS in codec.guarantees.gives) == (name == "none")
    assert (Property.EQUAL_SUPPORT in codec.guarantees.gives) == (name == "random-k")
    assert codec.unbiased == (name in UNBIASED)


def test_a_biased_quantizer_makes_an_unbiased_choice_biased_and_the_other_way_round() -> None:
    assert not codec_of({"codec": "random-k", "codec-quantization": "sign"}).unbiased
    assert not codec_of({"codec": "top-k", "codec-quantization": "uniform"}).unbiased


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"codec": "topk"}, "The key 'codec' is 'topk', but must be one of ["),
        ({"codec": "topk"}, "did you mean 'top-k'?"),
        ({"codec": 1}, "The key 'codec' is 1, but must be a string."),
        ({"codec": "top-k", "codec-share": 0}, "The key 'codec-share' is 0.0, but must be above 0, so that something"),
        ({"codec": "stc", "codec-share": 1.5}, "The key 'codec-share' is 1.5, but must be above 0"),
        ({"codec": "random-k", "codec-share": float("nan")}, "The key 'codec-share' is nan"),
        ({"codec": "top-k", "codec-share": "1%"}, "The key 'codec-share' is '1%', but must be a number."),
        ({"codec": "threshold", "codec-threshold": 0}, "The key 'codec-threshold' is 0.0, but must be a finite number"),
        ({"codec": "threshold", "codec-threshold": float("inf")}, "The key 'codec-threshold' is inf"),
        ({"codec": "qsgd", "codec-bits": 0}, "The key 'codec-bits' is 0, but must be from 1 to 8"),
        ({"codec": "qsgd", "codec-bits": 33}, "The key 'codec-bits' is 33, but must be from 1 to 8"),
        ({"codec": "qsgd", "codec-bits": 2.5}, "The key 'codec-bits' is 2.5, but must be a whole number."),
        ({"codec": "full", "codec-quantization": "int8"}, "The key 'codec-quantization' is 'int8', but must be one of"),
        ({"codec": "full", "codec-lossless": "gzip"}, "The key 'codec-lossless' is 'gzip', but must be one of"),
        (
            {"codec": "stc", "codec-quantization": "float16"},
            "The key 'codec-quantization' is 'float16', but the codec 'stc' is made of 'sign': leave it out, or set "
            "'codec' to 'top-k'.",
        ),
        ({"codec": "zstd", "codec-lossless": "none"}, "The key 'codec-lossless' is 'none', but the codec 'zstd'"),
        ({"codec": "float16", "codec-rotation": True}, "The key 'codec-rotation' is true, but 'codec-quantization' is"),
        ({"codec": "top-k", "codec-rotation": 1}, "The key 'codec-rotation' is 1, but must be true or false."),
    ],
)
def test_every_wrong_choice_gets_a_sentence(options: dict[str, Option], sentence: str) -> None:
    with pytest.raises(StrategyError, match=re.escape(sentence)):
        codec_of(options)
