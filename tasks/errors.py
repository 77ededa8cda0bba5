"""The error that answers a user's mistake about data, model or training."""


class TaskError(ValueError):
    """One sentence for the user: what was given, what is allowed, which key or file to change."""
