"""The webhook of alerts: posted in their order, delaying nobody, and no word of the URL but its host."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.alerts.webhook import Target, Webhook
from app.config import RunConfig
from app.errors import UserError
from app.monitoring import Monitoring
from app.run_directory import RunDirectory
from tests.app.scripted_lines import COHORT, engine, record, spending

SECRET = "T0K3N-in-the-path"


class Receiver(BaseHTTPRequestHandler):
    """Keeps what is posted, and answers as its server is told to."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, json.loads(body)))  # type: ignore[attr-defined]
        status = self.server.status  # type: ignore[attr-defined]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Receiver)
    server.posted, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url_file(tmp_path: Path, url: str) -> Path:
    file = tmp_path / "webhook-url"
    file.write_text(url + "\n")
    return file


def test_alerts_are_posted_in_their_order(tmp_path: Path, receiver: Any) -> None:
    file = url_file(tmp_path, f"http://127.0.0.1:{receiver.server_port}/{SECRET}")
    config = RunConfig.from_run_config({"alert-webhook": str(file), "checkpoint-every": 0})
    watching = Monitoring.of(config, RunDirectory(tmp_path))
    for number in range(1, 4):
        fault = {"accepted": COHORT[:5], "rejected": {"late": 5}} if number == 2 else {}
        for sink in watching.sinks:
            sink.round(record(number, **fault))
    for sink in watching.sinks:
        sink.close()
    assert [(path, body["run"], body["alert"], body["state"]) for path, body in receiver.posted] == [
        (f"/{SECRET}", tmp_path.name, "participation", "firing"),
        (f"/{SECRET}", tmp_path.name, "participation", "resolved"),
    ]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_refuses_is_logged_without_its_secret(
    tmp_path: Path, receiver: Any, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = status
    post_one(Target.of(url_file(tmp_path, f"http://127.0.0.1:{receiver.server_port}/{SECRET}")))
    assert f"The webhook at 127.0.0.1 has refused an alert: HTTP {status}." in caplog.messages
    assert SECRET not in caplog.text and [path for path, _ in receiver.posted] == [f"/{SECRET}"]


def post_one(target: Target, timeout: float = 5.0) -> None:
    webhook = Webhook(target, "run", timeout)
    (event,) = engine().round(record(1, accepted=COHORT[:5], rejected={"late": 5}).to_json())
    webhook.note(event)
    webhook.close()


def test_nobody_there_is_logged_without_the_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = Target.of(url_file(tmp_path, f"http://user:{SECRET}@127.0.0.1:{unused.getsockname()[1]}/{SECRET}"))
        post_one(target)
    assert any("could not be posted to 127.0.0.1" in message for message in caplog.messages)
    assert SECRET not in caplog.text


def test_one_that_hangs_delays_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        target = Target.of(url_file(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}/{SECRET}"))
        webhook = Webhook(target, "run", timeout=0.05)
        (event,) = engine().round(record(1, privacy=spending(7.0)).to_json())
        for _ in range(300):
            webhook.note(event)
        webhook.close()
    assert sum("too slow" in message for message in caplog.messages) >= 300 - 101
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/T0K3N-in-the-path", "ftp://127.0.0.1/T0K3N-in-the-path", "T0K3N-in-the-path", "",
        "https://", "http://127.0.0.1:T0K3N-in-the-path/", "http://[::1/T0K3N-in-the-path", "file:///etc/passwd",
        "http://127.0.0.1.example.org/T0K3N-in-the-path", "http://localhost@example.org/T0K3N-in-the-path",
    ],
)  # fmt: skip
def test_urls_that_are_neither_encrypted_nor_of_this_machine_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="not a URL with https") as caught:
        Target.of(url_file(tmp_path, url))
    assert SECRET not in str(caught.value) and caught.value.__suppress_context__


@pytest.mark.parametrize("url", ["https://hooks.example.org/x", "http://localhost:99/x", "http://[::1]/x"])
def test_urls_that_are_allowed(tmp_path: Path, url: str) -> None:
    assert SECRET not in str(Target.of(url_file(tmp_path, f"{url}/{SECRET}")))


def test_a_url_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'alert-webhook' is .*, which cannot be read \(No such file"):
        Target.of(tmp_path / "missing")
