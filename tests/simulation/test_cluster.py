"""Workers on two machines of a cluster, of which one is lost in the middle of a round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from app.errors import UserError
from simulation import cluster
from simulation.resources import Wish
from tests.simulation.toy_runs import inline, train

REPOSITORY = Path(__file__).resolve().parents[2]

LOST_MACHINE = """
import json, logging, sys, threading
from pathlib import Path
from ray.cluster_utils import Cluster
from simulation import cluster
from simulation.resources import Footprint, Wish, place
machines = Cluster()
machines.add_node(num_cpus=1, include_dashboard=False)
second = machines.add_node(num_cpus=1)
cluster.start(Wish(), machines.address)
from simulation.pool import WorkerPool
from tests.simulation.toy_runs import on, train
placed = place(cluster.machines(), Wish(), Footprint())
pool = WorkerPool(placed, cluster.WORKER_ENVIRONMENT, shared_memory=sys.argv[1] == "shared")
grid = on(pool, {"sleep": 0.2})

def ready(count):
    for _ in range(600):
        pool.wait(0.1)  # the processes of a lost machine live on until they notice, which may take a second
        if (found := sum(worker.ready for worker in pool.workers)) == count:
            break
    return found

counts = [ready(2)]
lose = threading.Timer(0.2, lambda: machines.remove_node(second, allow_graceful=False))
lose.start()  # in the first round, whose 12 clients take 0.2 s each on two workers
digest, records = train(grid, rounds=3, clients_per_message=1)
lose.join()
counts.append(ready(1))
machines.add_node(num_cpus=1)
counts.append(ready(2))
told = {"workers": placed.workers, "digest": digest, "ready": counts, "accepted": [len(r.accepted) for r in records]}
Path(sys.argv[2]).write_text(json.dumps(told))
cluster.stop()
machines.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["shared", "store"])
def test_a_machine_lost_within_a_round_changes_nothing_and_another_takes_its_place(tmp_path: Path, way: str) -> None:
    """The store's way is how arrays go to other machines: here both are one, on which shared memory would be chosen."""
    file, log = tmp_path / "told.json", tmp_path / "log"
    # Ray writes down a cluster's address, and Flower's simulations of other tests would join it; paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as own, log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-c", LOST_MACHINE, way, str(file)],
            cwd=REPOSITORY, env={**os.environ, **cluster.QUIET, "RAY_TMPDIR": own},
            stdout=output, stderr=output, check=False, timeout=250,
        )  # fmt: skip
    assert done.returncode == 0, log.read_text()[-3000:]
    told = json.loads(file.read_text())
    assert told["workers"] == 2 and told["ready"] == [2, 1, 2]
    assert told["digest"] == train(inline())[0]
    assert told["accepted"] == [0, 12, 12, 12]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:6379", "127.0.0.1:port"])
def test_an_address_without_a_cluster_is_refused_in_words(address: str) -> None:
    program = f"from simulation.cluster import start, Wish; start(Wish(), '{address}')"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert UserError.__name__ in done.stderr
    assert f"There is no Ray cluster at --ray-address '{address}'" in done.stderr


def test_this_machine_is_one_of_the_cluster(ray_here: None) -> None:
    here = cluster.this_machine()
    (machine,) = cluster.machines()
    assert machine.cores >= here.cores >= 1
    assert 0 < machine.memory <= here.memory
    cluster.start(Wish(), "ignored, as this process is in a cluster already")
