"""Run-config keys that are each allowed but make no sense together, found before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.config import RunConfig

WITHOUT_CLIENTS = ("digits", "mnist", "fashion-mnist", "cifar10")
"""Data sets in which nothing says whose an example is."""

ONLY_WITH = {
    "dirichlet-alpha": ("partition", ("dirichlet",)),
    "classes-per-client": ("partition", ("pathological", "shards")),
    "quantity-skew": ("partition", ("quantity",)),
    "lr-decay-rate": ("lr-decay", ("exponential", "step")),
    "lr-decay-rounds": ("lr-decay", ("step",)),
}
"""Keys that do nothing unless another key has one of these values: changing them otherwise is a mistake."""


def contradictions(config: RunConfig) -> list[str]:
    """Return one sentence for every contradiction; none for a config that makes sense."""
    return [*_idle_keys(config), *_data(config), *_cohort(config), *_training(config), *_evaluation(config)]


def _idle_keys(config: RunConfig) -> Iterator[str]:
    for field_name, field in type(config).model_fields.items():
        key = field.alias or field_name
        if key not in ONLY_WITH:
            continue
        other, values = ONLY_WITH[key]
        actual, given = getattr(config, other.replace("-", "_")), getattr(config, field_name)
        if given != field.default and actual not in values:
            yield (
                f"The key '{key}' is {given!r}, but does nothing with {other} '{actual}': "
                f"leave it at {field.default!r} or set '{other}' to {' or '.join(map(repr, values))}."
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
    cohort = config.clients_per_round or (config.num_clients if known else config.min_replies)
    if config.min_replies > cohort:
        yield (
            f"The key 'min-replies' is {config.min_replies}, but only {cohort} clients train in a round, so that every "
            "round would be skipped: lower it or raise 'clients-per-round'."
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
