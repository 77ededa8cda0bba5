"""The ServerApp of Flower's TensorFlow quickstart, which prints when each round ended."""

import time

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from quickstart_client import load_model

app = ServerApp()


class TimedFedAvg(FedAvg):
    """Stock FedAvg with a line per round for whoever measures it."""

    def aggregate_train(self, server_round, replies):
        """Aggregate as FedAvg does."""
        replies = list(replies)
        result = super().aggregate_train(server_round, replies)
        good = sum(reply.has_content() for reply in replies)
        print(f"TIMED {server_round} {good} {time.perf_counter()}", flush=True)
        return result


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run stock FedAvg."""
    while len(list(grid.get_node_ids())) < 600:
        time.sleep(0.2)
    arrays = ArrayRecord(load_model(str(context.run_config["model"])).get_weights())
    share = int(context.run_config["clients-per-round"]) / 600
    strategy = TimedFedAvg(fraction_train=share, fraction_evaluate=0.0, min_available_nodes=600)
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(context.run_config["num-rounds"]))
