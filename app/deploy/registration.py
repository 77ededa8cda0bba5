"""Ask a SuperLink whether it knows a node's key, before Flower is started.

`flower-supernode` takes twice as long to be refused, and is told the same of three causes, code 2004 ("Failed to
activate SuperNode."): the key was never registered, it was unregistered, or its node still counts as online. The
SuperLink keeps to itself which it was (flwr 1.41, `fleet_handlers.activate_node`). So the probe asks to be activated
with a heartbeat that no SuperLink takes: that looks for the key first (2004), and refuses the heartbeat of a node that
it knows (2003). Nothing is activated either way.

That a key was registered once, no answer to a node tells, as only registered ones are looked for. It is told to whoever
runs the deployment: `flwr supernode register` refuses such a key for good, as "already in use".
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from app.deploy.probe import SECONDS
from app.errors import UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

IMPOSSIBLE_HEARTBEAT = 0.0  # seconds


def check_key(address: str, authority: Path, key: Path, public_key: Path) -> None:
    """Raise UserError where the SuperLink has no node with this key.

    What else it may answer, or that it does not, is left to Flower, which asks again.
    """
    if _code(address, authority, key) == _not_found():
        raise UserError(
            f"The SuperLink at {address} does not let this node in, as the key {public_key} is not registered there. "
            "If it never was: 'flwr supernode register', where runs are started. If that says the key is in use, it "
            "was revoked ('flwr supernode unregister'), and stays so: make this node a new one, 'fedkeras deploy init "
            "--node' with another name."
        )


def _code(address: str, authority: Path, key: Path) -> int | None:
    """Return the code of Flower with which the SuperLink refuses; None where it does not say one."""
    import httpx
    from flwr.proto.fleet_pb2 import ActivateNodeRequest
    from flwr.supercore.error import FlowerError
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    private = _private(key)
    public = private.public_key()
    request = ActivateNodeRequest(public_key=public_key_to_bytes(public), heartbeat_interval=IMPOSSIBLE_HEARTBEAT)
    signer = NodeAuthHttpInterceptor(private, public)
    trust = ssl.create_default_context(cafile=authority)
    with FleetHttpClient(f"https://{address}", interceptors=[signer], verify=trust, timeout=SECONDS) as client:
        try:
            client.ActivateNode(request)
        except httpx.HTTPStatusError as refusal:
            error = FlowerError.from_json(refusal.response.text)
            return None if error is None else error.code
        except (httpx.HTTPError, ValueError):  # no answer, or none that a SuperLink gives
            return None
    return None


def _private(key: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        private = load_ssh_private_key(key.read_bytes(), None)
    except ValueError:
        private = None
    if not isinstance(private, EllipticCurvePrivateKey):
        raise UserError(f"{key} is no key of a node: make one with 'fedkeras deploy init --node'.")
    return private


def _not_found() -> int:
    from flwr.supercore.error import ApiErrorCode

    return int(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED)
