"""Errors of the app that are meant for the person who typed the command: one sentence each."""


class UserError(Exception):
    """What the user asked for cannot be done; the message is one sentence per mistake and needs no traceback."""


class ConfigError(UserError):
    """A run config with unknown keys, values out of bounds or keys that contradict each other."""


class RunRefused(UserError):  # noqa: N818 - says what happened, as a log shows it
    """Raised by the ServerApp for a user's mistake that only shows when the run has started.

    The message becomes the run's end in ``flwr ls``, and ``fedkeras run`` hides the traceback (app/log_filter.py).
    Raise it, and do not call ``sys.exit``: Flower swallows that and the run ends as completed.
    """


class RunPruned(UserError):  # noqa: N818 - says what happened
    """Raised by an observer that ends a run because others have beaten it; the run has not failed."""
