"""Whatever reads the data first, a worker trains with one thread: convolutions have other bits with more."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

SCRIPT = """
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
from app.client import app, _worker
from app.config import RunConfig
from app.simulated_process import simulated_here
config = RunConfig.from_run_config(
    {"dataset": "tasks.datasets.demo:digits_silos", "partition": "natural", "clients-per-round": 0}
).to_run_config()
context = Context(1, 1, {"partition-id": 0, "num-partitions": 1}, RecordDict(), config)
def ask(kind, **records):
    with simulated_here():
        return app(Message(RecordDict(records), 1, kind), context).content
ask("query.describe", config=ConfigRecord({}))
from strategies import wire
weights = wire.array_record({w.path: w.numpy() for w in _worker(context).task.build_model().weights})
settings = {"clients": ["east"], "seeds": [5], "round": 1, "learning-rate": 0.1}
reply = ask("train", arrays=weights, config=ConfigRecord(settings))
import tensorflow as tf
print(tf.config.threading.get_intra_op_parallelism_threads(), reply["update"].object_id)
"""


def test_a_cold_and_a_warm_cache_give_the_same_bits(tmp_path: Path) -> None:
    environment = {**os.environ, "FEDKERAS_CACHE": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    lines = []
    for _ in range(2):
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        lines.append(done.stdout.splitlines()[-1])
    assert lines[0] == lines[1]
    assert lines[0].startswith("1 ")
