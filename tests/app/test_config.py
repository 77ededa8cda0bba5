"""The run config: its keys, the sentences on mistakes, and its copy in pyproject.toml."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from app.config import DATASETS, MODELS, OPTIMIZERS, RunConfig, allowed_values, section_of
from app.errors import ConfigError, UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def refusal(**keys: object) -> str:
    """The sentences for a config that must be refused; ``_`` stands for ``-``."""
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_run_config({key.replace("_", "-"): value for key, value in keys.items()})
    return str(caught.value)


def test_pyproject_holds_the_same_keys_defaults_and_order() -> None:
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    in_file = pyproject["tool"]["flwr"]["app"]["config"]
    declared = RunConfig().to_run_config()
    assert list(in_file.items()) == list(declared.items())
    assert [type(value) for value in in_file.values()] == [type(value) for value in declared.values()]


def test_every_key_has_a_meaning_a_section_and_says_what_it_allows() -> None:
    for field in RunConfig.model_fields.values():
        assert field.description, field.alias
        assert section_of(field), field.alias
        assert allowed_values(field), field.alias


def test_round_trip_through_flowers_dict() -> None:
    config = RunConfig.from_run_config({"num-rounds": 7, "learning-rate": 1, "dataset": "mnist"})
    assert (config.num_rounds, config.learning_rate, config.dataset) == (7, 1.0, "mnist")
    assert isinstance(config.learning_rate, float)
    assert RunConfig.from_run_config(config.to_run_config()) == config
    assert all(isinstance(value, bool | int | float | str) for value in config.to_run_config().values())


def test_a_config_is_frozen_and_hashable() -> None:
    config = RunConfig()
    assert hash(config) == hash(RunConfig())
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


def test_a_config_error_is_a_user_error() -> None:
    assert issubclass(ConfigError, UserError)


@pytest.mark.parametrize(
    ("key", "meant"), [("num_rounds", "num-rounds"), ("lerning-rate", "learning-rate"), ("Batch-Size", "batch-size")]
)
def test_unknown_key_with_a_close_one(key: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_run_config({key: 1})
    assert str(caught.value) == f"There is no key '{key}'; did you mean '{meant}'?"


def test_unknown_key_without_a_close_one() -> None:
    assert refusal(xyzzy=1) == "There is no key 'xyzzy'; 'fedkeras config' lists the keys."


def test_the_attribute_spelling_is_not_a_key() -> None:
    with pytest.raises(ConfigError, match="no key 'num_clients'"):
        RunConfig.from_run_config({"num_clients": 3})


ROUNDS = "a whole number, at least 1 and at most 1000000"
RATE = "a number, above 0 and at most 1000"


@pytest.mark.parametrize(
    ("key", "value", "given", "must_be"),
    [
        ("num-rounds", "ten", "'ten'", ROUNDS),
        ("num-rounds", 1.5, "1.5", ROUNDS),
        ("seed", True, "True", "a whole number, at least 0 and at most 9223372036854775807"),
        ("batch-size", 0, "0", "a whole number, at least 1"),
        ("learning-rate", 0, "0", RATE),
        ("learning-rate", float("nan"), "nan", RATE),
        ("max-update-norm", float("inf"), "inf", "a number, at least 0"),
        ("test-fraction", 1.0, "1.0", "a number, at least 0 and below 1"),
        ("weighting", "size", "'size'", "one of auto, examples, uniform"),
        ("model", 3, "3", "a string"),
        ("model", [1], "[1]", "a string"),
        ("runs-dir", " ", "' '", "the path of a folder"),
    ],
)
def test_type_and_bound_sentences(key: str, value: object, given: str, must_be: str) -> None:
    assert refusal(**{key: value}) == f"The key '{key}' is {given}, but must be {must_be}."


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("dataset", "mnits", "did you mean 'mnist'?"),
        ("dataset", "npz:", "npz:... with something after the colon"),
        ("dataset", "my.module:", "or npz:PATH, tfrecord:DIR or module:function"),
        ("lr-decay", "cosin", "one of none, exponential, cosine, step; did you mean 'cosine'?"),
        ("model", "resnet", "one of logistic, mlp, mlp-dropout, cnn-small, cnn, cnn-cifar, or module:function"),
        ("client-optimizer", "sgdd", "did you mean 'sgd'?"),
        ("server-optimizer", "keras:adm", "did you mean 'keras:adam'?"),
        ("server-optimizer-args", "momentum", 'as in "momentum=0.9,nesterov=true"'),
        ("client-optimizer-args", "momentum", 'as in "momentum=0.9,nesterov=true"'),
        ("strategy", "fedavgg", "did you mean 'fedavg'?"),
        ("device-classes", "fast", "NAME:SHARE:SLOWNESS with commas"),
        ("regions", "here:2:0", "with shares of at least 0 that add up to at most 1"),
        ("name", "a/b", "empty or letters, digits"),
        ("name", "..", "empty or letters, digits"),
    ],
)
def test_named_values_are_refused_with_the_choice(key: str, value: str, part: str) -> None:
    sentence = refusal(**{key: value})
    assert sentence.startswith(f"The key '{key}' is {value!r}, but must be ")
    assert part in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset", "npz:/a b/c.npz?x=x_raw&client=center"),
        ("dataset", "synthetic:0.5,0.5"),
        ("dataset", "my.package.module:load"),
        ("model", "my_models:build"),
        ("client-optimizer", "AdamW"),
        ("client-optimizer-args", "momentum=0.9, nesterov=true"),
        ("name", "run_1.b-2"),
    ],
)
def test_named_values_that_are_allowed(key: str, value: str) -> None:
    config = RunConfig.from_run_config({key: value})
    assert config.to_run_config()[key] == value


CONTRADICTIONS: list[tuple[dict[str, object], str]] = [
    ({"clients-per-round": 51}, "'clients-per-round' is 51, but 'num-clients' is only 50"),
    ({"min-replies": 11}, "'min-replies' is 11, but only 10 clients train in a round"),
    ({"min-replies": 51, "clients-per-round": 0}, "'min-replies' is 51, but only 50 clients train"),
    ({"local-steps": 5, "local-epochs": 2}, "'local-steps' (5) and 'local-epochs' (2) exclude each other"),
    ({"classes-per-client": 3}, "'classes-per-client' is 3, but does nothing with partition 'dirichlet'"),
    ({"dirichlet-alpha": 1.0, "partition": "iid"}, "'dirichlet-alpha' is 1.0, but does nothing with partition 'iid'"),
    ({"quantity-skew": 2.0}, "'quantity-skew' is 2.0, but does nothing"),
    ({"lr-decay-rate": 0.5}, "'lr-decay-rate' is 0.5, but does nothing with lr-decay 'none'"),
    ({"lr-decay-rounds": 5, "lr-decay": "exponential"}, "'lr-decay-rounds' is 5, but does nothing"),
    ({"partition": "natural"}, "the data set 'digits' does not say whose an example is"),
    ({"dataset": "tfrecord:silos"}, "TFRecord silos are never mixed"),
    ({"client-test-fraction": 0.0}, "'federated-evaluate-every' is 5, but 'client-test-fraction' 0"),
    ({"lr-warmup-rounds": 31}, "'lr-warmup-rounds' is 31, but the run has only 30 rounds"),
    (
        {"selection": "weighted", "clients-per-round": 0, "min-replies": 1},
        "'selection' is 'weighted', but 'clients-per-round' 0 asks every client",
    ),
    ({"selection": "poisson", "over-selection": 1.5}, "'over-selection' is 1.5, but with 'selection' 'poisson' chance"),
    ({"selection": "cyclic", "over-selection": 1.5}, "'over-selection' is 1.5, but with 'selection' 'cyclic' chance"),
    ({"pass-rounds": 4}, "'pass-rounds' is 4, but does nothing with strategy 'fedavg' and selection ''"),
    ({"mf-bands": 4, "strategy": "dp-ftrl"}, "'mf-bands' is 4, but does nothing with strategy 'dp-ftrl'"),
    (
        {"strategy": "dp-mf", "dataset": "femnist", "partition": "natural"},
        "'pass-rounds' is 0, but with 'partition' 'natural' only the data set knows how many clients there are",
    ),
    ({"power-of-choice-candidates": 20}, "'power-of-choice-candidates' is 20, but does nothing with selection ''"),
    (
        {"selection": "power-of-choice", "power-of-choice-candidates": 9},
        "'power-of-choice-candidates' is 9, but 10 clients are chosen from them",
    ),
    (
        {"selection": "power-of-choice", "power-of-choice-candidates": 14, "over-selection": 1.5},
        "'power-of-choice-candidates' is 14, but 15 clients are chosen from them",
    ),
    (
        {"selection": "power-of-choice", "power-of-choice-candidates": 51},
        "'power-of-choice-candidates' is 51, but 'num-clients' is only 50",
    ),
    ({"selection": "power-of-choice", "strategy": "fedbuff"}, "clients do not begin from one model that candidates"),
    (
        {"checkpoint-share": 0.5, "checkpoint-every": 0},
        "'checkpoint-share' is 0.5, but does nothing with checkpoint-every 0: leave it at 0.02 or set",
    ),
    (
        {"checkpoints-kept": 5, "checkpoint-every": 0},
        "'checkpoints-kept' is 5, but does nothing with checkpoint-every 0: leave it at 3 or set",
    ),
    ({"ban-rounds": 5}, "'ban-rounds' is 5, but nobody is ever banned: set 'ban-after' above 0"),
    ({"strategy": "dp-fedavg", "max-update-norm": 0.5}, "'max-update-norm' is 0.5, but under differential privacy"),
    ({"buffer-size": 5}, "'buffer-size' is 5, but does nothing with strategy 'fedavg'"),
    ({"concurrency": 5}, "'concurrency' is 5, but does nothing with strategy 'fedavg'"),
    ({"staleness-exponent": 1.0}, "'staleness-exponent' is 1.0, but does nothing with strategy 'fedavg'"),
    ({"proximal-mu": 1.0}, "'proximal-mu' is 1.0, but does nothing with strategy 'fedavg'"),
    ({"adaptive-mu": True, "strategy": "scaffold"}, "'adaptive-mu' is True, but does nothing with strategy 'scaffold'"),
    ({"max-staleness": 5}, "'max-staleness' is 5, but does nothing with strategy 'fedavg'"),
    (
        {"server-momentum": 0.5},
        "'server-momentum' is 0.5, but does nothing with strategy 'fedavg' and server-optimizer '': leave it at 0.9 or "
        "set 'strategy' to 'fedavgm', or 'server-optimizer' to 'fedavgm'.",
    ),
    ({"server-nesterov": True, "strategy": "fedadam"}, "'server-nesterov' is True, but does nothing with strategy"),
    ({"server-beta1": 0.5, "strategy": "fedadagrad"}, "'server-beta1' is 0.5, but does nothing with strategy"),
    ({"server-beta2": 0.5, "server-optimizer": "fedavgm"}, "'server-beta2' is 0.5, but does nothing with strategy"),
    ({"server-epsilon": 0.5}, "'server-epsilon' is 0.5, but does nothing with strategy 'fedavg'"),
    ({"server-optimizer-args": "momentum=0.5"}, "set 'server-optimizer' to one that begins with 'keras:'"),
    ({"over-selection": 1.5, "clients-per-round": 0}, "'over-selection' is 1.5, but all clients are asked"),
    (
        {"over-selection": 5.1},
        "'over-selection' is 5.1, which asks 51 clients in a round, but 'num-clients' is only 50",
    ),
    ({"over-selection": 1.5, "strategy": "fedbuff"}, "'over-selection' is 1.5, but 'strategy' 'fedbuff' waits for no"),
    ({"concurrency": 51, "strategy": "fedbuff"}, "'concurrency' is 51, but 'num-clients' is only 50"),
    ({"concurrency": 51}, "'concurrency' is 51, but does nothing with strategy 'fedavg'"),
    ({"min-replies": 9, "buffer-size": 8, "strategy": "fedbuff"}, "but the server steps with every 8 updates, so that"),
    ({"clients-per-message": 2, "strategy": "fedbuff"}, "with 'strategy' 'fedbuff' every client travels alone"),
    ({"over-selection": 1.11, "num-clients": 11}, "which asks 12 clients in a round, but 'num-clients' is only 11"),
    ({"clients-per-round": 51, "over-selection": 1.1}, "'clients-per-round' is 51, but 'num-clients' is only 50"),
    ({"stragglers": "partial"}, "'stragglers' is 'partial', but without a deadline nobody is late"),
    ({"straggler-share": 0.5, "local-epochs": 1}, "who does only one cannot do some of them: raise 'local-epochs'"),
    ({"straggler-share": 0.5, "local-steps": 1}, "who does only one cannot do some of them: raise 'local-steps'"),
    ({"straggler-share": 0.5, "strategy": "fedbuff"}, "'straggler-share' is 0.5, but 'strategy' 'fedbuff'"),
    ({"day-night": 0.5, "example-seconds": 1.0}, "'day-night' is 0.5, but no 'regions' say what time it is where"),
    (
        {"availability-trace": "trace.csv", "availability": 0.5, "network-mbps": 1.0},
        "'availability-trace' and 'availability' both say who is online",
    ),
    (
        {"availability-trace": "trace.csv", "day-night": 0.5, "regions": "here:1:0", "network-mbps": 1.0},
        "'availability-trace' and 'day-night' both say who is online",
    ),
    ({"round-deadline": 601.0, "example-seconds": 1.0}, "nobody is waited for longer than 'round-timeout', 600 s"),
    ({"round-deadline": 60.0}, "'round-deadline' is 60.0, but training takes no simulated time: set 'example-seconds'"),
    ({"availability": 0.5}, "takes no simulated time: set 'example-seconds' or 'network-mbps' above 0"),
    ({"availability-trace": "trace.csv"}, "'availability-trace' is 'trace.csv', but training takes no simulated time"),
    ({"device-classes": "slow:0.5:2", "network-mbps": 1.0}, "set 'example-seconds' above 0"),
    ({"compute-spread": 0.5, "network-mbps": 1.0}, "'compute-spread' is 0.5, but training takes no simulated time"),
    ({"network-spread": 0.5, "example-seconds": 1.0}, "set 'network-mbps' above 0, or leave 'network-spread' at 0.0"),
]


@pytest.mark.parametrize(("values", "sentence"), CONTRADICTIONS)
def test_contradictions_are_refused(values: dict[str, object], sentence: str) -> None:
    refused = refusal(**values)
    assert sentence in refused
    assert "\n" not in refused


@pytest.mark.parametrize(
    "values",
    [
        {"clients-per-round": 0, "min-replies": 50},
        {"dataset": "femnist", "partition": "natural", "clients-per-round": 100},
        {"dataset": "npz:a.npz", "partition": "natural", "clients-per-round": 0, "min-replies": 9},
        {"partition": "pathological", "classes-per-client": 3},
        {"partition": "shards", "classes-per-client": 4},
        {"local-steps": 5},
        {"client-test-fraction": 0.0, "federated-evaluate-every": 0},
        {"dataset": "npz:a.npz", "client-test-fraction": 0.0},
        {"over-selection": 5.0},
        {"selection": "poisson", "strategy": "fedbuff", "ban-after": 1, "ban-rounds": 1},
        {"selection": "weighted", "over-selection": 2.0},
        {"strategy": "dp-mf", "dataset": "femnist", "partition": "natural", "pass-rounds": 5, "mf-bands": 5},
        {"privacy": "dp-ftrl", "selection": "cyclic", "pass-rounds": 9, "per-layer-clipping": True},
        {"selection": "power-of-choice", "power-of-choice-candidates": 50, "over-selection": 5.0},
        {"over-selection": 1.1, "num-clients": 11},  # 10 x 1.1 is a rounding above 11
        {"over-selection": 3.0, "dataset": "femnist", "partition": "natural", "clients-per-round": 2000},
        {"dropout": 0.3},
        {"strategy": "fedbuff", "buffer-size": 40, "concurrency": 50, "staleness-exponent": 0.0, "max-staleness": 9},
        {"strategy": "fedbuff", "buffer-size": 40, "min-replies": 40, "clients-per-message": 1},
        {"server-momentum": 0.5, "server-nesterov": True, "server-optimizer": "fedavgm"},
        {"server-beta1": 0.5, "server-beta2": 0.5, "server-epsilon": 1.0, "strategy": "fedyogi"},
        {"server-epsilon": 1.0, "server-optimizer": "fedadagrad", "strategy": "fedbuff"},
        {"proximal-mu": 0.0, "adaptive-mu": True, "strategy": "fedprox", "aggregator": "normalized-mean"},
        {"server-optimizer": "keras:sgd", "server-optimizer-args": "momentum=0.5"},
        {"straggler-share": 0.9, "stragglers": "partial"},
        {"straggler-share": 0.9, "local-steps": 2},
        {"regions": "here:0.5:0"},
        {"availability": 0.5, "network-mbps": 1.0},
        {"day-night": 0.5, "regions": "here:1:0", "example-seconds": 1.0},
        {"round-deadline": 600.0, "example-seconds": 1.0, "stragglers": "partial"},
        {"lr-decay": "step", "lr-decay-rate": 0.5, "lr-decay-rounds": 3, "lr-warmup-rounds": 30},
    ],
)
def test_sound_combinations_pass(values: dict[str, object]) -> None:
    RunConfig.from_run_config(values)


def test_all_mistakes_are_told_at_once() -> None:
    sentences = refusal(num_rounds=0, batch_size=0, xyzzy=1).splitlines()
    assert len(sentences) == 3


def literal(file: str, name: str) -> list[str]:
    """The strings in a module-level assignment, read without importing Keras."""
    tree = ast.parse((REPOSITORY / file).read_text())
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and getattr(node.targets[0] if isinstance(node, ast.Assign) else node.target, "id", "") == name
    ]
    assert isinstance(value, ast.Dict)
    return [key.value for key in value.keys if isinstance(key, ast.Constant)]


def test_the_datasets_are_those_of_tasks() -> None:
    assert set(DATASETS) == set(literal("tasks/datasets/__init__.py", "_LOADERS"))


@pytest.mark.slow
def test_models_and_optimizers_are_those_of_tasks() -> None:
    from tasks import models, optimizers

    assert set(MODELS) == set(models.MODEL_NAMES)
    assert set(OPTIMIZERS) == set(optimizers._catalogue())
