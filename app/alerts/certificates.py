"""How long certificates are still valid."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

DAY = timedelta(days=1)


def days_left(files: Sequence[Path], now: datetime | None = None) -> dict[str, float | str]:
    """Return, for each PEM file, the days until the first of its certificates expires, or why that is not known."""
    moment = now or datetime.now(UTC)
    return {str(file): _days_left(file, moment) for file in files}


def _days_left(file: Path, now: datetime) -> float | str:
    try:
        chain = x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        return str(error.strerror)
    except ValueError:
        return "it is not a PEM file of certificates"
    return min(certificate.not_valid_after_utc - now for certificate in chain) / DAY
