"""The page: whatever a run went through, it is one well-formed file that needs nothing else and says what is wrong."""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from app.errors import UserError
from app.report import write_report
from app.report.client_charts import MAX_ROWS, fan_chart, heat_rows, histogram_chart
from app.report.curves import Trace, learning_lines, line_chart, trace_chart
from app.report.figure import AXIS, Key
from app.report.findings import differences, headline, labels, notes
from app.report.reading import Population, read_run, with_runs
from app.report.round_charts import participation_chart, seconds_chart
from app.report.series import Curve, bars, curve, of, overs, positions, smoothed
from app.run_directory import RunDirectory, Scalar
from app.sinks import ClientsJsonLines, JsonLines
from strategies.population import ClientInfo
from strategies.records import ClientScores, RoundRecord

WHEN = datetime(2025, 3, 9, 14, 5, 0)
CLIENTS = tuple(f"client-{position}" for position in range(12))
VOID = {"meta", "br", "line", "rect", "path", "use", "image", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """What a browser would see: text, tags that were left open, ids, and everything that would be fetched."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.unmatched: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.alts: list[str] = []
        self.scripts = 0
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._look(tag, dict(attrs))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.unmatched.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def _look(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.scripts += tag == "script" or any(name.startswith("on") for name in attributes)
        if identity := attributes.get("id"):
            self.ids.append(identity)
        if attributes.get("role") == "img":
            self.alts.append(attributes.get("aria-label") or "")
        for name in ("src", "href", "xlink:href"):
            address = attributes.get(name)
            if address and not address.startswith(("#", "data:")):
                self.fetched.append(address)


def scores(accuracies: Sequence[float], clients: Sequence[str] = CLIENTS) -> ClientScores:
    return ClientScores(
        tuple(clients[: len(accuracies)]),
        tuple(range(1, len(accuracies) + 1)),
        tuple(1.0 - value for value in accuracies),
        tuple(accuracies),
    )


def record(number: int, **changes: Any) -> RoundRecord:
    values: dict[str, Any] = {
        "round": number,
        "selected": CLIENTS[:4] if number else (),
        "accepted": CLIENTS[:4] if number else (),
        "train": {"loss": 1.0 / (number + 1), "accuracy": 0.5} if number else {},
        "central": {"loss": 2.0 / (number + 1), "accuracy": number / (number + 1)},
        "bytes_down": 1000 * bool(number),
        "bytes_up": 500 * bool(number),
        "seconds": {"train": 0.5, "evaluate-central": 0.25, "total": 1.0},
    }
    return RoundRecord(**{**values, **changes})


def make_run(
    runs: Path,
    records: Sequence[RoundRecord],
    name: str = "digits",
    config: dict[str, Scalar] | None = None,
    clients: Sequence[str] = CLIENTS,
    with_labels: bool = True,
) -> RunDirectory:
    directory = RunDirectory.create(runs, name, WHEN)
    directory.write_config({"dataset": "digits", "num-rounds": 3, "learning-rate": 0.1, **(config or {})})
    directory.write_versions("abc123", "/somewhere/fedkeras")
    generator = np.random.default_rng(1)
    rows = {client: generator.multinomial(30, generator.dirichlet([0.3] * 5)).tolist() for client in clients}
    infos = [ClientInfo(client, 30, "phone", "eu") for client in clients]
    directory.write_population(infos, rows if with_labels else None)
    for sink in (JsonLines(directory.metrics), ClientsJsonLines(directory.clients)):
        for each in records:
            sink.round(each)
        sink.close()
    directory.write_status("completed", "", max((each.round for each in records), default=0))
    return directory


def page_of(*directories: RunDirectory) -> Page:
    path = write_report([directory.path for directory in directories])
    page = Page(path.read_text(encoding="utf-8"))
    assert page.unmatched == []
    assert page.open == []
    assert page.fetched == []
    assert page.scripts == 0
    assert len(page.ids) == len(set(page.ids))
    assert all(page.alts)
    return page


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.fixture
def usual(tmp_path: Path) -> RunDirectory:
    rejected = record(2, accepted=CLIENTS[:1], rejected={"late": 2, "norm": 1})
    evaluated = record(3, federated=scores(np.linspace(0.2, 1.0, 12).tolist()))
    return make_run(tmp_path, [record(0), record(1), rejected, evaluated])


def test_the_page_of_a_run_says_it_all_and_needs_nothing_else(usual: RunDirectory) -> None:
    page = page_of(usual)
    text = flat(page.text)
    assert usual.report.is_file()
    for expected in (
        *(usual.path.name, "completed", "75.0 %", "best 75.0 % in round 3", "3 / 3", "25.0 % of 12", "4.5 kB"),
        *("Accuracy over rounds", "Accuracy over time", "Accuracy over bytes", "Loss over rounds", "Loss over bytes"),
        *("Labels of each client", "Clients by accuracy, round 3", "Clients per round", "Seconds per round"),
        *("learning-rate", "0.1", "tensorflow", "abc123", "/somewhere/fedkeras", "2 late, 1 norm", "phone"),
    ):
        assert expected in text, expected
    assert len(page.alts) == 3 + 3 + 2 + 1 + 2 + 1 + 1
    assert "Clients per round: 9 of 12 updates accepted in 3 rounds; rejected: 2 late, 1 norm." in page.alts


def test_headline_numbers_by_hand(usual: RunDirectory) -> None:
    figures = {figure.label: figure for figure in headline(read_run(usual.path))}
    assert figures["Central accuracy"].value == "75.0 %"
    # The worst ceil(12 / 10) = 2 of linspace(0.2, 1, 12) are 0.2 and 0.2727.
    assert figures["Worst tenth of clients"].value == "23.6 %"
    weights = np.arange(1, 13)
    mean = (np.linspace(0.2, 1.0, 12) * weights).sum() / weights.sum()
    assert figures["Clients' mean accuracy"].value == f"{100 * mean:.1f} %"
    assert figures["Sent and received"].detail == "3.0 kB down, 1.5 kB up"
    assert figures["Duration"].value == "4.00 s"
    assert figures["Clients"].detail == "4 a round"
    assert figures["Rejected updates"].value == "3"


def test_curves_over_rounds_seconds_and_bytes_by_hand(usual: RunDirectory) -> None:
    run = read_run(usual.path)
    assert_allclose(positions(run, "rounds"), [0, 1, 2, 3])
    assert_allclose(positions(run, "seconds"), [1, 2, 3, 4])
    assert_allclose(positions(run, "bytes"), [0, 1500, 3000, 4500])
    assert_allclose(curve(run, of("central", "accuracy")).y, [0, 1 / 2, 2 / 3, 3 / 4])
    federated = curve(run, of("federated", "accuracy"), "bytes")
    assert_allclose(federated.x, [4500])
    assert len(federated) == 1


def test_deciles_of_the_fan_are_numpys(usual: RunDirectory) -> None:
    run = read_run(usual.path)
    expected = np.quantile(np.linspace(0.2, 1.0, 12), np.linspace(0, 1, 11))
    assert_allclose(run.rounds[-1].deciles, expected)
    chart = fan_chart("fan", run)
    assert chart is not None
    assert ", ".join(f"{100 * value:.1f} %" for value in expected) in chart.alt


def test_a_round_without_a_total_lasts_as_long_as_its_phases(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path, [record(1, seconds={"train": 2.0, "aggregate": 0.5})]).path)
    assert_allclose(positions(run, "seconds"), [2.5])
    chart = seconds_chart("s", run)
    assert chart is not None
    assert chart.alt == "Seconds per round: 80 % train, 20 % aggregate, 0 % other"


def test_many_rounds_become_bars_of_means(tmp_path: Path) -> None:
    rounds = [record(number, accepted=CLIENTS[: number % 5]) for number in range(1, 251)]
    run = read_run(make_run(tmp_path, rounds).path)
    values = np.array([[each.accepted for each in run.rounds]], dtype=float)
    data = bars(run.rounds, values)
    assert data.size == 3
    assert data.heights.shape == (1, 84)
    assert_allclose(data.heights[0, 0], (1 + 2 + 3) / 3)
    assert_allclose(data.x[0], 2.0)
    assert_allclose(data.heights[0, -1], values[0, -1])
    chart = participation_chart("p", run)
    assert chart is not None
    assert chart.caption == "Each bar is the mean of 3 rounds."
    binned = smoothed(curve(run, lambda each: float(each.accepted)), 5)
    assert_allclose(binned.y, np.full(50, 2.0))


def test_rare_reasons_are_gathered_as_other(tmp_path: Path) -> None:
    reasons = ["error", "late", "malformed", "shape", "dtype", "not-finite", "weight", "norm"]
    counts = {reason: 10 - position for position, reason in enumerate(reasons)}
    run = read_run(make_run(tmp_path, [record(1, selected=CLIENTS, rejected=counts)]).path)
    chart = participation_chart("p", run)
    assert chart is not None
    assert [key.label for key in chart.legend] == ["accepted", *reasons[:6], "other"]


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([], "No round of training was finished"),
        ([record(0)], "No round of training was finished"),
        ([record(0), record(1)], "not evaluated on the clients' test parts"),
        ([record(1, central=None)], "not evaluated on a central test set"),
        ([record(1), record(2, skipped=True, train={}, accepted=())], "1 round skipped for want of good updates: 2."),
        ([record(1), record(2, banned=3), record(3, banned=1)], "Clients were banned in 2 rounds: 2, 3."),
        ([record(1), record(2, repeated=3)], "Replies came again in 1 round, and changed nothing: 2."),
        ([record(1), record(2, central={"loss": float("nan"), "accuracy": 0.1})], "not a finite number in 1 round (2)"),
        ([record(1, central={"loss": float("inf"), "accuracy": 0.1})], "not a finite number in 1 round (1)"),
        (
            [record(n, central={"loss": float("nan")}, train={}) for n in (1, 2)],
            "not a finite number in 2 rounds (1, 2)",
        ),
        ([record(1, selected=(), accepted=(), seconds={}, bytes_down=0, bytes_up=0)], "clients' test parts"),
    ],
)
def test_odd_runs_still_give_a_page_with_a_note(tmp_path: Path, records: list[RoundRecord], sentence: str) -> None:
    assert sentence in flat(page_of(make_run(tmp_path, records)).text)


def test_losses_of_any_size_are_drawn(tmp_path: Path) -> None:
    losses = [1e-12, 1.0, 1e30, 1e308, -3.0, float("inf"), 0.0]
    run = read_run(make_run(tmp_path, [record(n + 1, central={"loss": loss}) for n, loss in enumerate(losses)]).path)
    assert line_chart("loss", "Loss", learning_lines(run, "loss"), "rounds", "loss") is not None
    only_positive = read_run(
        make_run(tmp_path, [record(n + 1, central={"loss": loss}) for n, loss in enumerate([1e-3, 1.0, 1e30])]).path
    )
    chart = line_chart("loss", "Loss", learning_lines(only_positive, "loss"), "rounds", "loss")
    assert chart is not None
    assert re.search(r">1e\+\d\d<", chart.svg)
    assert "mathdefault" not in chart.svg


def test_a_page_of_one_round_with_one_client(tmp_path: Path) -> None:
    one = make_run(tmp_path, [record(1, federated=scores([0.5]))], clients=CLIENTS[:1])
    assert "50.0 %" in page_of(one).text


def test_what_comes_from_the_user_is_escaped(tmp_path: Path) -> None:
    nasty = '<script>alert("x")</script><b onclick=a()>$\\frac$ & "q" ünïcode'
    clients = [f"{nasty}-{position}" for position in range(3)]
    records = [record(1, rejected={nasty: 1}, federated=scores([0.1, 0.2, 0.3], clients), seconds={nasty: 1.0})]
    directory = make_run(tmp_path, records, config={"model": nasty, nasty: nasty}, clients=clients)
    directory.write_status("failed", nasty)
    page = page_of(directory)
    assert f"The run failed: {nasty}" in page.text
    html = directory.report.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "<b onclick" not in html


def test_a_folder_name_is_escaped_too(tmp_path: Path) -> None:
    made = make_run(tmp_path, [record(1)])
    renamed = made.path.rename(tmp_path / "<img src=x onerror=alert(1)>")
    assert "<img src=x" in page_of(RunDirectory(renamed)).text
    assert "<img" not in (renamed / "report.html").read_text(encoding="utf-8")


def test_a_cut_off_last_line_is_left_out_with_a_note(usual: RunDirectory) -> None:
    whole = usual.metrics.read_bytes()
    usual.metrics.write_bytes(whole[:-20])
    run = read_run(usual.path)
    assert [each.number for each in run.rounds] == [0, 1, 2]
    assert any("The last line of metrics.jsonl is cut off" in note for note in run.notes)
    assert "is cut off and left out" in page_of(usual).text


@pytest.mark.parametrize("bad", ["not json", "[]", "null", '{"round": "x"}', '{"round": 1, "rejected": 3}', "{}", "\0"])
def test_a_line_that_cannot_be_read_is_left_out_with_a_note(usual: RunDirectory, bad: str) -> None:
    lines = usual.metrics.read_text().splitlines()
    lines[1] = bad
    usual.metrics.write_text("\n".join(lines) + "\n")
    run = read_run(usual.path)
    assert [each.number for each in run.rounds] == [0, 2, 3]
    assert "Line 2 of metrics.jsonl cannot be read and is left out." in run.notes


LESSER = ("versions.json", "population.json", "status.json", "clients.jsonl")


@pytest.mark.parametrize("content", [None, "{", '"text"', '{"clients": 3}\n'])
def test_lesser_files_may_be_missing_or_spoilt(usual: RunDirectory, content: str | None) -> None:
    for name in LESSER:
        (usual.path / name).unlink()
        if content is not None:
            (usual.path / name).write_text(content)
    found = read_run(usual.path).notes
    assert any("population.json" in note for note in found)
    assert any("clients.jsonl" in note for note in found) == (content is not None)
    page_of(usual)


def test_population_columns_must_fit_each_other(usual: RunDirectory) -> None:
    population = json.loads(usual.population.read_text())
    for key, value in (("examples", [1]), ("label-counts", [[1, 2]]), ("label-counts", [1] * 12)):
        usual.population.write_text(json.dumps({**population, key: value}))
        assert read_run(usual.path).population is None


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl"])
def test_without_config_or_metrics_there_is_no_run(usual: RunDirectory, name: str) -> None:
    (usual.path / name).unlink()
    with pytest.raises(UserError, match=rf"has no {name}, so there is no run in it to report on\.$"):
        write_report([usual.path])


def test_of_several_paths_those_without_a_run_are_left_out_and_said(usual: RunDirectory, tmp_path: Path) -> None:
    """As the shell makes of ``runs/*``, where a comparison lies beside the runs, and a run that never began."""
    (tmp_path / "report.html").write_text("a page")
    (tmp_path / "never-began").mkdir()
    paths = [usual.path, tmp_path / "report.html", tmp_path / "never-began"]
    found, left_out = with_runs(paths)
    assert found == [usual.path]
    assert [sentence.split("' is ")[1] for sentence in left_out] == ["no folder", "a folder without a metrics.jsonl"]
    gone = tmp_path / "gone"
    assert with_runs([usual.path, gone]) == ([usual.path, gone], [])  # a misspelt name is not passed over
    for alone in paths[1:]:
        assert with_runs([alone]) == ([alone], [])


def test_sentences_for_what_is_no_run_directory(usual: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run directory"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="Give at least one run directory"):
        write_report([])
    with pytest.raises(UserError, match=r"cannot be written to '.*/no/such/page.html'"):
        write_report([usual.path], tmp_path / "no" / "such" / "page.html")
    usual.config.write_text("not toml")
    with pytest.raises(UserError, match="is not a TOML file"):
        write_report([usual.path])


def test_several_runs_are_laid_over_each_other(tmp_path: Path) -> None:
    first = make_run(tmp_path, [record(0), record(1)], "first", {"learning-rate": 0.1})
    second = make_run(
        tmp_path, [record(0), record(1), record(2)], "second", {"learning-rate": 0.5, "lr-decay": "cosine"}
    )
    page = page_of(first, second)
    text = flat(page.text)
    assert (tmp_path / "report.html").is_file()
    assert "2 runs compared" in text
    overlaid = [alt for alt in page.alts if alt.startswith("Central accuracy over rounds")]
    assert len(overlaid) == 1
    assert f"{first.path.name} goes from 0.0 % to 50.0 %" in overlaid[0]
    assert f"{second.path.name} goes from 0.0 % to 66.7 %" in overlaid[0]
    runs = [read_run(each.path) for each in (first, second)]
    assert differences(runs) == [("learning-rate", ["0.1", "0.5"]), ("lr-decay", ["–", "cosine"])]


def test_runs_without_anything_in_common_still_compare(tmp_path: Path) -> None:
    empty = make_run(tmp_path, [], "empty")
    unevaluated = make_run(tmp_path, [record(1, central=None, train={})], "unevaluated", {"num-rounds": 1})
    assert "2 runs compared" in page_of(empty, unevaluated).text
    assert "Nothing: the runs have the same config." in page_of(empty, make_run(tmp_path, [], "other")).text


def test_runs_of_one_name_are_told_apart_and_one_run_twice_is_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    directories = [make_run(tmp_path / parent, [record(1)]) for parent in "ab"]
    runs = [read_run(directory.path) for directory in directories]
    assert labels(runs) == [str(directory.path) for directory in directories]
    assert write_report([directories[0].path] * 2) == directories[0].report


def test_ten_runs_differ_in_colour_or_dash(tmp_path: Path) -> None:
    directories = [make_run(tmp_path, [record(1), record(2)], f"run{position}") for position in range(10)]
    write_report([directory.path for directory in directories], tmp_path / "all.html")
    html = (tmp_path / "all.html").read_text(encoding="utf-8")
    swatches = re.findall(r'<line [^>]*style="(stroke: [^"]*)" stroke-dasharray="([^"]*)"', html)
    assert len(set(swatches)) == 10


def test_heat_map_rows_of_few_clients_keep_their_order_and_name() -> None:
    rows, names, caption = heat_rows(population([[3, 0], [0, 2], [1, 1]]))
    assert_allclose(rows, [[3, 0], [0, 2], [1, 1]])
    assert names == ["c0", "c1", "c2"]
    assert caption == ""


def test_heat_map_rows_of_many_clients_are_sorted_and_binned() -> None:
    counts = np.random.default_rng(0).integers(0, 9, (1030, 4))
    rows, names, caption = heat_rows(population(counts.tolist()))
    assert rows.shape == (MAX_ROWS, 4)
    assert names == []
    assert caption == "1030 clients in 200 rows: each row is the mean of 5 or 6 clients that are alike."
    sizes = np.array([6] * 30 + [5] * 170)
    assert_allclose((rows * sizes[:, None]).sum(axis=0), counts.sum(axis=0))
    some, _, _ = heat_rows(population(counts[:100].tolist()))
    assert_allclose(np.sort(some.argmax(axis=1)), some.argmax(axis=1))
    assert sorted(map(tuple, some)) == sorted(map(tuple, counts[:100]))


def population(counts: list[list[int]]) -> Population:
    clients = tuple(f"c{position}" for position in range(len(counts)))
    blank = ("",) * len(counts)
    return Population(clients, tuple(sum(row) for row in counts), blank, blank, np.array(counts))


def test_no_heat_map_where_the_labels_are_not_known(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path, [record(1)], with_labels=False))
    assert "Labels of each client" not in page.text
    assert "does not know the clients' labels" in page.text


