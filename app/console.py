"""Where the app's own log lines go: to the console, which Flower forwards to whoever streams the run's log."""

from __future__ import annotations

import logging
import sys
import warnings

OURS = ("app", "strategies", "tasks", "simulation")


class PlainLines(logging.Formatter):
    """What a person reads: the message, led by its level where that is above INFO."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with a traceback below it where there is one."""
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname}: {text}"


WITH_LEVEL = logging.Formatter("%(levelname)s %(message)s")
"""What `app.log_filter` reads."""


def log_to_console(formatter: logging.Formatter = WITH_LEVEL) -> None:
    """Send the records of our packages to standard output, a line each; calling it again changes nothing.

    Keras' own deprecated calls, which it makes when it saves a model, are no business of whoever trains one; Flower's
    simulation turns such warnings on.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"keras\.")
    for name in OURS:
        logger = logging.getLogger(name)
        if not logger.handlers:
            handler = logging.StreamHandler(sys.stdout)
            handler.setFormatter(formatter)
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
