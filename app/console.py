"""Where the app's own log lines go: to the console, which Flower forwards to whoever streams the run's log."""

from __future__ import annotations

import logging
import sys
import warnings

OURS = ("app", "strategies", "tasks", "simulation")


def log_to_console() -> None:
    """Send the records of our packages to standard output as plain lines; calling it again changes nothing.

    Keras' own deprecated calls, which it makes when it saves a model, are no business of whoever trains one; Flower's
    simulation turns such warnings on.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"keras\.")
    for name in OURS:
        logger = logging.getLogger(name)
        if not logger.handlers:
            handler = logging.StreamHandler(sys.stdout)
            handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
