"""The overrides of pyproject.toml join packages whose declared ranges exclude each other: here is what must work."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

SCRIPT = """
import sys
sys.skip_tf_privacy_import = True  # the package's own hook: the rest of it needs Keras 2
import tensorflow as tf
from tensorflow_privacy.privacy.dp_query import gaussian_query, quantile_adaptive_clip_sum_query, tree_aggregation_query
query = gaussian_query.GaussianSumQuery(l2_norm_clip=1.0, stddev=0.0)
state = query.initial_global_state()
record = tf.constant([3.0, 4.0])
clipped = query.preprocess_record(query.derive_sample_params(state), record)
total, _, _ = query.get_noised_result(query.accumulate_preprocessed_record(tf.zeros(2), clipped), state)
assert abs(float(total[0]) - 0.6) < 1e-6 and abs(float(total[1]) - 0.8) < 1e-6
import dp_accounting
"""


def test_the_queries_of_tensorflow_privacy_run_under_keras_3() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_override_is_still_needed() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    overridden = {re.split("[^a-z-]", line)[0] for line in project["tool"]["uv"]["override-dependencies"]}
    declared = {re.split("[^a-z-]", line)[0] for line in metadata.requires("tensorflow-privacy") or ()}
    assert overridden <= declared
