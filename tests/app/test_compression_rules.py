"""Keys of compression that make no sense together or beside each other: a sentence for each."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app import contradictions
from app.compose import composition
from app.config import RunConfig, Value
from app.errors import ConfigError
from strategies.compression.feedback import ErrorFeedback
from strategies.compression.registry import CODECS, DEFAULTS

PRIVATE: dict[str, Value] = {"strategy": "dp-fedavg", "codec": "top-k"}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"codec": "topk"}, "The key 'codec' is 'topk', but must be one of"),
        ({"codec-share": 0.1}, "The key 'codec-share' is 0.1, but does nothing with codec 'none'"),
        ({"codec": "top-k", "codec-share": 0.0}, "The key 'codec-share' is 0.0"),
        ({"codec": "qsgd", "codec-bits": 0}, "The key 'codec-bits' is 0"),
        ({"codec": "qsgd", "codec-bits": 33}, "The key 'codec-bits' is 33"),
        ({"codec": "sign", "codec-bits": 3}, "The key 'codec-bits' is 3, but does nothing with codec 'sign'"),
        ({"codec": "stc", "codec-quantization": "uniform"}, "the codec 'stc' is made of 'sign'"),
        (
            {"codec": "top-k", "codec-quantization": "int4"},
            "The key 'codec-quantization' is 'int4', but must be one of",
        ),
        ({"codec": "zstd", "error-feedback": "on"}, "leaves out nothing that could be sent later"),
        ({"error-feedback": "on"}, "The key 'error-feedback' is 'on', but does nothing with codec 'none'"),
        (
            {"codec": "top-k", "error-feedback": "off", "error-feedback-momentum": 0.9},
            "The key 'error-feedback-momentum' is 0.9, but there is no error feedback",
        ),
        ({"downlink-bits": 4}, "The key 'downlink-bits' is 4, but does nothing with downlink 'none'"),
        ({"downlink": "top-k"}, "The key 'downlink' is 'top-k'"),
    ],
)
def test_each_mistake_is_said_in_a_sentence(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        RunConfig.from_run_config(keys)


@pytest.mark.parametrize(
    "keys",
    [
        PRIVATE,
        {**PRIVATE, "selection": "poisson"},
        {"strategy": "dp-fedavg", "codec": "qsgd"},
        {"codec": "threshold", "codec-threshold": 2.0, "error-feedback-momentum": 0.5},
        {"codec": "random-k", "codec-share": 0.1, "codec-quantization": "uniform", "codec-bits": 4},
    ],
    ids=str,
)
def test_what_makes_sense_is_let_through(keys: dict[str, Any]) -> None:
    composition(RunConfig.from_run_config(keys))


def test_a_codec_goes_with_any_strategy() -> None:
    config = RunConfig.from_run_config({"strategy": "trimmed-mean", "codec": "stc", "codec-share": 0.02})
    codec = composition(config).codec
    assert isinstance(codec, ErrorFeedback)
    assert {**codec.settings, "codec": "stc"}.items() >= {"codec-share": 0.02, "codec-quantization": "sign"}.items()


def test_the_keys_are_those_of_the_codecs() -> None:
    """Names, defaults and which of them does something: in the config as in the registry of codecs."""
    fields = {field.alias or name: field.default for name, field in RunConfig.model_fields.items()}
    assert {key: fields[key] for key in DEFAULTS} == DEFAULTS
    assert set(contradictions.CODECS) == set(CODECS) - {"none"}
