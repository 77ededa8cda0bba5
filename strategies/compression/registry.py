"""Codecs by name: which parts the keys of a run config, or the settings in a request, stand for.

'codec' says which values are sent, and 'codec-quantization' how; some names stand for both, as they are known from
papers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from strategies.compression.codec import Codec, Dense
from strategies.compression.compressed import Compressed
from strategies.compression.lossless import Lossless, NoLossless, Zstandard
from strategies.compression.quantizer import Float16, Float32, Quantizer
from strategies.compression.random_k import RandomK
from strategies.compression.rotation import Rotated
from strategies.compression.sign import Sign
from strategies.compression.sparsifier import Everything, Sparsifier
from strategies.compression.threshold import Threshold
from strategies.compression.top_k import TopK
from strategies.compression.uniform import Uniform
from strategies.errors import StrategyError
from strategies.options import Option, Options, flag, known, text

SPARSIFIERS: dict[str, Callable[[Options], Sparsifier]] = {
    "full": Everything.of,
    "top-k": TopK.of,
    "threshold": Threshold.of,
    "random-k": RandomK.of,
}
QUANTIZERS: dict[str, Callable[[Options], Quantizer]] = {
    "none": Float32.of,
    "float16": Float16.of,
    "uniform": Uniform.of,
    "sign": Sign.of,
}
LOSSLESS: dict[str, Lossless] = {"none": NoLossless(), "zstd": Zstandard()}

CODECS: dict[str, Mapping[str, Option]] = {
    "none": {},
    **{name: {"codec": name} for name in SPARSIFIERS},
    "drive": {"codec": "full", "codec-quantization": "sign", "codec-rotation": True},
    "float16": {"codec": "full", "codec-quantization": "float16"},
    "qsgd": {"codec": "full", "codec-quantization": "uniform"},
    "sign": {"codec": "full", "codec-quantization": "sign"},
    "stc": {"codec": "top-k", "codec-quantization": "sign"},
    "zstd": {"codec": "full", "codec-quantization": "none", "codec-lossless": "zstd"},
}
"""What each name stands for; "none" for the update as it is, without a payload of ours."""

DEFAULTS: dict[str, Option] = {
    "codec": "none",
    "codec-share": 0.01,
    "codec-threshold": 3.0,
    "codec-quantization": "",
    "codec-bits": 8,
    "codec-rotation": False,
    "codec-lossless": "zstd",
}
"""Every key, with its value where nothing is said."""


def codec_of(options: Options) -> Codec:
    """Return the codec that the options name; of `Codec.settings` it makes an equal codec.

    Raises StrategyError for an unknown name, a value out of bounds, or one that the name of the codec excludes.
    """
    name = text(options, "codec", "none")
    meant = known("codec", name, CODECS)
    if not meant:
        return Dense()
    for key, value in meant.items():
        if key != "codec" and options.get(key, DEFAULTS[key]) not in (DEFAULTS[key], value):
            raise StrategyError(
                f"The key '{key}' is {options[key]!r}, but the codec '{name}' is made of {value!r}: leave it out, or "
                f"set 'codec' to '{meant['codec']}'."
            )
    options = {**options, **meant}
    return Compressed(
        known("codec", text(options, "codec", ""), SPARSIFIERS)(options),
        _quantizer(options),
        known("codec-lossless", text(options, "codec-lossless", "zstd"), LOSSLESS),
    )


def _quantizer(options: Options) -> Quantizer:
    name = text(options, "codec-quantization", "") or "none"
    quantizer = known("codec-quantization", name, QUANTIZERS)(options)
    if not flag(options, "codec-rotation", False):
        return quantizer
    if isinstance(quantizer, Float32 | Float16):
        raise StrategyError(
            f"The key 'codec-rotation' is true, but 'codec-quantization' is '{name}': a rotation helps only where "
            "values are quantized to a few levels, with 'uniform' or 'sign'."
        )
    return Rotated(quantizer)
