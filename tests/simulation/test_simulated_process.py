"""Clients in Ray's actors are simulated: those of our pool, and those of Flower's own engine. A driver's are not."""

from __future__ import annotations

import ray
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.simulation.ray_transport.ray_actor import ClientAppActor

from app.simulated_process import in_simulation
from simulation.grid import RayGrid
from simulation.pool import WorkerPool

app = ClientApp()


@app.query("simulated")
def simulated(message: Message, context: Context) -> Message:
    """Say whether this process is certain to be a simulation's."""
    return Message(RecordDict({"metrics": MetricRecord({"simulated": int(in_simulation())})}), reply_to=message)


def test_workers_of_the_pool_are_and_the_process_that_drives_them_is_not(pool: WorkerPool) -> None:
    grid = RayGrid(pool, f"{__name__}:app", {}, 0)
    requests = [Message(RecordDict(), node, "query.simulated") for node in grid.get_node_ids()]
    replies = list(grid.send_and_receive(requests, timeout=60))
    assert [reply.content["metrics"]["simulated"] for reply in replies] == [1] * len(requests)
    assert ray.is_initialized() and not in_simulation()


def test_actors_of_flowers_engine_are(pool: WorkerPool) -> None:
    RayGrid(pool, f"{__name__}:app", {}, 0)  # gives this process the identity that messages ask for
    actor = ClientAppActor.options(num_cpus=0).remote()  # type: ignore[attr-defined]
    context = Context(1, 1, {"partition-id": 0, "num-partitions": 1}, RecordDict(), {})
    request = Message(RecordDict(), 1, "query.simulated")
    try:
        client, reply, _ = ray.get(actor.run.remote(lambda: app, request, "0", context), timeout=60)
    finally:
        ray.kill(actor)
    assert client == "0" and reply.content["metrics"]["simulated"] == 1
