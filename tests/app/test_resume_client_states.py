"""Runs whose checkpoints lie rounds apart: clients still have what the server goes back to, and not much more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.app.inline_runs import Left
from tests.app.test_resume import CASES, SHORT, check, in_aggregation, killed, resumed, run

APART = {**SHORT, "num-rounds": 6, "checkpoint-every": 3, "federated-evaluate-every": 0, "clients-per-round": 0}
ON_NODES = ("scaffold", "error feedback", "differences")


def states_of(left: Left) -> list[list[int]]:
    """The rounds of which each client, and the node, has kept something."""
    folders = (path for path in left.directory.client_states.iterdir() if path.is_dir())
    return [sorted(int(file.stem) for file in folder.iterdir()) for folder in folders]


@pytest.mark.parametrize("case", ON_NODES)
def test_a_server_that_goes_back_several_rounds_finds_what_clients_had_then(case: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {**APART, **CASES[case]}
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", changes)
    left = killed(tmp_path / "killed", changes, in_aggregation, in_round=6)
    kept = states_of(left)
    assert all(3 in rounds for rounds in kept)  # that of the checkpoint
    if case != "differences":
        assert all(len(rounds) == 3 for rounds in kept)  # and of the last two rounds, of which 6 does not count yet
    check(resumed(left, changes), whole)
    assert left.json("status.json")["resumed-after"] == [3]
