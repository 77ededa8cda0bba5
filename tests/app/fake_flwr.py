"""Stands in for Flower's ``flwr`` command: writes down how it was called and ends as the test wants.

FAKE_DIR receives ``calls.jsonl`` and a copy of the run config; FAKE_STATUS (or one line of the file ``statuses`` after
the other) and FAKE_DETAILS are the run's end, FAKE_LOG is a file with the log to print, FAKE_BREAK what stands in it
where ``run`` loses the SuperLink, FAKE_HANG makes ``run`` go on until it is ended, FAKE_EXIT is its exit code,
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

if command == "log":
    text = Path(os.environ["FAKE_LOG"]).read_text()
    print(text[text.index("\x1b[92mINFO \x1b[0m:      Starting logstream") :], end="")
if command == "run":
    told, broken, _ = Path(os.environ["FAKE_LOG"]).read_text().partition(os.environ.get("FAKE_BREAK", "\0"))
    print(told, end="", flush=True)
    if broken:
        sys.exit(print("╭─ Error ───╮\n│ Connection to the SuperLink is unavailable. │\n╰───╯", flush=True) or 1)
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
    statuses = folder / "statuses"
    status, _, later = (statuses.read_text() if statuses.exists() else os.environ["FAKE_STATUS"]).partition("\n")
    if later:
        statuses.write_text(later)
    run = {"run-id": "42", "status": status, "status-details": os.environ.get("FAKE_DETAILS", "N/A")}
    print(json.dumps({"success": True, "runs": [run]}))
