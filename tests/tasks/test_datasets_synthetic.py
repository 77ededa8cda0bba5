"""Synthetic(alpha, beta) against the test parts that its authors published, and against closed forms.

The authors' test part of a device is the last n - int(0.9 n) of its n examples. Each comparison says at which p-value
it refuses; with fixed seeds the outcome never changes, and a right generator had that chance of being refused.
"""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from tasks.datasets import DataSpec, load_data
from tasks.datasets.synthetic import Heterogeneity, device_size, generate_device
from tasks.errors import TaskError
from tasks.partition import Partition

P = 1e-4
PUBLISHED = {"": "1_1", ":0.5,0.5": "0p5_0p5", ":0,0": "0_0", ":iid": "iid"}
DECAY = np.arange(1, 61) ** 1.2


@pytest.fixture(scope="module")
def published(shared_data):
    """By name, the devices' (x, y)."""
    with np.load(shared_data / "fedprox_synthetic" / "fedprox_official_test_splits.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return {
        name: [
            (arrays[f"synthetic_{name}_x"][mine], arrays[f"synthetic_{name}_y"][mine])
            for mine in (arrays[f"synthetic_{name}_client"] == device for device in range(30))
        ]
        for name in PUBLISHED.values()
    }


def synthetic(argument, devices, **others):
    fractions = {"test_fraction": 0.0, "client_test_fraction": 0.1, **others}
    return load_data(DataSpec("synthetic" + argument, Partition(num_clients=devices), **fractions))


def test_parts():
    data = synthetic("", 30)
    assert (data.num_classes, data.input_shape) == (10, (60,))
    assert data.client_ids == tuple(map(str, range(30)))
    assert len(data.central_test()) == 0
    assert len(synthetic("", 30, test_fraction=0.2).central_test()) > 0
    whole = [data.num_train(client) + len(data.test(client)) for client in data.client_ids]
    assert whole == [device_size(device, seed=0) for device in range(30)]


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "quantity", "natural"])
def test_devices_are_the_clients_whatever_the_partition(kind):
    data = load_data(DataSpec("synthetic", Partition(kind, 30)))
    reference = load_data(DataSpec("synthetic", Partition(num_clients=30)))
    np.testing.assert_array_equal(data.train("7").x, reference.train("7").x)


def test_the_sizes_are_distributed_as_published(published):
    """Two-sample Kolmogorov-Smirnov on the sizes of the test parts, the published ones of all four sets together."""
    theirs = [len(y) for devices in published.values() for _, y in devices]
    sizes = np.array([device_size(device, seed=0) for device in range(3000)])
    assert stats.ks_2samp(theirs, sizes - (0.9 * sizes).astype(int)).pvalue > P


def test_the_sizes_have_the_law_of_the_generator():
    sizes = np.array([device_size(device, seed=0) for device in range(3000)])
    smooth = sizes - 50 + np.random.default_rng(0).random(3000)  # undoes the rounding down
    assert stats.kstest(smooth, stats.lognorm(s=2, scale=np.exp(4)).cdf).pvalue > P


@pytest.mark.parametrize("argument", PUBLISHED)
def test_features_vary_within_a_device_as_published(argument, published):
    """Pooled variance within devices: an F test per feature, 60 at once; and chi-squared against that of the paper."""
    data = synthetic(argument, 30)
    (theirs, their_freedom), (ours, our_freedom) = map(
        pooled_variance, ([x for x, _ in published[PUBLISHED[argument]]], [data.train(c).x for c in data.client_ids])
    )
    law = stats.f(our_freedom, their_freedom)
    p = 2 * np.minimum(law.cdf(ours / theirs), law.sf(ours / theirs))
    assert p.min() > P / 60
    chi2 = (ours * DECAY).sum() * our_freedom
    assert 2 * min(stats.chi2(60 * our_freedom).cdf(chi2), stats.chi2(60 * our_freedom).sf(chi2)) > P


def pooled_variance(devices):
    freedom = sum(map(len, devices)) - len(devices)
    return sum(((x.astype(float) - x.mean(axis=0, dtype=float)) ** 2).sum(axis=0) for x in devices) / freedom, freedom


