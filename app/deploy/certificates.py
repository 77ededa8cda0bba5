"""The certificate authority of a deployment, its server's certificate, and the keys of its nodes.

All keys are ECDSA on P-384 (NIST FIPS 186-5), which Flower 1.41 asks of its nodes and TLS serves as well; certificates
are X.509 v3 as RFC 5280 has it. The authority signs servers only (path length 0, one use) and is trusted for nothing
but this deployment, as each side names its file; so it has no name constraints, which would tie it to the hosts that
were known when it was made. Nodes have no certificates: Flower knows them by their public keys, which are registered.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.errors import UserError

AUTHORITY_DAYS = 3650
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names that every server certificate has: SuperExec and proxy reach the SuperLink by them."""

DAY = timedelta(days=1)
CLOCK_SKEW = timedelta(hours=1)  # how far behind a node's clock may be
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")

Key = ec.EllipticCurvePrivateKey
Names = list[x509.GeneralName]


def new_key() -> Key:
    """Return a new key, from the operating system's entropy."""
    return ec.generate_private_key(ec.SECP384R1())


def pem_key(key: Key) -> bytes:
    """Return the key in PKCS 8, without a passphrase: file modes guard it, as the server must start unattended."""
    return _private(key, serialization.PrivateFormat.PKCS8)


def node_key(key: Key) -> bytes:
    """Return the key in OpenSSH's format, the one that `flower-supernode` reads."""
    return _private(key, serialization.PrivateFormat.OpenSSH)


def _private(key: Key, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def node_public_key(key: bytes, name: str) -> bytes:
    """Return the public half of `node_key` as the line that `flwr supernode register` reads."""
    public = serialization.load_ssh_private_key(key, password=None).public_key()
    line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line + f" {name}\n".encode()


def load_key(data: bytes) -> Key:
    """Return the key that `pem_key` wrote. Raises ValueError for anything else."""
    key = serialization.load_pem_private_key(data, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("it is no elliptic curve key")
    return key


def general_names(hosts: Sequence[str]) -> Names:
    """Return host names and addresses, without repetition, as a certificate holds them, `LOOPBACK` last."""
    return [_general_name(host) for host in dict.fromkeys([*map(str.lower, hosts), *LOOPBACK])]


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST.fullmatch(host) or host.replace(".", "").isdigit():
        raise UserError(f"--host is '{host[:80]}', but must be a host name or an IP address, without a port.")
    return x509.DNSName(host)


def authority_certificate(key: Key, days: int, now: datetime | None = None) -> x509.Certificate:
    """Return the certificate of a new authority, signed by itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedkeras deployment authority")])
    builder = _builder(name, name, key.public_key(), days, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return builder.sign(key, hashes.SHA384())


def server_certificate(
    authority: x509.Certificate, signer: Key, server: ec.EllipticCurvePublicKey, names: Names, days: int,
    now: datetime | None = None,
) -> x509.Certificate:  # fmt: skip
    """Return a server's certificate, which ends no later than the authority's."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedkeras SuperLink")])
    left = (authority.not_valid_after_utc - (now or datetime.now(UTC))) // DAY
    builder = _builder(name, authority.subject, server, min(days, left), now)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return builder.add_extension(issuer, critical=False).sign(signer, hashes.SHA384())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int, now: datetime | None
) -> x509.CertificateBuilder:
    start = now or datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(start - CLOCK_SKEW).not_valid_after(start + timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    """Return the one use of a key: to sign certificates (and their revocation), or what TLS signs."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def names_of(certificate: x509.Certificate) -> Names:
    """Return the names and addresses that a server's certificate is for."""
    return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
