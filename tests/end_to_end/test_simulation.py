"""``fedkeras run`` with real Flower processes: the same bits everywhere, and honest ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.app.inline_runs import one_thread_digests
from tests.end_to_end.conftest import Flower

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHORT = {"num-rounds": 3, "clients-per-round": 7, "federated-evaluate-every": 0}


def short(**more: object) -> list[str]:
    changes = {**SHORT, **{key.replace("_", "-"): value for key, value in more.items()}}
    return [word for key, value in changes.items() for word in ("-c", f"{key}={value}")]


def test_workers_packing_and_engine_do_not_show_in_a_bit_of_the_model(flower: Flower, tmp_path: Path) -> None:
    digests = []
    for workers, pack in ((2, 1), (1, 0)):
        ended = flower.fedkeras("run", "--workers", str(workers), *short(clients_per_message=pack))
        assert ended.code == 0, ended.output
        assert_only_our_lines(ended.output)
        left = flower.latest()
        assert left.json("status.json")["state"] == "completed"
        assert [record["accepted"] for record in left.records()] == [0, 7, 7, 7]
        digests.append(left.digest())
    assert len({*digests, *one_thread_digests(tmp_path, [(SHORT, 3)])}) == 1


def assert_only_our_lines(output: str) -> None:
    """No noise of Flower, Ray, TensorFlow or Python's warnings."""
    starts = ("Starting on ", "run directory: ", "Strategy fedavg", *["round "] * 4, "Report: ", "Finished 3 rounds: ")
    lines = output.splitlines()
    assert len(lines) == len(starts), output
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True)), output


def test_a_broken_file_ends_the_run_with_a_sentence(flower: Flower) -> None:
    (flower.user / "bad.npz").write_bytes(b"PK\x03\x04 and then nothing")
    ended = flower.fedkeras("run", "--workers", "1", *short(), "-c", "dataset=npz:bad.npz")
    assert ended.code == 1
    assert "Traceback" not in ended.output
    errors = [line for line in ended.output.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1, ended.output
    assert str(flower.user / "bad.npz") in errors[0]
    assert ended.output.splitlines()[-1] == "The run failed."
    assert flower.runs()[0]["status"] == "finished:failed"
    status = flower.latest().json("status.json")
    assert (status["state"], errors[0]) == ("failed", f"ERROR: {status['message']}")


def test_control_c_stops_the_run_and_leaves_its_directory(flower: Flower) -> None:
    process = flower.start("fedkeras", "run", "--workers", "1", *short(num_rounds=10_000))
    output = ""
    assert process.stdout is not None
    for line in process.stdout:
        output += line
        if line.startswith("round ") and "clients" in line:
            os.killpg(process.pid, signal.SIGINT)
            break
    output += process.stdout.read()
    assert process.wait() == 130, output
    assert "Traceback" not in output
    left = flower.latest()
    assert str(left.directory.path) in output.splitlines()[-1]
    status, records = left.json("status.json"), left.records()
    assert status["state"] == "interrupted"
    assert [record["round"] for record in records] == list(range(len(records)))
    assert len(records) > 1
    assert "<svg" in left.directory.report.read_text()
    assert all(run["status"].startswith("finished") for run in flower.runs())
