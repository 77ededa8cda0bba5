"""Say why a SuperLink cannot be trusted or spoken to, before Flower is started.

Flower fails closed too, but `flower-supernode --insecure` tries a server with TLS again and again, and says its reasons
in the words of OpenSSL. The probe opens a connection of its own and sends nothing secret; whatever it finds, Flower
checks anew.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from app.errors import UserError

SECONDS = 4.0
_EXPIRED, _NOT_YET, _WRONG_HOST, _WRONG_ADDRESS = 10, 9, 62, 64  # X509_V_ERR_... of OpenSSL's x509_vfy.h
_HELLO = b"HEAD /health HTTP/1.0\r\n\r\n"
_BAD_REQUEST = b"400"  # what a web server says in plain text at its port for TLS


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[IPv6]:port". Raises UserError for anything else."""
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.netloc != address or "@" in address:
        raise UserError(f"'{address[:80]}' is no address of a SuperLink: give HOST:PORT, without https://.")
    return host, port


def check_server(address: str, authority: Path | None) -> str:
    """Return what was found there in a sentence; ``authority`` is the certificate trusted, None for no TLS.

    Raises UserError for a server that is not to be trusted, and one that speaks TLS where we do not, or the reverse.
    That nobody answers is no error: SuperLinks restart.
    """
    host, port = parse_address(address)
    try:
        with socket.create_connection((host, port), timeout=SECONDS) as connection:
            if authority is None:
                _check_plain(connection, address)
            else:
                _check_tls(connection, host, address, authority)
    except OSError as error:
        return f"Nobody answers at {address} yet ({error.strerror or error})."
    return f"The SuperLink at {address} answers."


def _check_plain(connection: socket.socket, address: str) -> None:
    connection.sendall(_HELLO)
    try:
        answer = connection.recv(64)
    except ConnectionResetError:
        answer = b""
    if not answer.startswith(b"HTTP/") or answer.split()[1:2] == [_BAD_REQUEST]:
        raise UserError(f"The server at {address} speaks TLS: leave --insecure out.")


def _check_tls(connection: socket.socket, host: str, address: str, authority: Path) -> None:
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError):
        raise UserError(f"{authority} cannot be read as a certificate in PEM: put the authority's there.") from None
    try:
        with context.wrap_socket(connection, server_hostname=host):
            return
    except ssl.SSLCertVerificationError as error:
        raise UserError(f"The server at {address} is not to be trusted: {_reason(error, host, authority)}") from None
    except ssl.SSLError as error:
        raise UserError(
            f"The server at {address} does not speak TLS ({error.reason}): start it with 'fedkeras deploy superlink', "
            "or, on one machine alone, both sides with --insecure."
        ) from None


def _reason(error: ssl.SSLCertVerificationError, host: str, authority: Path) -> str:
    if error.verify_code == _EXPIRED:
        return "its certificate has expired. 'fedkeras deploy renew' signs a new one."
    if error.verify_code == _NOT_YET:
        return "its certificate is not valid yet. Set the clock of this machine or of the server."
    if error.verify_code in (_WRONG_HOST, _WRONG_ADDRESS):
        return f"its certificate is for other names than {host}. 'fedkeras deploy renew --host ...' signs one for more."
    return f"its certificate is of another authority than {authority} ({error.verify_message})."
