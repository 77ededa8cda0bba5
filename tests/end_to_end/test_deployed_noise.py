"""A real SuperNode whose config looks like a simulation's: its clients' noise is not the seed's, which others know."""

from __future__ import annotations

import pytest

from app.flower_commands import ENVIRONMENT
from tests.end_to_end.conftest import Flower, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LOOKS_SIMULATED = "partition-id=0 num-partitions=1"
PRIVATE = (
    *("num-clients=2", "clients-per-round=2", "num-rounds=1", "model=logistic", "local-steps=2", "seed=5"),
    *("dp-sgd-clip=1", "federated-evaluate-every=0"),
)


def test_two_runs_of_one_seed_differ_on_a_supernode(flower: Flower) -> None:
    server, node = (f"127.0.0.1:{free_port()}" for _ in range(2))
    host, port = server.split(":")
    flower.start("flower-superlink", "--insecure", "--host", host, "--port", port, **ENVIRONMENT)
    own = ("--host", node.split(":")[0], "--port", node.split(":")[1], "--node-config", LOOKS_SIMULATED)
    flower.start("flower-supernode", "--insecure", "--superlink", server, *own, **ENVIRONMENT)
    settings = flower.home / ".flwr" / "config.toml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(f'[superlink.mine]\naddress = "{server}"\ninsecure = true\n', encoding="utf-8")
    overrides = [word for pair in PRIVATE for word in ("-c", pair)]
    digests = []
    for _ in range(2):
        ended = flower.fedkeras("run", "mine", *overrides)
        assert ended.code == 0, ended.output
        left = flower.latest()
        assert [record["accepted"] for record in left.records()] == [0, 2]
        digests.append(left.digest())
    assert len(set(digests)) == 2
