"""Posts alerts as JSON to a URL of the user's, from a thread of its own: nothing there can delay or end a run.

The URL often holds a secret (a token in its path), and a run config goes to every client. So a key names a file with
the URL, and of the URL no more than the host is ever told.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import SplitResult, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from app.alerts.engine import Event
from app.errors import UserError
from strategies.records import RoundRecord

logger = logging.getLogger(__name__)

TIMEOUT = 5.0  # seconds, for each wait on the network, and for what still waits when a run ends
MOST_WAITING = 100


class _NoRedirects(HTTPRedirectHandler):
    """A redirect could lead to where nothing is encrypted: it counts as a refusal."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


@dataclass(frozen=True)
class Target:
    """A URL that may be posted to: https, or http on this machine's loopback. ``str`` tells its host alone."""

    url: SplitResult

    @classmethod
    def of(cls, file: Path) -> Target:
        """Read the URL that a file holds. Raises UserError, with nothing of the URL in it."""
        try:
            url = urlsplit(file.read_text(encoding="utf-8").strip())
            host, _ = url.hostname, url.port  # which raises for a port that is none
        except OSError as error:
            raise UserError(f"The key 'alert-webhook' is '{file}', which cannot be read ({error.strerror}).") from None
        except ValueError:
            host, url = None, SplitResult("", "", "", "", "")
        if not host or not (url.scheme == "https" or (url.scheme == "http" and _is_loopback(host))):
            raise UserError(
                f"The key 'alert-webhook' is '{file}', but what stands in that file is not a URL with https (or with "
                "http on this machine itself): put one there, and nothing else."
            ) from None
        return cls(url)

    def __str__(self) -> str:
        """Name the host."""
        return str(self.url.hostname)

    def post(self, content: Mapping[str, Any]) -> None:
        """Send JSON, and raise OSError where it is not taken. Only https goes through a proxy."""
        handlers = (_NoRedirects(), *([] if self.url.scheme == "https" else [ProxyHandler({})]))
        body = json.dumps(content).encode()
        request = Request(self.url.geturl(), body, {"Content-Type": "application/json"})
        build_opener(*handlers).open(request, timeout=TIMEOUT).close()


class Webhook:
    """Hands alerts of a run to a thread that posts them in their order; what it cannot post is logged and forgotten.

    It is a sink of rounds too, for the sake of its end.
    """

    def __init__(self, target: Target, run: str, timeout: float = TIMEOUT) -> None:
        self._target, self._run, self._timeout = target, run, timeout
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    def note(self, event: Event) -> None:
        """Let the alert be posted, and do not wait for it."""
        try:
            self._waiting.put_nowait({"run": self._run, **event.to_json()})
        except queue.Full:
            logger.warning("The webhook at %s is too slow: an alert was not posted.", self._target)

    def round(self, record: RoundRecord) -> None:
        """Nothing is posted of rounds."""

    def flush(self) -> None:
        """Nobody waits for others."""

    def close(self) -> None:
        """Wait a little for what is not posted yet."""
        try:
            self._waiting.put(None, timeout=self._timeout)
        except queue.Full:
            return
        self._thread.join(self._timeout)

    def _work(self) -> None:
        while (content := self._waiting.get()) is not None:
            try:
                self._target.post(content)
            except HTTPError as error:
                logger.warning("The webhook at %s has refused an alert: HTTP %d.", self._target, error.code)
            except Exception as error:  # its text may hold the URL
                logger.warning("An alert could not be posted to %s (%s).", self._target, type(error).__name__)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
