"""What a person sees of a run's log: our lines and real errors, without the noise of Flower, Ray and TensorFlow."""

from __future__ import annotations

import re

from app.errors import RunRefused

RUN_DIRECTORY = "run directory: "
"""What the ServerApp's log line says before the path of the run directory; `fedkeras run` looks for it."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_OURS = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) (?!:)(.*)")
"""A line of app/console.py. Only these escape the list of noise."""

_LEVEL = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) :(.*)")
_LEVEL_WIDTH = 10  # Flower pads its levels to so many characters with the blank before the message
_RUN_ID = re.compile(r"Successfully started run (\d+)")
_WARNING = re.compile(r".*\.py:\d+: (?:Future|PendingDeprecation|Deprecation)Warning: ")
"""Python's way to tell developers of later versions; the line of code follows, indented."""

_WORKER = re.compile(r"\((?:\w+ )?(?:pid|ip)=[^)]*\)")
_REFUSAL = re.compile(rf"(\w+\.)*{RunRefused.__name__}\b")
_BOX_TOP, _BOX_SIDE, _BOX_END = "╭", "│", "╰"
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")

_NOISE = re.compile(
    "|".join(
        (
            # Flower: how it starts and ends
            r"Flower configuration not found|Using SuperLink:|Successfully (?:started run|installed|stopped)",
            r"Starting (?:logstream|Flower |local SuperLink)|Since flwr |Federation `|To change federation size",
            r"flwr federation |Manually terminating|Exiting logstream|Exit Code: |Simulation raised an exception",
            r"Start `flwr-\w+` process",
            r"ServerApp raised an exception|An unhandled exception occurred|For more information, visit: <",
            # TensorFlow, also before its log level counts
            r"[IWEF]\d{4} \d\d:\d\d|WARNING: All log messages before absl|This TensorFlow binary is optimized",
            r"To enable the following instructions|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] (?:tensorflow|external)",
            # Ray
            r".*Started a local Ray instance",
        )
    )
)


def is_noise(line: str) -> bool:
    """Tell whether a line is what Flower, Ray or TensorFlow say of themselves."""
    return bool(_NOISE.match(line))


def is_boxed(line: str) -> bool:
    """Tell whether a line is of the box that Flower's commands draw around an error of their own."""
    return _COLOUR.sub("", line).startswith((_BOX_TOP, _BOX_SIDE, _BOX_END))


class LogFilter:
    """Reads a log line by line; says what of it to show and remembers the run's id and directory."""

    def __init__(self) -> None:
        self.run_id: str | None = None
        self.run_directory: str | None = None
        self.errors: list[str] = []
        self._warned = False  # the last line was a warning, so this one may be its line of code
        self._box: list[str] = []
        self._traceback: list[str] = []
        self._ended = False  # the held traceback has its last line, but may be chained to another

    def feed(self, line: str) -> list[str]:
        """Take one line, without its line break, and return the lines to show now (often none)."""
        text = _COLOUR.sub("", line).rstrip()
        self._remember(text)
        if is_boxed(text):
            return self._unboxed(text)
        if self._traceback or text.startswith(_TRACEBACK):
            return self._hold(text)
        return self._shown(text)

    def close(self) -> list[str]:
        """Return what is still held when the log has ended."""
        held, self._traceback, self._ended = self._traceback, [], False
        if any(_REFUSAL.match(line) for line in held):
            return []
        while held and not held[-1]:
            held.pop()
        return held

    def _unboxed(self, text: str) -> list[str]:
        """Gather the box that Flower's commands draw around an error, and return what it says as one line."""
        if text.startswith(_BOX_SIDE):
            self._box.append(text.strip(f"{_BOX_SIDE} "))
        if not text.startswith(_BOX_END):
            return []
        said, self._box = " ".join(filter(None, self._box)), []
        self.errors.append(said)
        return [f"ERROR: {said}"]

    def _remember(self, text: str) -> None:
        if self.run_id is None and (found := _RUN_ID.search(text)):
            self.run_id = found.group(1)
        start = text.lower().find(RUN_DIRECTORY)
        if self.run_directory is None and start >= 0:
            self.run_directory = text[start + len(RUN_DIRECTORY) :].strip()

    def _hold(self, text: str) -> list[str]:
        """Keep a traceback back until its last line has told whether it is a refusal, which has its own sentence."""
        inside = not text or text[0].isspace() or text.startswith((_TRACEBACK, *_CHAINED))
        if inside or not self._ended:
            self._traceback.append(text)
            self._ended = (self._ended and not text.startswith(_TRACEBACK)) or not inside
            return []
        return [*self.close(), *self._shown(text)]

    def _shown(self, text: str) -> list[str]:
        code, self._warned = self._warned and text.startswith("  "), bool(_WARNING.match(text))
        if (
            code or self._warned or _WORKER.match(text)
        ):  # the workers' own log repeats what the server is told in replies
            return []
        level, message = _split(text)
        if not message.strip() or (not _OURS.fullmatch(text) and is_noise(message.strip())):
            return []
        if level == "ERROR":
            self.errors.append(message)
        return [message if level in ("", "INFO") else f"{level}: {message}"]


def _split(text: str) -> tuple[str, str]:
    """Return the level and the message behind it, whose own indentation stays; level "" where there is none."""
    if ours := _OURS.fullmatch(text):
        return ours.group(1), ours.group(2)
    found = _LEVEL.fullmatch(text)
    if not found:
        return "", text
    level, padded = found.groups()
    margin = _LEVEL_WIDTH - len(level)
    return level, padded[margin:] if not padded[:margin].strip() else padded.lstrip()
