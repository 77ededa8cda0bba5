"""What is told of a run while it lasts, and kept of it: its sinks, its alerts, and its journal."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass

from app.config import RunConfig
from app.journals import RunJournal
from app.monitoring import Monitoring
from app.output import Keeping, Output
from app.run_directory import RunDirectory, RunState
from app.sinks import Sink

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """The ``sinks`` of a run, those of its ``monitoring`` last, and the ``journal``, which keeps what all have had."""

    monitoring: Monitoring
    sinks: tuple[Sink, ...]
    journal: RunJournal

    @classmethod
    def of(cls, config: RunConfig, directory: RunDirectory, output: Output, keeping: Keeping) -> Recording:
        """Open all of them. Raises as `Monitoring.of` and the sinks do, and then has nothing open."""
        monitoring = Monitoring.of(config, directory)
        with ExitStack() as opened:
            for tell in monitoring.ended:
                opened.callback(tell, "failed")
            for watching in monitoring.sinks:
                opened.callback(watching.close)
            sinks = (*output.make_sinks(directory, logger, config.num_rounds), *monitoring.sinks)
            opened.pop_all()

        def settle() -> None:
            for sink in sinks:
                sink.flush()

        return cls(monitoring, sinks, output.journal(keeping, settle))

    def close(self) -> None:
        """Keep the last round, tell the alerts whether that could be done, and close the sinks."""
        self.journal.close()
        self.monitoring.alerts.ended(self.journal.saved(), self.journal.failed())
        for sink in self.sinks:
            sink.close()

    def ended(self, state: RunState) -> None:
        """Tell how the run has ended, once all that can fail is over."""
        for tell in self.monitoring.ended:
            tell(state)
