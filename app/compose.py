"""Turns a run config into the values that tasks and strategies are made of: the one place where keys meet classes."""

from __future__ import annotations

from app.config import RunConfig
from strategies import registry
from strategies.admission import Limits
from strategies.bans import BanRules
from strategies.composition import Composition
from strategies.privacy.budget import Budget
from strategies.privacy.example_level import ExampleLevel
from strategies.terms import RoundRules
from tasks.datasets import DataSpec
from tasks.dp_sgd import DpSgd
from tasks.local_training import LocalTraining
from tasks.partition import Partition
from tasks.schedules import LearningRate


def data_spec(config: RunConfig) -> DataSpec:
    """Return what decides the data and how they are dealt to clients."""
    partition = Partition(
        kind=config.partition,
        num_clients=config.num_clients,
        dirichlet_alpha=config.dirichlet_alpha,
        classes_per_client=config.classes_per_client,
        quantity_skew=config.quantity_skew,
        min_examples=config.min_client_examples,
        seed=config.seed,
    )
    return DataSpec(
        dataset=config.dataset,
        partition=partition,
        test_fraction=config.test_fraction,
        client_test_fraction=config.client_test_fraction,
        seed=config.seed,
    )


def local_training(config: RunConfig) -> LocalTraining:
    """Return how much a client trains in a round, with which optimizer, and how privately."""
    noise, microbatches = config.dp_sgd_noise_multiplier, config.dp_sgd_microbatches
    private = DpSgd(config.dp_sgd_clip, noise, microbatches) if config.dp_sgd_clip else None
    return LocalTraining(
        batch_size=config.batch_size,
        epochs=config.local_epochs,
        steps=config.local_steps,
        optimizer=config.client_optimizer,
        optimizer_args=config.client_optimizer_args,
        full_training_examples=config.full_training_examples,
        dp_sgd=private,
    )


def example_level(config: RunConfig) -> ExampleLevel | None:
    """Return what a client's training does for the privacy of its single examples; None where it is not private."""
    training = local_training(config)
    if training.dp_sgd is None:
        return None
    noise = training.dp_sgd.noise_multiplier
    return ExampleLevel(training.batch_size, noise, training.steps_for, config.dp_sgd_delta)


def learning_rate(config: RunConfig) -> LearningRate:
    """Return the clients' learning rate over the rounds; a cosine would reach zero one round after the last."""
    after_warmup = max(1, config.num_rounds - config.lr_warmup_rounds)
    rate, rounds = {
        "cosine": (0.0, after_warmup),
        "step": (config.lr_decay_rate, config.lr_decay_rounds),
    }.get(config.lr_decay, (config.lr_decay_rate, 1))
    return LearningRate(config.learning_rate, config.lr_warmup_rounds, config.lr_decay, rate, rounds)


def composition(config: RunConfig) -> Composition:
    """Return the strategy by name, with the options it knows."""
    return registry.build(config.strategy, config.to_run_config())


def round_rules(config: RunConfig) -> RoundRules:
    """Return how rounds are run."""
    return RoundRules(
        min_replies=config.min_replies,
        max_skipped_rounds=config.max_skipped_rounds,
        clients_per_message=config.clients_per_message,
        limits=Limits(float(config.max_client_examples), config.max_update_norm),
        evaluate_every=config.evaluate_every,
        federated_evaluate_every=config.federated_evaluate_every,
        federated_evaluate_clients=config.federated_evaluate_clients,
        round_deadline=config.round_deadline,
        bans=BanRules(config.ban_after, config.ban_rounds),
        budget=Budget(config.budget_epsilon, config.budget_delta, by_client=config.dp_sgd_clip > 0),
        unprotected_metrics=config.allow_unprotected_metrics,
    )
