"""`fedkeras deploy init` and `renew`: make what a deployment lacks, and never overwrite a key."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from app import atomic
from app.deploy import certificates
from app.deploy.folder import (
    Authority,
    Deployment,
    NodeFiles,
    check_secret,
    make_folder,
    read_bytes,
    write_public,
    write_secret,
)
from app.errors import UserError

SECRET_BYTES = 32
KEPT_OUT = b"# Keys are nothing to be committed.\n*\n"


def initialise(folder: Path, hosts: Sequence[str], nodes: Sequence[str], days: int) -> Iterator[str]:
    """Make what is not there yet of authority, server and nodes; yield a line for each thing made.

    The authority's key may be elsewhere where nothing is to be signed. Raises UserError, before anything is made, for
    unfit names and where the server's certificate is there, but not for all of the ``hosts``.
    """
    deployment, names = Deployment(folder), certificates.general_names(hosts)
    _refuse_others(deployment)
    files = [deployment.node(name) for name in nodes]
    if deployment.server.certificate.exists():
        _check_names(deployment, names)
    elif not hosts:
        raise UserError("The server's certificate needs a name: give --host, by which the nodes will reach the server.")
    make_folder(folder)
    if not (folder / ".gitignore").exists():
        write_public(folder / ".gitignore", KEPT_OUT)
    yield from _authority(deployment.authority)
    yield from _server(deployment, names, days)
    for node in files:
        yield from _node(node, deployment.authority)


def renew(folder: Path, hosts: Sequence[str], days: int) -> Iterator[str]:
    """Sign a new certificate for the server's key, for the hosts of the old one or for other ones."""
    deployment = Deployment(folder)
    old = _certificate(deployment.server.certificate)
    names = certificates.general_names(hosts) if hosts else certificates.names_of(old)
    signed = _signed(deployment, names, days)
    atomic.write_bytes(deployment.server.certificate, certificates.pem(signed))
    yield _told(deployment.server.certificate, signed)
    yield "Copy it to the server, and restart the SuperLink and the proxy there: they read it when they start."


def _refuse_others(deployment: Deployment) -> None:
    """Raise UserError for a folder in which there is something, but no deployment."""
    folder = deployment.folder
    if folder.is_dir() and any(folder.iterdir()) and not deployment.server.folder.is_dir():
        raise UserError(f"{folder} holds other files and no deployment: name a new folder for keys.")


def _authority(authority: Authority) -> Iterator[str]:
    make_folder(authority.folder)
    if not authority.key.exists() and not authority.certificate.exists():
        write_secret(authority.key, certificates.pem_key(certificates.new_key()))
        yield f"Made {authority.key}: keep it here, best offline; who has it can pass for the server."
    if not authority.certificate.exists():
        made = certificates.authority_certificate(_key(authority.key), certificates.AUTHORITY_DAYS)
        write_public(authority.certificate, certificates.pem(made))
        yield _told(authority.certificate, made)


def _server(deployment: Deployment, names: certificates.Names, days: int) -> Iterator[str]:
    server = deployment.server
    make_folder(server.folder)
    _copy(deployment.authority.certificate, server.authority)
    made: tuple[tuple[Path, Callable[[], bytes]], ...] = (
        (server.key, lambda: certificates.pem_key(certificates.new_key())),
        (server.superexec_secret, lambda: secrets.token_bytes(SECRET_BYTES)),
    )
    for path, content in made:
        if not path.exists():
            write_secret(path, content())
            yield f"Made {path}"
    if not server.certificate.exists():
        signed = _signed(deployment, names, days)
        write_public(server.certificate, certificates.pem(signed))
        yield _told(server.certificate, signed)


def _node(node: NodeFiles, authority: Authority) -> Iterator[str]:
    make_folder(node.folder)
    _copy(authority.certificate, node.authority)
    if not node.key.exists():
        write_secret(node.key, certificates.node_key(certificates.new_key()))
        yield f"Made {node.key}"
    if not node.public_key.exists():
        write_public(node.public_key, certificates.node_public_key(read_bytes(node.key), node.folder.name))
        yield f"Made {node.public_key}: register it with 'flwr supernode register'."


def _copy(source: Path, target: Path) -> None:
    """Put the authority's certificate beside what it is for; refuse another authority's."""
    content = read_bytes(source)
    if not target.exists():
        write_public(target, content)
    elif read_bytes(target) != content:
        raise UserError(f"{target} is another authority's than {source}: remove one, or use another folder.")


def _signed(deployment: Deployment, names: certificates.Names, days: int) -> x509.Certificate:
    authority = deployment.authority
    own, signer = _certificate(authority.certificate), _key(authority.key)
    if own.public_key() != signer.public_key():
        raise UserError(f"{authority.key} is not the key of {authority.certificate}: put the right one there.")
    if own.not_valid_after_utc - datetime.now(UTC) < certificates.DAY:
        raise UserError(f"{authority.certificate} is at its end: make a new deployment, with new keys for all.")
    server: ec.EllipticCurvePublicKey = _key(deployment.server.key).public_key()
    return certificates.server_certificate(own, signer, server, names, days)


def _check_names(deployment: Deployment, names: certificates.Names) -> None:
    present = certificates.names_of(_certificate(deployment.server.certificate))
    missing = [str(name.value) for name in names if name not in present]
    if missing:
        raise UserError(
            f"{deployment.server.certificate} is not for {', '.join(missing)}: 'fedkeras deploy renew' signs one for "
            "all that you name with --host."
        )


def _key(path: Path) -> certificates.Key:
    check_secret(path)
    try:
        return certificates.load_key(read_bytes(path))
    except (TypeError, ValueError):  # TypeError: it has a passphrase; what the library says might quote the file
        raise UserError(f"{path} is not a key that 'fedkeras deploy init' made: put the right one there.") from None


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_bytes(path))
    except ValueError:
        raise UserError(f"{path} is not a certificate in PEM: put the right one there.") from None


def _told(path: Path, certificate: x509.Certificate) -> str:
    end = f"Made {path}, valid until {certificate.not_valid_after_utc:%Y-%m-%d}"
    try:
        names = certificates.names_of(certificate)
    except x509.ExtensionNotFound:
        return end
    return f"{end}, for {', '.join(str(name.value) for name in names)}"
