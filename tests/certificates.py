"""Certificates for servers of the tests, valid for a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def self_signed(
    common_name: str, *critical: x509.ExtensionType, others: tuple[x509.ExtensionType, ...] = ()
) -> tuple[bytes, bytes]:
    """A new key and its certificate, both PEM, with extensions that are `critical` and others."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    key, start = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC) - timedelta(hours=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
    )
    for extension in others:
        made = made.add_extension(extension, critical=False)
    for extension in critical:
        made = made.add_extension(extension, critical=True)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret, made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
