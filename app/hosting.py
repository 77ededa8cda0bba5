"""Which clients a node hosts and where their data lie: read from its ``--node-config`` and the run config.

- A node of a simulation (its config has Flower's ``partition-id``, and neither ``client-id`` nor ``data-path``) can
  host every client that the run config's data set is cut into. A deployed one with such a config can too.
- A deployed node names its own: ``client-id`` (several with commas between them) and ``data-path``, an ``.npz`` file or
  a folder of TFRecords; the keys of a file follow after a '?' as in ``dataset`` ("own.npz?y=label&classes=10"). Without
  a ``data-path`` the named clients are those of the run config's data set; without a ``client-id`` the node hosts every
  client in its file.

``device-class`` and ``region`` are for the metrics; ``state-dir`` is for `app.client_states`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from app.compose import data_spec
from app.config import RunConfig
from app.config_sentences import did_you_mean
from app.errors import UserError
from app.simulated_process import in_simulation
from app.user_paths import user_path
from strategies.population import ClientInfo
from tasks.data import ClientData, FederatedData
from tasks.datasets import DataSpec, kept_data

NODE_KEYS = ("client-id", "data-path", "device-class", "region", "state-dir")
FLOWER_KEYS = ("partition-id", "num-partitions")

NodeConfig = Mapping[str, object]


@dataclass(frozen=True)
class Hosted:
    """The clients of one node: ``names`` maps a client's id to its name in the data."""

    spec: DataSpec
    data: FederatedData
    names: Mapping[str, str]
    device_class: str = ""
    region: str = ""

    def clients(self) -> tuple[ClientInfo, ...]:
        """Return what the node tells the server of its clients."""
        return tuple(
            ClientInfo(client, self.data.num_train(name), self.device_class, self.region)
            for client, name in self.names.items()
        )

    def train(self, client: str) -> ClientData:
        """Return a client's training part."""
        return self.data.train(self._name(client))

    def test(self, client: str) -> ClientData:
        """Return a client's own test part; may be empty."""
        return self.data.test(self._name(client))

    def _name(self, client: str) -> str:
        if client not in self.names:
            raise UserError(f"The server asked for the client '{client}', which this node does not host.")
        return self.names[client]


def hosts_any(node_config: NodeConfig) -> bool:
    """Tell whether the node can host every client, as those of a simulation do."""
    return "partition-id" in node_config and not {"client-id", "data-path"} & node_config.keys()


def is_simulated(node_config: NodeConfig) -> bool:
    """Tell whether the node certainly belongs to a simulation, in which processes live from message to message."""
    return hosts_any(node_config) and in_simulation()


def hosted_clients(config: RunConfig, node_config: NodeConfig) -> Hosted:
    """Return the clients of a node. Raises UserError or TaskError with the sentence for whoever set the node up."""
    for key in node_config:
        if key not in (*NODE_KEYS, *FLOWER_KEYS):
            hint = did_you_mean(key, NODE_KEYS) or "."
            raise UserError(f"The node's --node-config has the key '{key}', but knows {', '.join(NODE_KEYS)}{hint}")
    spec = node_data_spec(config, node_config)
    data = kept_data(spec)
    if not data.client_ids:
        raise UserError(
            f"No client of the data '{data.name}' has examples to train on, as all are marked as test examples: "
            "correct the array 'test', or name other data."
        )
    names = {client: client for client in data.client_ids}
    if "client-id" in node_config:
        names = _named(str(node_config["client-id"]), data)
    elif not hosts_any(node_config) and _is_nameless(node_config, data):
        raise UserError(
            'The node does not say which client it is: start the SuperNode with --node-config \'client-id="NAME" '
            'data-path="FILE.npz"\'.'
        )
    device, region = (str(node_config.get(key, "")) for key in ("device-class", "region"))
    return Hosted(spec, data, names, device, region)


def node_data_spec(config: RunConfig, node_config: NodeConfig) -> DataSpec:
    """Return where the node's data lie: its own path, if it names one, or the run config's data set."""
    spec = data_spec(config)
    if "data-path" not in node_config:
        return spec
    file, mark, query = str(node_config["data-path"]).partition("?")
    path = user_path(file, "data-path")
    if not path.exists():
        raise UserError(f"The node's 'data-path' is '{path}', where there is nothing: correct it in --node-config.")
    kind = "tfrecord" if path.is_dir() else "npz"
    own = replace(spec.partition, kind="natural")
    return replace(spec, dataset=f"{kind}:{path.resolve()}{mark}{query}", partition=own, test_fraction=0.0)


def _is_nameless(node_config: NodeConfig, data: FederatedData) -> bool:
    """Tell whether nothing names the node's clients: two nodes whose files happen to be called alike are not one."""
    path = node_config.get("data-path")
    return path is None or data.client_ids == (Path(str(path).partition("?")[0]).stem,)


def _named(ids: str, data: FederatedData) -> dict[str, str]:
    clients = [client.strip() for client in ids.split(",") if client.strip()]
    if len(clients) == 1 and len(data.client_ids) == 1:
        return {clients[0]: data.client_ids[0]}
    missing = [client for client in clients if client not in data.client_ids]
    if missing or not clients:
        raise UserError(
            f"The node's 'client-id' is '{ids}', but the data '{data.name}' have {len(data.client_ids)} clients, from "
            f"'{data.client_ids[0]}' to '{data.client_ids[-1]}': correct it in --node-config."
        )
    return {client: client for client in clients}
