"""The grid on Ray workers, with a toy ClientApp: the inline engine's bits, however packed, through every fault."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode

from simulation import cluster
from simulation.grid import RayGrid
from simulation.pool import WorkerPool
from simulation.resources import Placement
from simulation.world import WorldGrid
from strategies.exchange import ArrivalGrid
from strategies.requests import RequestWriter
from tests.simulation.toy_app import IDS, start_arrays
from tests.simulation.toy_runs import ask, inline, on, train, until_all_answer
from tests.simulation.worlds import conditions


@pytest.fixture(scope="module")
def undisturbed() -> str:
    return train(inline())[0]


def faults(folder: Path, *names: str) -> dict[str, str]:
    for name in names:
        (folder / name).touch()
    return {"faults": str(folder)}


def test_it_hands_replies_on_as_they_arrive(pool: WorkerPool) -> None:
    assert isinstance(on(pool), ArrivalGrid)


@pytest.mark.parametrize("per_message", [0, 1, 5])
def test_any_packing_gives_the_model_of_the_inline_engine(pool: WorkerPool, undisturbed: str, per_message: int) -> None:
    assert train(on(pool), clients_per_message=per_message)[0] == undisturbed


@pytest.mark.parametrize(("workers", "shared_memory"), [(1, True), (1, False)])
def test_so_does_any_number_of_workers_and_ray_s_own_store(
    ray_here: None, undisturbed: str, workers: int, shared_memory: bool
) -> None:
    single = WorkerPool(Placement(workers, num_cpus=0.5), cluster.WORKER_ENVIRONMENT, shared_memory)
    digest, records = train(on(single), federated_evaluate_every=3)
    single.close()
    assert digest == undisturbed
    assert records[-1].federated == train(inline(), federated_evaluate_every=3)[1][-1].federated


def test_each_node_has_its_worker_and_each_run_a_context_of_its_own_on_the_same_warm_workers(pool: WorkerPool) -> None:
    first = on(pool)
    once, twice = ask(first), ask(first)
    assert [answer["node"] for answer in once] == [0, 1]
    assert len({answer["pid"] for answer in once}) == 2
    assert [answer["times"] for answer in twice] == [2, 2]
    again = ask(on(pool))
    assert [answer["times"] for answer in again] == [1, 1]
    assert [answer["pid"] for answer in again] == [answer["pid"] for answer in once]


def test_there_can_be_more_nodes_than_workers(pool: WorkerPool, undisturbed: str) -> None:
    grid = on(pool, nodes=5)
    assert list(grid.get_node_ids()) == [1, 2, 3, 4, 5]
    assert len({answer["pid"] for answer in ask(grid)}) == 2
    assert train(on(pool, nodes=5))[0] == undisturbed


def test_packs_are_one_per_worker_until_a_round_was_measured_and_then_no_shorter_than_a_message_is_worth(
    pool: WorkerPool,
) -> None:
    cohort = [(client, 10.0) for client in IDS]
    assert [len(clients) for _, clients in on(pool).packs(cohort)] == [6, 6]
    slow = on(pool, {"sleep": 0.06})
    train(slow, rounds=2)
    sizes = [len(clients) for _, clients in slow.packs([(client, 43.0) for client in IDS * 1])]
    assert sizes[0] < 6 and len(sizes) > 2 and sum(sizes) == 12
    quick = on(pool)
    train(quick, rounds=2)
    assert [len(clients) for _, clients in quick.packs(cohort)] == [6, 6]


def test_every_record_of_a_round_is_laid_out_once_however_many_messages_carry_it(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid, share = [], pool.share
    monkeypatch.setattr(pool, "share", lambda record: laid.append(record) or share(record))
    weights, beside = start_arrays(10), start_arrays(10)
    writer = RequestWriter("train", 1, 0, weights, {}, {"control": beside})
    on(pool).push_messages([writer.write(1 + place % 2, [client]) for place, client in enumerate(IDS)])
    assert laid == [weights, beside]


@pytest.mark.parametrize("per_message", [0, 1])
def test_a_worker_killed_by_a_client_once_changes_nothing(
    pool: WorkerPool, undisturbed: str, tmp_path: Path, per_message: int
) -> None:
    config = faults(tmp_path, "kill-1-c03", "kill-3-c11")
    digest, records = train(on(pool, config), clients_per_message=per_message)
    assert list(tmp_path.iterdir()) == []
    assert digest == undisturbed
    assert [len(record.accepted) for record in records[1:]] == [12, 12, 12]


def test_a_worker_killed_while_it_evaluates_changes_nothing(pool: WorkerPool, tmp_path: Path) -> None:
    config = faults(tmp_path, "kill-0-c05")
    _, records = train(on(pool, config), rounds=1, federated_evaluate_every=1)
    assert list(tmp_path.iterdir()) == []
    assert records[-1].federated == train(inline(), rounds=1, federated_evaluate_every=1)[1][-1].federated


def test_a_client_that_always_kills_its_worker_costs_itself_and_nobody_else(pool: WorkerPool) -> None:
    digest, records = train(on(pool, {"kill-always": "c03"}), rounds=2)
    assert digest == train(inline({"raise-always": "c03"}), rounds=2)[0]
    for record in records[1:]:
        assert set(record.accepted) == set(IDS) - {"c03"}
        assert record.rejected == {"error": 1}


def test_a_worker_killed_from_outside_is_replaced(pool: WorkerPool, undisturbed: str) -> None:
    (victim, _) = ask(on(pool))
    os.kill(victim["pid"], signal.SIGKILL)
    assert train(on(pool))[0] == undisturbed
    assert victim["pid"] not in {answer["pid"] for answer in ask(on(pool))}


def test_what_hangs_beyond_its_time_is_replaced_and_the_next_rounds_go_on(pool: WorkerPool, tmp_path: Path) -> None:
    grid = on(pool, faults(tmp_path, "hang-1-c00"))
    config = ConfigRecord({"clients": ["c00"], "seeds": [1], "round": 1})
    hung = Message(RecordDict({"arrays": start_arrays(), "config": config}), 1, "train", ttl=1.0)
    ids = list(grid.push_messages([hung]))
    assert grid.next_arrivals(ids, 0.8) == []
    assert list(tmp_path.iterdir()) == []
    time.sleep(0.3)
    assert len(until_all_answer(grid, 2)) == 2


def test_late_clients_are_counted_and_what_nobody_began_does_not_hold_up_the_next_round(pool: WorkerPool) -> None:
    """A second is enough for at most eight clients; of those that were late, each worker finishes two at most."""
    until_all_answer(on(pool), 2)
    _, records = train(on(pool, {"sleep": 0.25}), rounds=3, timeout=1.0, clients_per_message=1)
    for record in records[1:]:
        assert record.rejected["late"] + len(record.accepted) == 12
        assert record.rejected["late"] >= 4
        assert len(record.accepted) >= 1


def test_a_late_message_that_is_asked_for_again_is_answered(pool: WorkerPool) -> None:
    grid = on(pool, {"sleep": 0.2})
    config = ConfigRecord({"clients": ["c00"], "seeds": [1], "round": 1})
    content = RecordDict({"arrays": start_arrays(), "config": config})
    open_ids = set(grid.push_messages([Message(content, 1, "train") for _ in range(8)]))
    assert grid.next_arrivals(open_ids, 0.01) == []
    while open_ids:
        replies = grid.next_arrivals(open_ids, 60.0)
        assert replies and all(reply.has_content() for reply in replies)
        open_ids -= {reply.metadata.reply_to_message_id for reply in replies}


def test_late_replies_that_nobody_asks_for_are_not_kept(pool: WorkerPool) -> None:
    grid = on(pool, {"sleep": 0.1})
    for number in range(1, 6):
        config = ConfigRecord({"clients": ["c00"], "seeds": [1], "round": number})
        late = Message(RecordDict({"arrays": start_arrays(), "config": config}), 1, "train", ttl=0.4)
        assert grid.next_arrivals(list(grid.push_messages([late])), 0.05) == []
        ask(grid)  # meanwhile the reply arrives
    time.sleep(0.4)
    ask(grid)
    list(grid.push_messages([]))
    assert len(grid._arrived) == 0


def test_in_a_simulated_world_no_reply_is_late_by_the_clock_on_the_wall(pool: WorkerPool) -> None:
    grid = WorldGrid(on(pool, {"sleep": 0.2}), conditions())
    config = ConfigRecord({"clients": ["c00"], "seeds": [1], "round": 1})
    content = RecordDict({"arrays": start_arrays(), "config": config})
    replies = list(grid.send_and_receive([Message(content, 1, "train", ttl=0.5) for _ in range(8)]))
    assert len(replies) == 8 and all(reply.has_content() for reply in replies)


def test_an_app_that_cannot_be_imported_is_an_error_reply(pool: WorkerPool) -> None:
    grid = RayGrid(pool, "tests.simulation.no_such_module:app", {})
    (reply,) = grid.send_and_receive([Message(RecordDict({}), 1, "train")], timeout=60)
    assert reply.error.code == ErrorCode.LOAD_CLIENT_APP_EXCEPTION
    assert "no_such_module" in (reply.error.reason or "")


def test_what_a_run_left_behind_does_not_disturb_the_next(pool: WorkerPool, undisturbed: str) -> None:
    left = on(pool, {"sleep": 0.2})
    config = ConfigRecord({"clients": ["c00"], "seeds": [1], "round": 1})
    list(left.push_messages([Message(RecordDict({"config": config}), 1, "train") for _ in range(4)]))
    assert train(on(pool))[0] == undisturbed


def test_pulling_and_unknown_messages_do_not_wait(pool: WorkerPool) -> None:
    grid = on(pool)
    assert list(grid.pull_messages(["no such message"])) == []
    assert grid.next_arrivals(["no such message"], 0.05) == []
