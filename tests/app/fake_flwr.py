"""Stands in for Flower's ``flwr`` command: writes down how it was called and ends as the test wants.

FAKE_DIR receives ``calls.jsonl`` and a copy of the run config; FAKE_STATUS (or one line of the file ``statuses`` after
the other) and FAKE_DETAILS are the run's end, FAKE_LOG is a file with the log to print, FAKE_BREAK what stands in it
where ``run`` loses the SuperLink (for ``log``, the file ``breaks`` has a line with such a text for each call that does,
the last for all others too), FAKE_HANG makes ``run`` go on until it is ended, FAKE_EXIT is its exit code,
FAKE_WARNING goes to the standard error of ``ls`` before its answer.
"""

import json
import os
import sys
import time
import tomllib
from pathlib import Path

folder = Path(os.environ["FAKE_DIR"])
command, arguments = sys.argv[1], sys.argv[2:]
call = {"command": command, "arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
if "--run-config" in arguments:
    call["config"] = tomllib.loads(Path(arguments[arguments.index("--run-config") + 1]).read_text())
with (folder / "calls.jsonl").open("a") as file:
    file.write(json.dumps(call) + "\n")


def next_line(file: Path, otherwise: str) -> str:
    line, _, later = (file.read_text() if file.exists() else otherwise).partition("\n")
    if later:
        file.write_text(later)
    return line


def tell(text: str, until: str) -> None:
    told, broken, _ = text.partition(until or "\0")
    print(told, end="", flush=True)
    if broken:
        sys.exit(print("╭─ Error ───╮\n│ Connection to the SuperLink is unavailable. │\n╰───╯", flush=True) or 1)


log = Path(os.environ["FAKE_LOG"]).read_text()
if command == "log":
    tell(log[log.index("\x1b[92mINFO \x1b[0m:      Starting logstream") :], next_line(folder / "breaks", ""))
if command == "run":
    tell(log, os.environ.get("FAKE_BREAK", ""))
    if os.environ.get("FAKE_HANG"):
        time.sleep(60)
    sys.exit(int(os.environ.get("FAKE_EXIT", "0")))
if command == "ls":
    print(os.environ.get("FAKE_WARNING", ""), file=sys.stderr, flush=True)
    if os.environ.get("FAKE_STATUS") == "broken":
        sys.exit(1)
    if os.environ.get("FAKE_STATUS") == "unreachable":
        print(json.dumps({"success": False, "error-message": "Connection to the SuperLink is unavailable."}))
        sys.exit(1)
    status = next_line(folder / "statuses", os.environ["FAKE_STATUS"])
    run = {"run-id": "42", "status": status, "status-details": os.environ.get("FAKE_DETAILS", "N/A")}
    print(json.dumps({"success": True, "runs": [run]}))
