"""Sinks: the log line, lines that survive a kill, and event files that TensorBoard itself reads."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from app.log_line import log_line
from app.run_directory import RunDirectory
from app.sinks import Background, ClientsJsonLines, JsonLines, LogLine, Sink, TensorBoard, run_sinks, scalars
from app.units import human_bytes, human_seconds, percent
from strategies.privacy.spending import Spending
from strategies.records import ClientScores, RoundRecord

SCORES = ClientScores(("a", "b"), (1, 3), (2.0, 1.0), (0.5, 1.0))
FULL = RoundRecord(
    round=3,
    selected=("a", "b", "c", "d"),
    accepted=("a", "b"),
    rejected={"norm": 1, "late": 1},
    learning_rate=0.1,
    train={"loss": 0.51234, "accuracy": 0.8},
    central={"loss": 0.4, "accuracy": 0.9512},
    federated=SCORES,
    bytes_down=1_250_000,
    bytes_up=900,
    seconds={"train": 0.25, "total": 0.534},
)
WRITER = """
import sys
from pathlib import Path
from app.sinks import JsonLines
from strategies.records import RoundRecord
sink = JsonLines(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(1, 10**9):
    sink.round(RoundRecord(number, train={f"metric-{k}": 0.1 * k for k in range(2000)}))
"""


def test_the_log_line_of_a_whole_round() -> None:
    assert log_line(FULL, 30) == (
        "round  3/30 | train loss 0.5123 | central accuracy 95.1 % | clients 87.5 %, worst tenth 50.0 % | "
        "2/4 clients (rejected: 1 late, 1 norm) | 1.2 MB down, 900 B up | 0.53 s"
    )


def test_the_log_line_leaves_out_what_a_round_lacks() -> None:
    assert log_line(RoundRecord(0, central={"loss": 2.3}), 5) == "round 0/5 | initial model"
    assert (
        log_line(RoundRecord(0, central={"accuracy": 0.1}), 5) == "round 0/5 | initial model | central accuracy 10.0 %"
    )
    skipped = RoundRecord(2, selected=("a",), rejected={"late": 1}, skipped=True, train={"loss": float("nan")})
    assert log_line(skipped, 5) == (
        "round 2/5 | train loss nan | 0/1 clients (rejected: 1 late) | SKIPPED, the model stays"
    )


def test_one_line_per_round_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    sink = LogLine(logging.getLogger("rounds"), 30)
    with caplog.at_level(logging.INFO, logger="rounds"):
        sink.round(FULL)
        sink.round(RoundRecord(4, rejected={"100%s": 1}, selected=("a",)))
    sink.close()
    assert caplog.records[0].message == log_line(FULL, 30)
    assert "100%s" in caplog.records[1].message


def test_metrics_lines_are_the_records(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonLines(path)
    assert path.read_bytes() == b""
    sink.round(FULL)
    assert json.loads(path.read_text()) == FULL.to_json()
    sink.round(RoundRecord(4, train={"loss": float("nan")}))
    sink.close()
    sink.close()
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[1], parse_constant=pytest.fail)["train"] == {"loss": "NaN"}


def test_clients_lines_only_where_clients_evaluated(tmp_path: Path) -> None:
    path = tmp_path / "clients.jsonl"
    sink = ClientsJsonLines(path)
    sink.round(RoundRecord(1))
    sink.round(FULL)
    sink.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"round": 3, "clients": ["a", "b"], "examples": [1, 3], "losses": [2.0, 1.0], "accuracies": [0.5, 1.0]}
    ]


@pytest.mark.parametrize("torn", [b'{"round":2,"tr', b'{"round":2}', b"\0" * 200_000])
def test_a_torn_last_line_is_dropped_when_the_file_is_continued(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = b'{"round":1}\n'
    for content, kept in ((whole + torn, whole), (torn, b""), (whole, whole)):
        path.write_bytes(content)
        sink = JsonLines(path)
        sink.round(RoundRecord(2))
        sink.close()
        assert path.read_bytes().startswith(kept + b'{"round":2,')
        assert path.read_bytes().count(b"\n") == kept.count(b"\n") + 1


def test_a_line_that_does_not_fit_on_the_disk_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonLines(path)
    sink.round(RoundRecord(1))
    before = path.read_bytes()
    pwrite, calls = os.pwrite, []

    def fills_up(descriptor: int, data: bytes, offset: int) -> int:
        calls.append(offset)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, data[:10], offset)

    monkeypatch.setattr(os, "pwrite", fills_up)
    with pytest.raises(OSError, match="No space left"):
        sink.round(RoundRecord(2))
    assert path.read_bytes() == before
    monkeypatch.undo()
    sink.round(RoundRecord(2))
    sink.close()
    assert [json.loads(line)["round"] for line in path.read_text().splitlines()] == [1, 2]


def test_each_line_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    sink = JsonLines(tmp_path / "metrics.jsonl")
    sink.round(RoundRecord(1))
    assert synced == [(tmp_path / "metrics.jsonl").stat().st_size]
    sink.close()


@pytest.mark.parametrize("delay", [0.01, 0.05, 0.09])
def test_kill_9_in_mid_run_leaves_whole_lines(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "metrics.jsonl"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    *lines, torn = path.read_bytes().split(b"\n")
    assert [json.loads(line)["round"] for line in lines] == list(range(1, len(lines) + 1))
    sink = JsonLines(path)
    sink.round(RoundRecord(len(lines) + 1))
    sink.close()
    numbers = [json.loads(line)["round"] for line in path.read_text().splitlines()]
    assert numbers == list(range(1, len(lines) + 2)), torn


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path / "tensorboard")
    for number in (0, 3):
        sink.round(replace(FULL, round=number))
    sink.round(RoundRecord(4, central={"loss": float("nan"), "accuracy": 1.0}))
    sink.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == set(scalars(FULL)) | {"central/loss"}
    for tag, value in scalars(FULL).items():
        first, second = events.Scalars(tag)[:2]
        assert (first.step, second.step) == (0, 3)
        assert first.value == pytest.approx(value, rel=1e-6)
        assert abs(first.wall_time - time.time()) < 60
    assert [event.step for event in events.Scalars("central/accuracy")] == [0, 3, 4]


def test_tensorboard_shows_what_was_spent_and_why_it_is_no_privacy(tmp_path: Path) -> None:
    noise = {"clipping-norm": 0.5, "noise-multiplier": 0.0, "noise-deviation": 0.0}
    spent = Spending(float("inf"), 1e-5, "RDP", "add or remove one", "poisson", 0.1, 2, None, noise, "has no privacy")
    sink = TensorBoard(tmp_path)
    for number in (1, 2):
        sink.round(RoundRecord(number, privacy=spent))
    sink.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    (label,) = events.Tensors("privacy/caveat")
    assert list(label.tensor_proto.string_val) == [b"The run has no privacy."]
    assert events.SummaryMetadata("privacy/caveat").plugin_data.plugin_name == "text"
    assert [event.value for event in events.Scalars("privacy/epsilon")] == [float("inf")] * 2
    assert [event.value for event in events.Scalars("privacy/clipping-norm")] == [0.5] * 2
    named = {tag.removeprefix("privacy/") for tag in events.Tags()["scalars"] if tag.startswith("privacy/")}
    assert named == {"epsilon", "delta", "sampling-rate", "releases", *noise}


def test_tensorboard_reads_along_while_the_run_goes_on(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path)
    events = EventAccumulator(str(tmp_path))
    for number in (1, 2):
        sink.round(RoundRecord(number, train={"loss": 1.0}))
        assert len(events.Reload().Scalars("train/loss")) == number
    sink.close()


def test_two_event_files_in_one_second_do_not_clash(tmp_path: Path) -> None:
    for _ in range(3):
        TensorBoard(tmp_path).close()
    assert len(list(tmp_path.iterdir())) == 3


def test_scalars_have_names_by_group() -> None:
    named = scalars(FULL)
    assert named["rejected/late"] == 1
    assert named["bytes/down"] == 1_250_000
    assert named["federated/accuracy-worst-10"] == 0.5
    assert named["clients/participation"] == 0.5
    assert named["train/learning-rate"] == 0.1
    assert "federated/accuracy-deciles" not in named
    assert scalars(RoundRecord(0))["clients/accepted"] == 0
    diverse = RoundRecord(1, offered=9, diversity={"regions": {"effective": 1.5, "groups": {}}}, norms=(1.0, 2.0, 4.0))
    named = scalars(diverse)
    assert (named["clients/offered"], named["diversity/regions"]) == (9, 1.5)
    assert (named["update-norms/median"], named["update-norms/updates"]) == (2.0, 3)


def test_a_run_has_every_sink(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = RunDirectory.create(tmp_path, "x", datetime(2025, 1, 1))
    sinks: tuple[Sink, ...] = run_sinks(directory, logging.getLogger("rounds"), 30)
    with caplog.at_level(logging.INFO, logger="rounds"):
        for sink in sinks:
            sink.round(FULL)
            sink.close()
    assert {path.name for path in directory.path.iterdir()} == {"metrics.jsonl", "clients.jsonl", "tensorboard"}
    assert len(caplog.records) == 1


def test_the_sinks_import_neither_tensorflow_nor_matplotlib(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from app.sinks import TensorBoard; import app.run_directory;"
        "sink = TensorBoard(Path(sys.argv[1])); sink.close();"
        "sys.exit(', '.join({'tensorflow', 'matplotlib', 'flwr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") or done.stderr == "\n"


UNITS: list[tuple[Any, float, str]] = [
    *((human_bytes, count, text) for count, text in [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1.3e6, "1.3 MB")]),
    *((human_bytes, count, text) for count, text in [(734e6, "734 MB"), (2.5e9, "2.5 GB"), (3e15, "3000 TB")]),
    *((human_bytes, count, text) for count, text in [(999_949, "1.0 MB"), (99_960, "100 kB")]),
    *((human_seconds, s, text) for s, text in [(0.424, "0.42 s"), (17.4, "17 s"), (59.7, "1 min 00 s")]),
    *((human_seconds, s, text) for s, text in [(185, "3 min 05 s"), (7440, "2 h 04 min"), (float("nan"), "unknown")]),
    *((percent, share, text) for share, text in [(0.9731, "97.3 %"), (1.0, "100.0 %"), (float("nan"), "NaN")]),
]


@pytest.mark.parametrize(("function", "value", "text"), UNITS)
def test_numbers_as_people_read_them(function: Any, value: float, text: str) -> None:
    assert function(value) == text


class Kept:
    """A sink that keeps the records, as slowly as it is told, and fails in a round of its choice."""

    def __init__(self, fail_in: int = -1, gate: threading.Event | None = None) -> None:
        self.rounds: list[int] = []
        self.closed = 0
        self._fail_in, self._gate = fail_in, gate

    def round(self, record: RoundRecord) -> None:
        if self._gate is not None:
            assert self._gate.wait(30)
        if record.round == self._fail_in:
            raise OSError(28, "No space left on device")
        self.rounds.append(record.round)

    def close(self) -> None:
        self.closed += 1


def test_records_are_written_in_the_background_in_their_order_and_all_before_the_end() -> None:
    gate = threading.Event()
    slow, other = Kept(gate=gate), Kept()
    sink = Background([slow, other])
    for number in range(20):
        sink.round(RoundRecord(number))
    assert slow.rounds == []  # nobody has waited for it
    gate.set()
    sink.close()
    assert slow.rounds == other.rounds == list(range(20))
    assert slow.closed == other.closed == 1
    sink.close()
    assert slow.closed == 1


def test_only_so_many_records_wait() -> None:
    gate = threading.Event()
    kept = Kept(gate=gate)
    sink = Background([kept])
    count = 3 * Background.MOST_WAITING
    feeder = threading.Thread(target=lambda: [sink.round(RoundRecord(number)) for number in range(count)])
    feeder.start()
    feeder.join(0.2)
    assert feeder.is_alive()
    gate.set()
    feeder.join(30)
    sink.close()
    assert kept.rounds == list(range(count))


@pytest.mark.parametrize("in_round", [True, False])
def test_an_error_of_the_disk_ends_the_run_all_the_same(in_round: bool) -> None:
    failing = Kept(fail_in=1)
    sink = Background([failing])
    with pytest.raises(OSError, match="No space left"):
        for number in range(3 if not in_round else 10**6):
            sink.round(RoundRecord(number))
        sink.close()
    sink.close()
    assert failing.rounds == [0] and failing.closed == 1