@pytest.mark.parametrize("argument", [":0,0", ":0.5,0.5", ""])
def test_devices_centres_spread_as_published(argument, published):
    """F tests of the centres' spread between devices (B_k and its mean) and within one (v_k around B_k)."""
    data = synthetic(argument, 200)
    theirs = np.array([x.mean(axis=0) for x, _ in published[PUBLISHED[argument]]])
    ours = np.array([data.train(client).x.mean(axis=0) for client in data.client_ids])
    between = ours.mean(axis=1).var(ddof=1) / theirs.mean(axis=1).var(ddof=1)
    assert P / 2 < stats.f(199, 29).cdf(between) < 1 - P / 2
    within = ours.var(axis=1, ddof=1).mean() / theirs.var(axis=1, ddof=1).mean()
    assert P / 2 < stats.f(200 * 59, 30 * 59).cdf(within) < 1 - P / 2


def test_iid_devices_have_all_the_same_centre():
    data = synthetic(":iid", 50)
    for client in data.client_ids:
        x = data.train(client).x
        z = x.mean(axis=0) * np.sqrt(len(x) * DECAY)  # standard normal
        assert P / 50 < stats.chi2(60).sf((z**2).sum()) < 1 - P / 50


@pytest.mark.parametrize("argument", PUBLISHED)
def test_labels_are_skewed_as_published(argument, published):
    """The share of a device's most frequent label, in test parts of the same sizes: two-sample Kolmogorov-Smirnov."""
    theirs = published[PUBLISHED[argument]]
    heterogeneity = {":iid": Heterogeneity(iid=True), ":0,0": Heterogeneity(0, 0), "": Heterogeneity()}.get(
        argument, Heterogeneity(0.5, 0.5)
    )
    ours = [
        # One model for all in the iid set: as many sets as there are seeds, or its one model would decide.
        generate_device(heterogeneity, device, len(y), seed=turn)[1]
        for turn in range(10)
        for device, (_, y) in enumerate(theirs)
    ]
    shares = [[np.bincount(y).max() / len(y) for y in labels] for labels in ([y for _, y in theirs], ours)]
    assert stats.ks_2samp(*shares).pvalue > P


def test_alpha_and_beta_are_standard_deviations():
    """Of 1,500 devices with 2 and 0.5 the mean of v_k is N(0, 0.5 ** 2 + 1/60); chi-squared."""
    means = [generate_device(Heterogeneity(2, 0.5), device, 1, seed=0)[0].mean() for device in range(1500)]
    noise = (1 / DECAY).sum() / 60**2  # of the one example around v_k
    chi2 = np.square(means).sum() / (0.25 + 1 / 60 + noise)
    assert P / 2 < stats.chi2(1500).cdf(chi2) < 1 - P / 2


def test_a_devices_labels_come_from_one_linear_model_without_noise():
    x, y = generate_device(Heterogeneity(), 4, 1500, seed=0)
    assert len(set(y.tolist())) > 1
    fitted = LogisticRegression(C=1e6, max_iter=3000).fit(x, y)
    assert fitted.score(x, y) > 0.995


def test_one_model_labels_all_iid_devices():
    first, second = (generate_device(Heterogeneity(iid=True), device, 2000, seed=0) for device in (0, 1))
    fitted = LogisticRegression(C=100, max_iter=200).fit(*first)
    assert fitted.score(*second) > 0.9  # all but what lies close to the border between two labels
    assert not np.array_equal(first[0], second[0])


def test_devices_are_the_same_whatever_their_number_and_others_with_another_seed():
    few, many, other = synthetic("", 3), synthetic("", 20), synthetic("", 3, seed=1)
    np.testing.assert_array_equal(few.train("2").x, many.train("2").x)
    assert few.num_train("2") != other.num_train("2")


@pytest.mark.parametrize("argument", [":1", ":1,2,3", ":a,b", ":-1,0", ":nan,1", ":inf,1", ":IID"])
def test_mistakes(argument):
    with pytest.raises(TaskError, match="must be 'synthetic', 'synthetic:ALPHA,BETA' with two numbers from 0"):
        synthetic(argument, 3)


def test_more_than_fits_in_memory_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr("tasks.datasets.synthetic.MOST_EXAMPLES", 1000)
    with pytest.raises(TaskError, match=r"num-clients=30 has .* examples, but at most 1000 .*: lower 'num-clients'"):
        synthetic("", 30)