def test_histogram_counts_every_client_once(usual: RunDirectory) -> None:
    chart = histogram_chart("h", read_run(usual.path))
    assert chart is not None
    assert "accuracy of 12 clients in round 3: lowest 20.0 %, median 60.0 %, highest 100.0 %" in chart.alt


@pytest.mark.parametrize(
    ("state", "message", "sentence"),
    [
        ("running", "", "The run had not ended when this page was written (or it was killed)."),
        ("interrupted", "", "The run was interrupted."),
        ("failed", "no nodes", "The run failed: no nodes"),
        ("pruned", "Others were better.", "The sweep that the run belongs to stopped it: Others were better."),
    ],
)
def test_how_the_run_ended_stands_first(usual: RunDirectory, state: Any, message: str, sentence: str) -> None:
    usual.write_status(state, message)
    assert notes(read_run(usual.path))[0] == sentence


def test_the_page_follows_the_theme_and_keeps_matplotlib_to_itself(usual: RunDirectory) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    write_report([usual.path])
    assert dict(mpl.rcParams) == before
    html = usual.report.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in html
    plots = re.findall(r"<svg viewBox.*?</svg>", html, re.DOTALL)
    assert len(plots) == 13
    assert not re.search(r"(?<=: )#[0-9a-f]{6}", "".join(plots))


