"""Errors of the app that are meant for the person who typed the command: one sentence each."""


class UserError(Exception):
    """What the user asked for cannot be done; the message is one sentence per mistake and needs no traceback."""


class ConfigError(UserError):
    """A run config with unknown keys, values out of bounds or keys that contradict each other."""
