"""Sweep files: what they may say, what configurations they lead to, and a sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config import RunConfig
from app.errors import ConfigError, UserError
from simulation.sweep.plan import MAX_CONFIGURATIONS, read_plan
from simulation.sweep.sections import Choices, Range
from tests.simulation.sweep_runner import REPOSITORY, plan_of


def test_a_file_with_everything(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        """
        name = "everything"
        [base]
        from = ["digits-linear"]
        num-rounds = 40
        learning-rate = 0.5
        [grid]
        batch-size = [5, 10]
        client-optimizer = ["sgd", "adam"]
        [random]
        server-learning-rate = { low = 0.1, high = 3.0, log = true }
        local-epochs = { low = 1, high = 5 }
        model = { choices = ["mlp", "logistic"] }
        [sweep]
        seeds = 3
        metric = "loss"
        trials = 7
        sampler = "tpe"
        halving = { min-rounds = 5 }
        """.replace('name = "everything"\n        [base]', "[base]"),
        "everything",
    )
    assert (plan.name, plan.seeds, plan.metric.name, plan.sampler) == ("everything", (0, 1, 2), "loss", "tpe")
    assert plan.keys == ("batch-size", "client-optimizer", "server-learning-rate", "local-epochs", "model")
    assert plan.random["server-learning-rate"] == Range(0.1, 3.0, log=True, whole=False)
    assert plan.random["local-epochs"] == Range(1.0, 5.0, log=False, whole=True)
    assert plan.random["model"] == Choices(("mlp", "logistic"))
    assert plan.halving is not None
    assert (plan.halving.min_rounds, plan.halving.factor) == (5, 3)
    assert plan.configurations == 7 * 4
    config = plan.config({"batch-size": 10, "server-learning-rate": 0.2, "model": "mlp"}, 2, "x")
    expected = {"dataset": "mnist", "partition": "dirichlet", "num_rounds": 40, "learning_rate": 0.5, "batch_size": 10}
    assert {key: getattr(config, key) for key in expected} == expected  # of the preset, and of the file over it
    assert (config.seed, config.name, config.server_learning_rate, config.model) == (2, "x", 0.2, "mlp")
    assert config.runs_dir == str(tmp_path / "runs")


def test_combinations_are_all_and_the_last_key_varies_fastest(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "[grid]\nlearning-rate = [0.1, 0.2]\nbatch-size = [1, 2, 3]")
    pairs = [tuple(values.values()) for values in plan.combinations()]
    assert pairs == [(0.1, 1), (0.1, 2), (0.1, 3), (0.2, 1), (0.2, 2), (0.2, 3)]
    assert plan.configurations == 6
    assert (plan.name, plan.seeds, plan.metric.name, plan.halving) == ("lr", (0,), "accuracy", None)


@pytest.mark.parametrize(
    ("given", "seeds"), [("1", (7,)), ("3", (7, 8, 9)), ("[4, 0]", (4, 0)), ("[9223372036854775807]", (2**63 - 1,))]
)
def test_seeds_are_counted_from_the_bases_own_or_listed(tmp_path: Path, given: str, seeds: tuple[int, ...]) -> None:
    plan = plan_of(tmp_path, f"[base]\nseed = 7\n[grid]\nbatch-size = [1]\n[sweep]\nseeds = {given}")
    assert plan.seeds == seeds
    assert plan.config({"batch-size": 1}, seeds[0], "").seed == seeds[0]


GRID = "[grid]\nlearning-rate = [0.1]\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[gird]\nlearning-rate = [0.1]", "A sweep file has no 'gird'; did you mean 'grid'?"),
        ("[sweep]\nseeds = 2", "Nothing varies: name keys in [grid] with lists of values, or in [random]."),
        ("[grid]\n", "Nothing varies: name keys in [grid]"),
        ("[grid]\nlearning-rte = [1]", "In [grid]: There is no key 'learning-rte'; did you mean 'learning-rate'?"),
        ("[random]\nmodle = { choices = ['mlp'] }", "In [random]: There is no key 'modle'; did you mean 'model'?"),
        ("[base]\nbatch = 3\n" + GRID, "In [base]: There is no key 'batch'"),
        ("[base]\nname = 'x'\n" + GRID, "The key 'name' stands in [base]: write it above all sections"),
        ("[grid]\nseed = [1, 2]", "The key 'seed' cannot stand in [grid]: give 'seeds' in [sweep] for several."),
        ("[grid]\nruns-dir = ['a']", "The key 'runs-dir' cannot stand in [grid]: give it in [base]."),
        ("[grid]\nresume = ['a']", "The key 'resume' cannot stand in [grid]: the same command goes on with a sweep."),
        ("[grid]\ncheckpoint-every = [1, 2]", "The key 'checkpoint-every' cannot stand in [grid]: a run of a sweep"),
        ("[base]\nresume = 'a'\n" + GRID, "The key 'resume' stands in [base]: leave it out, the same command goes on"),
        ("[grid]\nlearning-rate = []", "The key 'learning-rate' in [grid] is [], but must be a list of at least one"),
        ("[grid]\nlearning-rate = 0.1", "The key 'learning-rate' in [grid] is 0.1, but must be a list"),
        ("[grid]\nlearning-rate = [0.1, 0.1]", "The key 'learning-rate' in [grid] names a value twice."),
        ("[grid]\nlearning-rate = [1, 1.0]", "The key 'learning-rate' in [grid] names a value twice."),
        ("[grid]\nlearning-rate = [nan]", "holds a value that is not finite."),
        ("[grid]\nlearning-rate = [[0.1]]", "holds a value that is no number, no text and neither true nor false."),
        ("[grid]\nlearning-rate = [2025-01-01]", "holds a value that is no number"),
        ("[grid]\nlearning-rate = [0.1, -1.0]", "The key 'learning-rate' is -1.0, but must be a number, above 0"),
        ("[grid]\nbatch-size = [5, 'big']", "The key 'batch-size' is 'big', but must be a whole number, at least 1."),
        ("[grid]\nmodel = ['mlp', 'cn']", "The key 'model' is 'cn', but must be one of"),
        (GRID + "[random]\nlearning-rate = { choices = [1] }", "'learning-rate' stands in [grid] and in [random]"),
        ("[base]\nlearning-rate = 1.0\n" + GRID, "'learning-rate' stands in [base] and in [grid]: leave it in"),
        ("[random]\nlearning-rate = [1, 2]", "[1, 2], but must be { low = ..., high = ... } or { choices = [...] }."),
        ("[random]\nlearning-rate = { low = 1 }", "[random] learning-rate lacks the key 'high'."),
        ("[random]\nlearning-rate = { low = 1, hgih = 2 }", "'hgih' in [random] learning-rate; did you mean 'high'?"),
        ("[random]\nlearning-rate = { low = 'a', high = 2 }", "The key 'low' is 'a', but must be a number."),
        ("[random]\nlearning-rate = { low = 2, high = 2 }", "goes from 2 to 2: 'low' must be below 'high'."),
        ("[random]\nlearning-rate = { low = 0, high = 2, log = true }", "log = true: 'low' must be above 0 there."),
        ("[random]\nlearning-rate = { low = 0.0, high = 2 }", "'learning-rate' is 0.0, but must be a number, above"),
        ("[random]\nlearning-rate = { low = 1, high = 2000 }", "The key 'learning-rate' is 2000.0, but must be"),
        ("[random]\nbatch-size = { low = 1.5, high = 3 }", "goes from 1.5 to 3, but the key takes whole numbers."),
        ("[random]\nmodel = { low = 1, high = 3 }", "[random] model takes no numbers: give { choices = [...] }"),
        ("[random]\nlearning-rate = { choices = [1], low = 1 }", "has choices and low: leave one out."),
        ("[random]\nlearning-rate = { choices = [] }", "'choices' of [random] learning-rate is [], but must be a list"),
        (GRID + "[sweep]\nseeds = 0", "The key 'seeds' is 0, but must be a number of seeds, at least 1, or a list"),
        (GRID + "[sweep]\nseeds = [1, 1]", "The key 'seeds' is [1, 1], but must be a number of seeds"),
        (GRID + "[sweep]\nseeds = [-1]", "The key 'seeds' is [-1], but must be"),
        (GRID + "[sweep]\nseeds = true", "The key 'seeds' is True, but must be"),
        (GRID + "[sweep]\nmetric = 'acuracy'", "The key 'metric' is 'acuracy', but must be one of accuracy, loss,"),
        (GRID + "[sweep]\ntrials = 0", "In [sweep]: The key 'trials' is 0, but must be a whole number, at least 1"),
        (GRID + "[sweep]\nsampler = 'grid'", "The key 'sampler' is 'grid', but must be one of random, tpe"),
        (GRID + "[sweep]\nseed = 3", "There is no key 'seed' in [sweep]; did you mean 'seeds'?"),
        (GRID + "[sweep]\nhalving = 3", "'halving' in [sweep] is 3, but must be { min-rounds = ..., factor = ... }."),
        (GRID + "[sweep]\nhalving = { factor = 3 }", "halving lacks the key 'min-rounds'."),
        (GRID + "[sweep]\nhalving = { min-rounds = 2, factor = 1 }", "'factor' is 1, but must be a whole number"),
        (GRID + "[sweep]\nhalving = { min-rounds = 10 }", "is 10, but a run has only 10 rounds"),
        (GRID + "[sweep]\nmetric = 'clients-loss'", "'clients-loss' is never measured with federated"),
        (GRID + "[sweep]\nmetric = 'backdoor'", "'backdoor' is never measured with attack 'none': set it to"),
        ("[base]\nevaluate-every = 0\n" + GRID, "'accuracy' is never measured with evaluate-every = 0: set it to 1 or"),
        ("[base]\nfrom = 'digits-linear'\n" + GRID, "'from' in [base] is 'digits-linear', but must be a list"),
        ("[base]\nfrom = ['digit-linear']\n" + GRID, "'-c digit-linear' is neither a file"),
        ("[base]\nseed = 'x'\n" + GRID, "The key 'seed' is 'x', but must be a whole number"),
        ("[grid]\nlearning-rate = [0.1", "cannot be read as TOML"),
        ("[base]\nweighting = 'examples'\n[grid]\nstrategy = ['fedavg', 'krum']", "Krum counts every client the same"),
        ("[base]\nclient-optimizer = 'adam'\n[grid]\nstrategy = ['fedavg', 'scaffold']", "set it to 'sgd'"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        plan_of(tmp_path, text)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("elephant = 1", "A sweep file has no 'elephant'; it has name, base, grid, random, sweep, table."),
        ("grid = 3", "'grid' must be a section: [grid]."),
        ("name = '../x'\n" + GRID, "The key 'name' is '../x', but must be empty or letters"),
    ],
)
def test_mistakes_above_the_sections(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(UserError) as raised:
        read_plan(tmp_path / "s.toml", REPOSITORY, tmp_path)
    assert sentence in str(raised.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        plan_of(tmp_path, "[grid]\nlearning-rte = [1]\nseed = [1]\n[sweep]\ntrials = 0\nmetric = 'x'")
    assert len(str(raised.value).splitlines()) == 4


def test_a_seed_that_is_not_one_is_refused_by_its_own_key(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[base]\nseed = -1\n[grid]\nbatch-size = [1]\n")
    with pytest.raises(ConfigError, match="'seed' is -1"):
        read_plan(tmp_path / "s.toml", REPOSITORY, tmp_path)


def test_too_many_configurations_are_refused_at_once(tmp_path: Path) -> None:
    values = list(range(1, 101))
    keys = ("batch-size", "local-epochs", "num-clients", "clients-per-round", "min-client-examples")
    text = "[grid]\n" + "".join(f"{key} = {values}\n" for key in keys)
    with pytest.raises(ConfigError, match=f"10000000000 configurations, more than {MAX_CONFIGURATIONS}: take values"):
        plan_of(tmp_path, text)


def test_a_missing_file_and_a_missing_data_set_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no sweep file"):
        read_plan(tmp_path / "no.toml", REPOSITORY, tmp_path)
    with pytest.raises(UserError, match=r"there is no .*/nowhere.npz: correct the path"):
        plan_of(tmp_path, "[base]\ndataset = 'npz:nowhere.npz'\npartition = 'iid'\n" + GRID)


@pytest.mark.parametrize("file", sorted((REPOSITORY / "presets" / "sweeps").glob("*.toml")), ids=lambda file: file.stem)
def test_the_ready_made_sweeps_are_sound_named_and_described(file: Path, tmp_path: Path) -> None:
    plan = read_plan(file, REPOSITORY, tmp_path)
    assert file.read_text().startswith("# ")
    assert 2 <= plan.configurations <= 100
    assert plan.name != file.stem or len(plan.seeds) > 1


def test_the_examples_of_keys_exist() -> None:
    tuned = {"learning-rate", "server-learning-rate", "batch-size", "client-optimizer", "max-update-norm"}
    assert tuned <= set(RunConfig.key_names())
