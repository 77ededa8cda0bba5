"""Logs as Flower 1.41 really streams them (recorded, shortened), for the tests of what a user sees of them."""

START = """
Flower configuration not found. Created default configuration at /home/user/.flwr/config.toml

Starting local SuperLink on 127.0.0.1:39091...
Using SuperLink: local (127.0.0.1:39091)
Successfully started run 42
\x1b[92mINFO \x1b[0m:      Starting logstream for run_id `42`
\x1b[92mINFO \x1b[0m:      Starting Flower Simulation
\x1b[93mWARNING \x1b[0m:   Since flwr 1.32, default simulated SuperNodes changed from 10 to 2.
\x1b[92mINFO \x1b[0m:      Federation `@none/default` (2 simulated SuperNodes)
\x1b[92mINFO \x1b[0m:      To change federation size, use the following command:
\x1b[92mINFO \x1b[0m:      \tflwr federation simulation-config @none/default <superlink> --num-supernodes <N>
Successfully installed fedkeras to /home/user/.flwr/apps/fedkeras.fedkeras.0.1.0.7c782088.
INFO Run directory: /tmp/runs/20261121-090733-digits
"""

WORKERS = """\
/venv/lib/python3.11/site-packages/ray/_private/worker.py:2051: FutureWarning: Tip: In future versions of Ray, Ray will
  warnings.warn(
\x1b[36m(pid=9273)\x1b[0m WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
\x1b[36m(pid=9273)\x1b[0m I0000 00:00:1795250182.469445    9273 port.cc:153] oneDNN custom operations are on.
I0000 00:00:1795250182.471835    9273 cudart_stub.cc:31] Could not find cuda drivers on your machine.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
"""

ROUNDS = """\
INFO round 1/2 | central accuracy 61.0 % | 10/10 clients
WARNING 2 clients have no test part
INFO round 2/2 | central accuracy 72.5 % | 10/10 clients
"""

END = """\
\x1b[36m(ClientAppActor pid=9273)\x1b[0m \x1b[93mWARNING \x1b[0m:   Manually terminating ClientAppActor
\x1b[92mINFO \x1b[0m:      \n"""

_FRAMES = """\
\x1b[91mERROR \x1b[0m:     Simulation raised an exception
Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/flwr/simulation/app.py", line 337, in run_simulation_process
    simulation_result = _run_simulation(
                        ^^^^^^^^^^^^^^^^
  File "/home/user/.flwr/apps/fedkeras/app/server.py", line 24, in main
    raise failure
"""

_EXIT = """\
\x1b[91mERROR \x1b[0m:     Exit Code: 700

An unhandled exception occurred when running the simulation.

For more information, visit: <https://flower.ai/docs/framework/1.41/en/ref-exit-codes/700.html>
"""

COMPLETED = START + WORKERS + ROUNDS + END
REFUSED = (
    START + "ERROR Labels must be below 10.\n" + _FRAMES + "app.errors.RunRefused: Labels must be below 10.\n" + _EXIT
)
CRASHED = START + _FRAMES + "ZeroDivisionError: division by zero\n" + _EXIT
CHAINED = (
    START
    + _FRAMES
    + "KeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n\n"
    + "\n".join(_FRAMES.splitlines()[1:])
    + "\napp.errors.RunRefused: Labels must be below 10.\n"
    + _EXIT
)
UNKNOWN_CONNECTION = """\
╭─ Error ──────────────────────────────────────────────────────────────────────╮
│ An unexpected error occurred while reading the Flower configuration file     │
│ (/home/user/config.toml).                                                    │
╰──────────────────────────────────────────────────────────────────────────────╯
"""
