"""The run config: every key with its default, its bounds and its meaning. The single source; it imports nothing heavy.

``[tool.flwr.app.config]`` in pyproject.toml repeats the keys and defaults, because Flower only lets a run override keys
that stand there; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from app.config_sentences import allowed, one_of, refusals, unknown_key
from app.contradictions import contradictions
from app.errors import ConfigError
from app.text_rules import DATASET_PREFIXES as DATASET_PREFIXES  # part of this module's interface, as the names below
from app.text_rules import DATASETS, MODELS, OPTIMIZERS, OTHER_DATA, OTHER_MODEL, RULES
from app.world_keys import ADVERSARIES, AUDIT
from app.world_keys import SECTION as WORLD

Value = bool | int | float | str


def _section(title: str) -> Callable[..., Any]:
    """Return a Field maker that files its keys under a title; the table and pyproject.toml show them so."""

    def key(default: Value, meaning: str, **bounds: float) -> Any:
        return Field(default, description=meaning, json_schema_extra={"section": title}, **bounds)  # type: ignore[call-overload]

    return key


_run, _data, _local, _federation = map(_section, ("Run", "Task", "Local training", "Federation"))
_robust, _guard, _evaluation, _world = map(
    _section, ("Robust aggregation", "Waiting and admission", "Evaluation", WORLD)
)
_adversaries, _audit, _privacy, _compression = map(_section, (ADVERSARIES, AUDIT, "Privacy", "Compression"))
_monitoring = _section("Monitoring")


class RunConfig(BaseModel):
    """A checked run config. Attributes are the keys with ``_`` for ``-``; only a float accepts a whole number.

    Raises pydantic's ValidationError when constructed directly; ``from_run_config`` speaks in sentences instead.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        populate_by_name=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )

    name: str = _run("", "name of the run and its directory; empty = <dataset>-<model>")
    seed: int = _run(0, "everything random is derived from it", ge=0, le=2**63 - 1)
    runs_dir: str = _run("runs", "folder that the run directories are made in")
    checkpoint_every: int = _run(1, "rounds between checkpoints, from which a run can be resumed; 0 = none", ge=0)
    checkpoint_share: float = _run(
        0.02,
        "most of a simulation's time for checkpoints: rounds too short for that are passed over; 1 = none",
        gt=0,
        le=1,
    )
    checkpoints_kept: int = _run(3, "checkpoints that are kept, the newest ones", ge=1, le=10**6)
    resume: str = _run("", "run directory to go on in, with the config it has; empty = a new run")

    dataset: str = _data("digits", "what is learnt from; npz:PATH, tfrecord:DIR or module:function for your own data")
    partition: Literal["iid", "dirichlet", "pathological", "shards", "quantity", "natural"] = _data(
        "dirichlet",
        "how the examples are dealt to the clients; natural = as the data set says (writer, silo, hospital)",
    )
    num_clients: int = _data(50, "clients that the data set is cut into (not with partition natural)", ge=1, le=10**6)
    dirichlet_alpha: float = _data(0.5, "dirichlet: the smaller, the fewer classes per client", gt=0, le=1e6)
    classes_per_client: int = _data(2, "pathological: classes per client; shards: shards per client", ge=1, le=10**5)
    quantity_skew: float = _data(1.0, "quantity: client k of n gets examples in proportion to k ** skew", ge=0, le=10)
    min_client_examples: int = _data(2, "no client is left with fewer examples than this", ge=1)
    test_fraction: float = _data(0.2, "held out as central test set, where the data set brings none", ge=0, lt=1)
    client_test_fraction: float = _data(0.2, "of each client's examples, its own test part", ge=0, lt=1)

    model: str = _local("cnn-small", "a model by name, or module:function for your own")
    client_optimizer: str = _local("sgd", "a Keras optimizer by name, with fresh state in every round")
    client_optimizer_args: str = _local("", 'its arguments, as in "momentum=0.9,nesterov=true"')
    learning_rate: float = _local(0.2, "of the clients' optimizer", gt=0, le=1e3)
    lr_warmup_rounds: int = _local(0, "rounds in which the learning rate rises to its value in equal steps", ge=0)
    lr_decay: Literal["none", "exponential", "cosine", "step"] = _local("none", "how the rate falls over the rounds")
    lr_decay_rate: float = _local(0.99, "exponential: factor per round; step: factor per step", gt=0, le=1)
    lr_decay_rounds: int = _local(10, "step: rounds between two steps", ge=1)
    local_epochs: int = _local(5, "passes over its data that a client makes in a round", ge=1, le=10**6)
    local_steps: int = _local(0, "exactly so many gradient steps instead of epochs; 0 = epochs", ge=0, le=10**9)
    batch_size: int = _local(5, "examples per gradient step; the last, smaller batch of an epoch counts", ge=1)
    full_training_examples: int = _local(
        0, "clients with fewer examples than this train proportionally less, but at least once; 0 = off", ge=0
    )
    dp_sgd_clip: float = _local(
        0.0, "DP-SGD: L2 norm that each example's gradient is clipped to; 0 = no privacy of examples", ge=0, le=1e9
    )
    dp_sgd_noise_multiplier: float = _local(
        1.1, "DP-SGD: noise over what an example can change a step's sum by; 0 = no privacy", ge=0, le=1e6
    )
    dp_sgd_microbatches: int = _local(
        0, "DP-SGD: parts of a batch that are clipped, with twice the noise; 0 = each example", ge=0, le=10**6
    )
    dp_sgd_delta: float = _local(
        1e-5, "DP-SGD: the delta that epsilon holds for; well below 1 / a client's examples", gt=0, lt=1
    )

    strategy: str = _federation("fedavg", "how the updates become a new model")
    num_rounds: int = _federation(30, "rounds of training", ge=1, le=10**6)
    clients_per_round: int = _federation(10, "clients that train in a round; 0 = all", ge=0)
    selection: str = _federation("", "how the clients of a round are drawn; empty = the strategy's own way, or uniform")
    power_of_choice_candidates: int = _federation(
        0, "power-of-choice: clients asked for their loss; 0 = twice as many as are chosen", ge=0, le=10**6
    )
    aggregator: str = _federation("", "what makes one update of many; empty = the strategy's own, or the mean")
    weighting: Literal["auto", "examples", "uniform"] = _federation(
        "auto", "what a client's update weighs; auto = its examples in means of clients drawn evenly, else the same"
    )
    server_optimizer: str = _federation("", "how the server steps; empty = the strategy's own, or sgd")
    server_optimizer_args: str = _federation("", 'its arguments where it is of Keras, as in "beta_1=0.9,amsgrad=true"')
    server_learning_rate: float = _federation(
        1.0, "of the server's step along the mean update; adaptive optimizers want far less than 1", gt=0, le=1e3
    )
    server_momentum: float = _federation(0.9, "fedavgm: what is left of the last step in the next", ge=0, lt=1)
    server_nesterov: bool = _federation(False, "fedavgm: Nesterov's momentum instead of the plain one")
    server_beta1: float = _federation(0.9, "fedadam, fedyogi: what is left of the mean update in the next", ge=0, lt=1)
    server_beta2: float = _federation(0.99, "fedadam, fedyogi: the same of its square", ge=0, lt=1)
    server_epsilon: float = _federation(
        1e-3, "fedadagrad, fedadam, fedyogi: the smaller, the more alike are all parameters' steps", ge=1e-9, le=1e3
    )
    clients_per_message: int = _federation(0, "clients packed in one message; 0 = all of a node's, 1 = unpacked", ge=0)
    over_selection: float = _federation(
        1.0, "so many times clients-per-round are asked, and the first ones to finish count", ge=1, le=100
    )
    buffer_size: int = _federation(10, "fedbuff: updates that make a step of the server", ge=1, le=10**6)
    concurrency: int = _federation(0, "fedbuff: clients that train at any time; 0 = clients-per-round", ge=0, le=10**6)
    staleness_exponent: float = _federation(
        0.5, "fedbuff: an update that is s steps old weighs (1 + s) ** -exponent", ge=0, le=100
    )
    max_staleness: int = _federation(0, "fedbuff: older updates are rejected (in steps); 0 = no limit", ge=0)
    proximal_mu: float = _federation(
        0.01, "fedprox: how strongly clients are drawn to the global model; often from 0.001 to 1", ge=0, le=1e3
    )
    adaptive_mu: bool = _federation(False, "fedprox: mu follows the training loss up and down, from proximal-mu on")

    attackers_tolerated: int = _robust(
        0, "robust rules: attackers that a round may hold, which asks for enough updates in it", ge=0, le=10**6
    )
    trim_beta: float = _robust(0.2, "trimmed-mean: share of the values cut off each end, rounded up", ge=0, lt=0.5)
    krum_selected: int = _robust(0, "multi-krum: updates that are averaged; 0 = all but attackers-tolerated", ge=0)
    rfa_iterations: int = _robust(50, "geometric-median: steps of the Weiszfeld algorithm", ge=1, le=10**5)
    centered_clip_norm: float = _robust(
        1.0, "centered-clipping: L2 norm that differences to the last step are clipped to", gt=0, le=1e9
    )
    centered_clip_iterations: int = _robust(1, "centered-clipping: steps in a round", ge=1, le=10**5)
    zeroing: bool = _robust(False, "updates with a value far beyond the usual are rejected; adapts to the updates")
    clipping: Literal["none", "fixed", "adaptive"] = _robust(
        "none", "the server shortens updates to clip-norm, or to the norm that 4 of 5 keep below"
    )
    clip_norm: float = _robust(1.0, "clipping: the L2 norm, where adaptive that of the first round", gt=0, le=1e9)

    privacy: str = _privacy("", "differential privacy of clients: how; empty = the strategy's own, or none")
    noise_multiplier: float = _privacy(
        0.5, "noise on the sum of updates, in clipping norms; 0 = no privacy", ge=0, le=1e6
    )
    clipping_norm: float = _privacy(
        1.0, "L2 norm that updates are clipped to, where adaptive that of the first round", gt=0, le=1e9
    )
    per_layer_clipping: bool = _privacy(
        False, "each of a model's L arrays is clipped to clipping-norm / sqrt(L), instead of the whole"
    )
    pass_rounds: int = _privacy(
        0,
        "cyclic, dp-ftrl, dp-mf: rounds in which each client is asked once; 0 = clients / clients-per-round",
        ge=0,
        le=10**6,
    )
    mf_bands: int = _privacy(
        0, "dp-mf: rounds whose noise is correlated, each of which is kept in memory; 0 = pass-rounds", ge=0, le=10**6
    )
    noise_cohort_size: int = _privacy(
        0,
        "in simulations: noise on the mean as of a cohort of so many clients; 0 = of the run's own",
        ge=0,
        le=10**9,
    )
    adaptive_clipping_quantile: float = _privacy(
        0.5, "dp-fedavg-adaptive: share of the updates that are not to be clipped", ge=0, le=1
    )
    adaptive_clipping_rate: float = _privacy(
        0.2, "dp-fedavg-adaptive: how fast the clipping norm follows", gt=0, le=100
    )
    budget_epsilon: float = _privacy(
        0.0, "no round begins after which epsilon would be larger; 0 = no limit", ge=0, le=1e6
    )
    budget_delta: float = _privacy(1e-5, "the delta that epsilon holds for; well below 1 / clients", gt=0, lt=1)
    allow_unprotected_metrics: bool = _privacy(
        False, "clients' losses, accuracies, groups and norms of updates are told although nothing protects them"
    )

    codec: str = _compression(
        "none", "how updates are made smaller: top-k, stc, threshold, random-k, qsgd, sign, drive, float16, zstd, full"
    )
    codec_share: float = _compression(
        0.01, "top-k, stc, random-k: share of its values that an update keeps", gt=0, le=1
    )
    codec_threshold: float = _compression(
        3.0, "threshold: values are sent from so many times the update's root mean square on", gt=0, le=1e6
    )
    codec_quantization: str = _compression(
        "", "in how many bits values are sent: none, float16, uniform or sign; empty = as the codec's name says"
    )
    codec_bits: int = _compression(8, "uniform, qsgd: bits of a value", ge=1, le=8)
    codec_rotation: bool = _compression(
        False, "uniform, sign: values are first rotated at random, so that none stands out"
    )
    codec_lossless: Literal["zstd", "none"] = _compression("zstd", "zstandard on top, where it makes updates smaller")
    error_feedback: Literal["auto", "on", "off"] = _compression(
        "auto", "what was not sent is added to the client's next update; auto = unless errors average out anyway"
    )
    error_feedback_momentum: float = _compression(
        0.0, "error feedback with momentum (deep gradient compression), for top-k, stc, threshold; 0 = none", ge=0, lt=1
    )
    downlink: Literal["none", "float16", "qsgd", "zstd", "difference"] = _compression(
        "none", "how the model is sent to the clients; difference = what has changed since a client last had it"
    )
    downlink_bits: int = _compression(8, "downlink qsgd, difference: bits of a value", ge=1, le=8)

    min_nodes: int = _guard(1, "nodes to wait for at the start", ge=1)
    node_timeout: float = _guard(300.0, "seconds to wait for min-nodes", gt=0, le=1e7)
    round_timeout: float = _guard(
        600.0, "seconds after which a round goes on without the missing replies", gt=0, le=1e7
    )
    min_replies: int = _guard(1, "with fewer good updates a round is skipped and the model stays", ge=1)
    max_skipped_rounds: int = _guard(3, "so many skipped rounds in a row end the run", ge=1)
    max_update_norm: float = _guard(0.0, "updates of a larger L2 norm are rejected; 0 = off", ge=0)
    max_client_examples: int = _guard(10_000_000, "updates that claim more examples are rejected", ge=1)
    max_node_clients: int = _guard(
        100, "a deployed node that claims to host more clients is left out: it would outvote the others", ge=1, le=10**6
    )
    ban_after: int = _guard(0, "a client is banned after so many rejections of its doing in a row; 0 = never", ge=0)
    ban_rounds: int = _guard(10, "rounds for which a banned client is not asked", ge=1, le=10**6)

    evaluate_every: int = _evaluation(1, "rounds between evaluations on the central test set; 0 = off", ge=0)
    federated_evaluate_every: int = _evaluation(
        5, "rounds between evaluations on all clients' test parts; 0 = off", ge=0
    )
    federated_evaluate_clients: int = _evaluation(0, "clients asked in such an evaluation, drawn anew; 0 = all", ge=0)

    prometheus_port: int = _monitoring(
        0, "port of this machine's loopback at which Prometheus finds the run; 0 = off", ge=0, le=65535
    )
    mlflow_uri: str = _monitoring(
        "", "MLflow server to send rounds to (the extra 'mlflow'), without a password; empty = none"
    )
    alert_participation: float = _monitoring(
        0.7, "alert where a smaller share of the selected clients sends an update; 0 = off", ge=0, le=1
    )
    alert_rejected: float = _monitoring(
        0.2, "alert where a larger share of the selected clients is rejected; 0 = off", ge=0, le=1
    )
    alert_stagnation_rounds: int = _monitoring(
        20, "alert after so many rounds without a better accuracy, or one near a high best; 0 = off", ge=0, le=10**6
    )
    alert_budget: float = _monitoring(
        0.8, "alert where a larger share of budget-epsilon is spent, and when it is used up; 0 = off", ge=0, le=1
    )
    alert_duration: float = _monitoring(
        3.0, "alert where a round takes so many times the median of the rounds before; 0 = off", ge=0, le=1e6
    )
    alert_loss: float = _monitoring(
        3.0, "alert where a loss is not finite, or so many times its median and above the first; 0 = off", ge=0, le=1e9
    )
    alert_checkpoint: int = _monitoring(
        1, "alert where so many checkpoints in a row could not be written; 0 = off", ge=0, le=10**6
    )
    alert_absent: int = _monitoring(
        5, "alert where so many clients of a device class or region, or all, are asked in vain; 0 = off", ge=0, le=10**6
    )
    alert_certificates: str = _monitoring("", "PEM files whose expiry is watched, with commas between them")
    alert_certificate_days: int = _monitoring(
        14, "alert where one of alert-certificates expires within so many days; 0 = off", ge=0, le=10**4
    )
    alert_webhook: str = _monitoring(
        "", "file with the URL (https, or on this machine) that alerts are posted to as JSON; only the server reads it"
    )

    availability: float = _world(1.0, "probability that a client is online, at night where day-night is on", gt=0, le=1)
    day_night: float = _world(0.0, "by how much of it availability falls until the afternoon, local time", ge=0, le=1)
    availability_trace: str = _world("", "who is online instead: a CSV file with the columns client,from,to in seconds")
    device_classes: str = _world("", 'kinds of devices, as in "fast:0.3:0.5,slow:0.2:4" = name:share:slowness')
    regions: str = _world("", 'where clients live, as in "europe:0.5:1,asia:0.5:8" = name:share:hours ahead of UTC')
    example_seconds: float = _world(0.0, "median simulated seconds per example and local epoch", ge=0, le=1e6)
    compute_spread: float = _world(0.0, "sigma of the log-normal spread of the clients' compute times", ge=0, le=10)
    network_mbps: float = _world(0.0, "median megabits per second of a client's network, both ways; 0 = instant", ge=0)
    network_spread: float = _world(0.0, "sigma of the log-normal spread of the clients' network speeds", ge=0, le=10)
    dropout: float = _world(0.0, "probability that a client drops out before its round's work is done", ge=0, lt=1)
    round_deadline: float = _world(0.0, "simulated seconds that a round may take; 0 = no deadline", ge=0, le=1e9)
    straggler_share: float = _world(
        0.0, "share of a round's clients that get only some of their epochs done, drawn anew each time", ge=0, le=1
    )
    stragglers: Literal["drop", "partial"] = _world(
        "drop", "clients past the deadline or drawn as stragglers: dropped, or send what they have done by then"
    )

    attack: Literal[
        "none", "sign-flip", "gaussian", "nan", "stale", "label-flip", "backdoor", "alie", "ipm", "collusion"
    ] = _adversaries("none", "what the attackers do")
    attackers: float = _adversaries(0.2, "share of the clients that attack, the same ones in every round", ge=0, le=1)
    attack_scale: float = _adversaries(
        0.0, "how strongly: factor of the update, deviation of the noise, z of alie, epsilon of ipm; 0 = as published",
        ge=0, le=1e6,
    )  # fmt: skip
    attack_target: int = _adversaries(0, "backdoor: the label for images with the trigger", ge=0, le=10**6)

    canaries: int = _audit(
        0,
        "clients more, that betray themselves to measure what the models give away of one; 0 = no audit",
        ge=0,
        le=10**5,
    )

    @field_validator(*RULES)
    @classmethod
    def _text_keeps_its_rule(cls, value: str, info: ValidationInfo) -> str:
        RULES[str(info.field_name)](value)
        return value

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        found = contradictions(self)
        if found:
            raise ValueError("\n".join(found))
        return self

    @classmethod
    def from_run_config(cls, values: Mapping[str, object]) -> RunConfig:
        """Check a run config as Flower hands it over; keys that are missing take their defaults.

        Raises ConfigError: one sentence, on a line of its own, for every mistake.
        """
        keys = cls.key_names()
        unknown = [unknown_key(key, keys) for key in values if key not in keys]
        try:
            config = cls.model_validate({key: value for key, value in values.items() if key in keys})
        except ValidationError as error:
            raise ConfigError("\n".join([*unknown, *refusals(error, cls.model_fields)])) from None
        if unknown:
            raise ConfigError("\n".join(unknown))
        return config

    def to_run_config(self) -> dict[str, Value]:
        """Return every key and its value, as Flower takes them."""
        return self.model_dump(by_alias=True)

    @classmethod
    def key_names(cls) -> tuple[str, ...]:
        """Return all keys, in the order of the table."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())


def section_of(field: FieldInfo) -> str:
    """Return the title under which a key is listed."""
    extra = field.json_schema_extra
    return str(extra["section"]) if isinstance(extra, dict) else ""


def allowed_values(field: FieldInfo) -> str:
    """Say what a key allows, with the names of data sets, models and optimizers."""
    named = {
        "dataset": one_of(DATASETS, OTHER_DATA),
        "model": one_of(MODELS, OTHER_MODEL),
        "client-optimizer": one_of(OPTIMIZERS),
    }
    return named.get(field.alias or "") or allowed(field)
