"""What a page says of compression: the size of an update, and accuracy over the bytes that clients have sent."""

from pathlib import Path

from app.report.reading import read_run
from app.run_directory import RunDirectory
from tests.app.test_report import flat, make_run, page_of, record

DENSE = {"mean": 800_000.0, "largest": 800_100.0, "dense": 799_000.0}
SMALL = {"mean": 5_000.0, "largest": 6_000.0, "dense": 800_000.0}


def compressed(runs: Path, codec: str = "stc") -> RunDirectory:
    rounds = [record(number, uplink=SMALL, bytes_up=50_000) for number in (1, 2, 3)]
    return make_run(runs, [record(0), *rounds], "few", config={"codec": codec})


def dense(runs: Path) -> RunDirectory:
    rounds = [record(number, uplink=DENSE, bytes_up=8_000_000) for number in (1, 2, 3)]
    return make_run(runs, [record(0), *rounds], "all", config={"codec": "none"})


def test_a_compressed_run_says_how_small_updates_are_and_draws_accuracy_over_what_was_sent(tmp_path: Path) -> None:
    page = page_of(compressed(tmp_path))
    assert "A client's update5.0 kB 160 times smaller than a dense one" in flat(page.text)
    (alt,) = (alt for alt in page.alts if alt.startswith("Accuracy over bytes sent by clients"))
    assert "central test set goes from 50.0 % to 75.0 % in 3 points" in alt  # not the model that nobody had sent for


def test_a_dense_run_says_nothing_of_it(tmp_path: Path) -> None:
    page = page_of(dense(tmp_path))
    assert "A client's update" not in flat(page.text) and "Compression" not in flat(page.text)
    assert not [alt for alt in page.alts if "bytes sent by clients" in alt]


def test_runs_are_compared_over_what_their_clients_sent(tmp_path: Path) -> None:
    page = page_of(dense(tmp_path), compressed(tmp_path))
    text = flat(page.text)
    assert "5.0 kB160 times smaller than a dense one" in text and "800 kBnot compressed" in text
    (alt,) = (alt for alt in page.alts if "bytes sent by clients" in alt and "few" in alt)
    assert alt.count("in 3 points") == 2


def test_runs_of_an_older_version_did_not_tell(tmp_path: Path) -> None:
    directory = make_run(tmp_path, [record(0), record(1)], config={"codec": "top-k"})
    assert [round.uplink for round in read_run(directory.path).rounds] == [None, None]
    assert "A client's update–" in flat(page_of(directory).text)
