"""What the ServerApp says, and what is kept from its log."""

from __future__ import annotations

import logging
import warnings

import pytest

from app.console import PlainLines, log_to_console


def warn(module: str) -> None:
    warnings.warn_explicit(f"of {module}", DeprecationWarning, "file.py", 1, module=module, registry={})


def test_our_records_are_plain_lines_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("strategies")
    before = (list(logger.handlers), logger.level, logger.propagate)
    logger.handlers.clear()
    try:
        log_to_console()
        log_to_console()
        logging.getLogger("strategies.rounds").info("round 1")
        assert capsys.readouterr().out == "INFO round 1\n"
    finally:
        logger.handlers[:], logger.level, logger.propagate = before


def test_whoever_reads_directly_sees_levels_above_info_only() -> None:
    def line(level: int) -> str:
        return PlainLines().format(logging.LogRecord("app", level, "file.py", 1, "%s clients", (7,), None))

    assert line(logging.INFO) == "7 clients"
    assert line(logging.WARNING) == "WARNING: 7 clients"
    assert line(logging.ERROR) == "ERROR: 7 clients"


def test_only_keras_own_deprecated_calls_are_kept_back() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("once", DeprecationWarning)  # as Flower's simulation does when it is imported
        log_to_console()
        warn("keras.src.backend.tensorflow.core")
        warn("my_task")
    assert [str(warning.message) for warning in heard] == ["of my_task"]
