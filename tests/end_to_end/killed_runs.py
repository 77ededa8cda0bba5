"""Simulated runs in a process that kills itself as SIGKILL does, at a hook in a round; or does them to their end.

    python -m tests.end_to_end.killed_runs ENGINE HOOK ROUND '[{"num-rounds": 2, ...}, ...]'

HOOK "none" kills nothing. Prints a line of JSON: the run directories.
"""

from __future__ import annotations

import json
import sys

from app.config import RunConfig
from simulation.simulate import ONE_OF_MANY, Simulation
from tests.end_to_end.kill_hooks import HOOKS


def main(engine: str, hook: str, number: str, configs: str) -> None:
    HOOKS[hook](int(number))
    with Simulation(2 if engine == "ray" else None, engine=engine) as simulation:  # type: ignore[arg-type]
        runs = [simulation.run(RunConfig.from_run_config(one), (), ONE_OF_MANY) for one in json.loads(configs)]
    print(json.dumps([str(run.directory.path) for run in runs]))


if __name__ == "__main__":
    main(*sys.argv[1:])
