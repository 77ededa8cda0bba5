"""Server optimizers: how the aggregated delta moves the global weights; one file for each."""

from strategies.server_optimizers.fedadagrad import FedAdagrad
from strategies.server_optimizers.fedadam import FedAdam
from strategies.server_optimizers.fedavgm import FedAvgM
from strategies.server_optimizers.fedyogi import FedYogi
from strategies.server_optimizers.keras_optimizer import KerasOptimizer
from strategies.server_optimizers.protocol import ServerOptimizer
from strategies.server_optimizers.sgd import ServerSGD

__all__ = ["FedAdagrad", "FedAdam", "FedAvgM", "FedYogi", "KerasOptimizer", "ServerOptimizer", "ServerSGD"]
