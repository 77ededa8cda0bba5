"""Run-config keys that are each allowed but make no sense together, found before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from app.audit_rules import audit
from app.compression_rules import compression
from app.example_privacy_rules import example_privacy, local_privacy
from app.selection_rules import bans, selection

if TYPE_CHECKING:
    from app.config import RunConfig

WITHOUT_CLIENTS = ("digits", "mnist", "fashion-mnist", "cifar10")
"""Data sets in which nothing says whose an example is."""

MOMENTS = ("fedadam", "fedyogi")
ADAPTIVE = ("fedadagrad", *MOMENTS)

ROBUST = ("trimmed-mean", "median", "geometric-median", "krum", "multi-krum", "bulyan", "centered-clipping")

PASSES = ("dp-ftrl", "dp-mf")
DP_FEDAVG = ("dp-fedavg", "dp-fedavg-adaptive")
PRIVATE = (*DP_FEDAVG, *PASSES)
WITH_NOISE = (*PRIVATE, "local-dp")

SCALED_ATTACKS = ("sign-flip", "gaussian", "backdoor", "alie", "ipm", "collusion")
OTHER_ATTACKS = ("nan", "stale", "label-flip")

QUANTIZED = ("qsgd", "sign", "drive", "stc")
SPARSE = ("top-k", "stc", "threshold")
CODECS = ("full", "random-k", "float16", "zstd", *dict.fromkeys(QUANTIZED + SPARSE))

ONLY_WITH: dict[str, dict[str, tuple[str, ...]]] = {
    "dirichlet-alpha": {"partition": ("dirichlet",)},
    "classes-per-client": {"partition": ("pathological", "shards")},
    "quantity-skew": {"partition": ("quantity",)},
    "lr-decay-rate": {"lr-decay": ("exponential", "step")},
    "lr-decay-rounds": {"lr-decay": ("step",)},
    "power-of-choice-candidates": {"selection": ("power-of-choice",)},
    "buffer-size": {"strategy": ("fedbuff",)},
    "concurrency": {"strategy": ("fedbuff",)},
    "staleness-exponent": {"strategy": ("fedbuff",)},
    "max-staleness": {"strategy": ("fedbuff",)},
    "attackers-tolerated": {"strategy": ROBUST, "aggregator": ROBUST},
    "trim-beta": {"strategy": ("trimmed-mean",), "aggregator": ("trimmed-mean",)},
    "krum-selected": {"strategy": ("multi-krum",), "aggregator": ("multi-krum",)},
    "rfa-iterations": {"strategy": ("geometric-median",), "aggregator": ("geometric-median",)},
    "centered-clip-norm": {"strategy": ("centered-clipping",), "aggregator": ("centered-clipping",)},
    "centered-clip-iterations": {"strategy": ("centered-clipping",), "aggregator": ("centered-clipping",)},
    "clip-norm": {"clipping": ("fixed", "adaptive")},
    "noise-multiplier": {"strategy": WITH_NOISE, "privacy": WITH_NOISE},
    "clipping-norm": {"strategy": WITH_NOISE, "privacy": WITH_NOISE},
    "budget-epsilon": {"strategy": WITH_NOISE, "privacy": WITH_NOISE},
    "budget-delta": {"strategy": WITH_NOISE, "privacy": WITH_NOISE},
    "allow-unprotected-metrics": {"strategy": PRIVATE, "privacy": PRIVATE},
    "per-layer-clipping": {"strategy": ("dp-fedavg", *PASSES), "privacy": ("dp-fedavg", *PASSES)},
    "pass-rounds": {"strategy": PASSES, "selection": ("cyclic",)},
    "mf-bands": {"strategy": ("dp-mf",), "privacy": ("dp-mf",)},
    "noise-cohort-size": {"strategy": DP_FEDAVG, "privacy": DP_FEDAVG},
    "adaptive-clipping-quantile": {"strategy": ("dp-fedavg-adaptive",), "privacy": ("dp-fedavg-adaptive",)},
    "adaptive-clipping-rate": {"strategy": ("dp-fedavg-adaptive",), "privacy": ("dp-fedavg-adaptive",)},
    "codec-share": {"codec": ("top-k", "stc", "random-k")},
    "codec-threshold": {"codec": ("threshold",)},
    "codec-quantization": {"codec": CODECS},
    "codec-bits": {"codec": ("qsgd",), "codec-quantization": ("uniform",)},
    "codec-rotation": {"codec": QUANTIZED, "codec-quantization": ("uniform", "sign")},
    "codec-lossless": {"codec": CODECS},
    "error-feedback": {"codec": CODECS},
    "error-feedback-momentum": {"codec": SPARSE},
    "downlink-bits": {"downlink": ("qsgd", "difference")},
    "proximal-mu": {"strategy": ("fedprox",)},
    "adaptive-mu": {"strategy": ("fedprox",)},
    "attackers": {"attack": SCALED_ATTACKS + OTHER_ATTACKS},
    "attack-scale": {"attack": SCALED_ATTACKS},
    "attack-target": {"attack": ("backdoor",)},
    "server-momentum": {"strategy": ("fedavgm",), "server-optimizer": ("fedavgm",)},
    "server-nesterov": {"strategy": ("fedavgm",), "server-optimizer": ("fedavgm",)},
    "server-beta1": {"strategy": MOMENTS, "server-optimizer": MOMENTS},
    "server-beta2": {"strategy": MOMENTS, "server-optimizer": MOMENTS},
    "server-epsilon": {"strategy": ADAPTIVE, "server-optimizer": ADAPTIVE},
}
"""Keys that do nothing unless one of the others has one of these values: changing them otherwise is a mistake."""


def contradictions(config: RunConfig) -> list[str]:
    """Return one sentence for every contradiction; none for a config that makes sense."""
    every_kind = (
        *(_idle_keys, _checkpoints, _server, _data, _cohort, selection, bans),
        *(_training, example_privacy, local_privacy, compression, _evaluation, _world, audit),
    )
    return [sentence for kind in every_kind for sentence in kind(config)]


def does_nothing(key: str, values: Mapping[str, object]) -> bool:
    """Tell whether a key does nothing in a run with these values of all keys."""
    uses = ONLY_WITH.get(key, {})
    return bool(uses) and not any(values[other] in wanted for other, wanted in uses.items())


def _idle_keys(config: RunConfig) -> Iterator[str]:
    for field_name, field in type(config).model_fields.items():
        key = field.alias or field_name
        if key not in ONLY_WITH:
            continue
        given = getattr(config, field_name)
        actual = {other: getattr(config, other.replace("-", "_")) for other in ONLY_WITH[key]}
        if given != field.default and does_nothing(key, actual):
            idle = " and ".join(f"{other} '{value}'" for other, value in actual.items())
            uses = (f"'{other}' to {' or '.join(map(repr, values))}" for other, values in ONLY_WITH[key].items())
            yield (
                f"The key '{key}' is {given!r}, but does nothing with {idle}: "
                f"leave it at {field.default!r} or set {', or '.join(uses)}."
            )


def _checkpoints(config: RunConfig) -> Iterator[str]:
    if config.checkpoint_every:
        return
    for key in ("checkpoint-share", "checkpoints-kept"):
        name = key.replace("-", "_")
        given, usual = getattr(config, name), type(config).model_fields[name].default
        if given != usual:
            yield (
                f"The key '{key}' is {given:g}, but does nothing with checkpoint-every 0: leave it at {usual:g} or set "
                "'checkpoint-every' above 0."
            )


def _server(config: RunConfig) -> Iterator[str]:
    if config.server_optimizer_args and not config.server_optimizer.startswith("keras:"):
        yield (
            f"The key 'server-optimizer-args' is '{config.server_optimizer_args}', but is for the optimizers of Keras: "
            "leave it empty, or set 'server-optimizer' to one that begins with 'keras:'."
        )


def _data(config: RunConfig) -> Iterator[str]:
    if config.partition == "natural" and config.dataset in WITHOUT_CLIENTS:
        yield (
            f"The key 'partition' is 'natural', but the data set '{config.dataset}' does not say whose an example is: "
            "set it to iid, dirichlet, pathological, shards or quantity."
        )
    if config.partition != "natural" and config.dataset.startswith("tfrecord:"):
        yield (
            f"The key 'partition' is '{config.partition}', but TFRecord silos are never mixed: "
            "set 'partition' to 'natural'."
        )


def _cohort(config: RunConfig) -> Iterator[str]:
    known = config.partition != "natural"  # else the data set says how many clients there are
    if known and config.clients_per_round > config.num_clients:
        yield (
            f"The key 'clients-per-round' is {config.clients_per_round}, but 'num-clients' is only "
            f"{config.num_clients}: lower the first (0 = all) or raise the second."
        )
    yield from _buffer(config) if config.strategy == "fedbuff" else _round(config)
    if config.min_replies > 1 and (config.strategy in PRIVATE or config.privacy in PRIVATE):
        yield (
            f"The key 'min-replies' is {config.min_replies}, but under differential privacy every round counts, as a "
            "skipped one would tell how many took part: leave it at 1."
        )
    if config.max_update_norm > 0 and (config.strategy in PRIVATE or config.privacy in PRIVATE):
        yield (
            f"The key 'max-update-norm' is {config.max_update_norm:g}, but under differential privacy every update is "
            "clipped to 'clipping-norm' instead of being rejected: leave it at 0."
        )


def _round(config: RunConfig) -> Iterator[str]:
    from strategies.samplers import asked  # NumPy is only paid for when a config is really checked

    most = config.num_clients if config.partition != "natural" else sys.maxsize
    needed = config.clients_per_round or (most if most < sys.maxsize else config.min_replies)
    if config.min_replies > needed:
        yield (
            f"The key 'min-replies' is {config.min_replies}, but only {needed} clients train in a round, so that every "
            "round would be skipped: lower it or raise 'clients-per-round'."
        )
    selected = asked(config.clients_per_round, config.over_selection)
    if config.over_selection > 1 and config.clients_per_round == 0:
        yield (
            f"The key 'over-selection' is {config.over_selection:g}, but all clients are asked: leave it at 1, or "
            "change 'clients-per-round'."
        )
    if config.clients_per_round <= most < selected:
        yield (
            f"The key 'over-selection' is {config.over_selection:g}, which asks {selected} clients in a round, but "
            f"'num-clients' is only {most}: lower it or 'clients-per-round', or raise 'num-clients'."
        )


def _buffer(config: RunConfig) -> Iterator[str]:
    """What holds for FedBuff, which has no rounds to wait for."""
    if config.over_selection > 1:
        yield (
            f"The key 'over-selection' is {config.over_selection:g}, but 'strategy' 'fedbuff' waits for no cohort: "
            "leave it at 1, or change 'strategy'."
        )
    if config.straggler_share > 0:
        yield (
            f"The key 'straggler-share' is {config.straggler_share:g}, but 'strategy' 'fedbuff' has no rounds of which "
            "it could be a share: leave it at 0, or change 'strategy'."
        )
    if config.clients_per_message > 1:
        yield (
            f"The key 'clients-per-message' is {config.clients_per_message}, but with 'strategy' 'fedbuff' every "
            "client travels alone: leave it at 0, or change 'strategy'."
        )
    if config.partition != "natural" and config.concurrency > config.num_clients:
        yield (
            f"The key 'concurrency' is {config.concurrency}, but 'num-clients' is only {config.num_clients}: lower the "
            "first or raise the second."
        )
    if config.min_replies > config.buffer_size:
        yield (
            f"The key 'min-replies' is {config.min_replies}, but the server steps with every {config.buffer_size} "
            "updates, so that every step would be skipped: lower it or raise 'buffer-size'."
        )


def _world(config: RunConfig) -> Iterator[str]:
    if config.stragglers == "partial" and config.round_deadline == 0 and config.straggler_share == 0:
        yield (
            "The key 'stragglers' is 'partial', but without a deadline nobody is late: set 'round-deadline' or "
            "'straggler-share', or 'stragglers' to 'drop'."
        )
    if config.straggler_share > 0 and (config.local_steps or config.local_epochs) == 1:
        key = "local-steps" if config.local_steps else "local-epochs"
        yield (
            f"The key 'straggler-share' is {config.straggler_share:g}, but who does only one cannot do some of them: "
            f"raise '{key}', or leave 'straggler-share' at 0."
        )
    if config.round_deadline > config.round_timeout:
        yield (
            f"The key 'round-deadline' is {config.round_deadline:g}, but nobody is waited for longer than "
            f"'round-timeout', {config.round_timeout:g} s: lower the first or raise the second."
        )
    if config.day_night > 0 and not config.regions:
        yield (
            f"The key 'day-night' is {config.day_night:g}, but no 'regions' say what time it is where: set them, as "
            'in "here:1:0" where all clients share one time of day.'
        )
    if config.availability_trace and (config.availability < 1 or config.day_night > 0):
        key = "availability" if config.availability < 1 else "day-night"
        yield (f"The keys 'availability-trace' and '{key}' both say who is online: leave one of them at its default.")
    yield from _without_durations(config)


def _without_durations(config: RunConfig) -> Iterator[str]:
    """What lives by the simulated clock makes no sense where nothing takes any time."""
    needs = {
        "compute-spread": ("example-seconds",),
        "network-spread": ("network-mbps",),
        "device-classes": ("example-seconds",),
        **dict.fromkeys(
            ("availability", "day-night", "availability-trace", "round-deadline"), ("example-seconds", "network-mbps")
        ),
    }
    fields = {field.alias or name: (getattr(config, name), field) for name, field in type(config).model_fields.items()}
    for key, others in needs.items():
        given, field = fields[key]
        if given != field.default and all(fields[other][0] == 0 for other in others):
            yield (
                f"The key '{key}' is {given!r}, but training takes no simulated time: set "
                f"{' or '.join(map(repr, others))} above 0, or leave '{key}' at {field.default!r}."
            )


def _training(config: RunConfig) -> Iterator[str]:
    usual = type(config).model_fields["local_epochs"].default
    if config.local_steps > 0 and config.local_epochs != usual:
        yield (
            f"The keys 'local-steps' ({config.local_steps}) and 'local-epochs' ({config.local_epochs}) exclude each "
            f"other: leave 'local-epochs' at {usual} to train by steps, or set 'local-steps' to 0."
        )
    if config.lr_warmup_rounds > config.num_rounds:
        yield (
            f"The key 'lr-warmup-rounds' is {config.lr_warmup_rounds}, but the run has only {config.num_rounds} "
            "rounds: set it to at most 'num-rounds'."
        )


def _evaluation(config: RunConfig) -> Iterator[str]:
    if config.federated_evaluate_every > 0 and config.client_test_fraction == 0 and config.dataset in WITHOUT_CLIENTS:
        yield (
            f"The key 'federated-evaluate-every' is {config.federated_evaluate_every}, but 'client-test-fraction' 0 "
            "leaves no client a test part: raise it, or set 'federated-evaluate-every' to 0."
        )