def simulate_a_clock(directory: RunDirectory, seconds: Sequence[float | None]) -> None:
    """Write into the metrics when each round ended in a simulated world."""
    lines = [json.loads(line) for line in directory.metrics.read_text().splitlines()]
    clocked = [{**line, "simulated-seconds": at} for line, at in zip(lines, seconds, strict=True)]
    directory.metrics.write_text("".join(json.dumps(line) + "\n" for line in clocked))


def test_curves_over_simulated_time_where_there_is_such_a_clock(usual: RunDirectory) -> None:
    simulate_a_clock(usual, [None, 3600.0, None, 10800.0])
    run = read_run(usual.path)
    assert_allclose(positions(run, "simulated"), [0.0, 3600.0, 3600.0, 10800.0])
    assert overs([run]) == ("rounds", "simulated", "bytes")
    text = flat(page_of(usual).text)
    assert "Accuracy over simulated time" in text
    assert "Accuracy over time" not in text
    assert "simulated time (h)" in text
    assert "Seconds per round" in text


def test_runs_with_and_without_a_clock_are_compared_by_their_own_time(usual: RunDirectory, tmp_path: Path) -> None:
    other = make_run(tmp_path, [record(0), record(1)], "other")
    simulate_a_clock(usual, [0.0, 1.0, 2.0, 3.0])
    assert overs([read_run(usual.path), read_run(other.path)]) == ("rounds", "seconds", "bytes")
    assert "Central accuracy over time" in flat(page_of(usual, other).text)


def test_bands_and_faint_lines() -> None:
    points = Curve(np.arange(3.0), np.array([0.1, np.nan, 0.3]))
    banded = Trace(Key("best", "#2a78d6"), points, (points.y - 0.05, points.y + 0.05))
    faint = Trace(Key("other", AXIS), points, faint=True)
    chart = trace_chart("t", "Accuracy", [banded, faint], "rounds", "share")
    assert chart is not None
    assert [key.label for key in chart.legend] == ["best"]
    assert chart.alt == "Accuracy: best goes from 10.0 % to 30.0 % in 3 points"
    assert "fill-opacity: 0.18" in chart.svg
    assert trace_chart("t", "Accuracy", [], "rounds", "share") is None
