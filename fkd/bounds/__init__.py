"""Certificates from above: bounds on the confidence gap and proofs of agreement."""

from typing import Any

from fkd.bounds.base import Certificate, CertificateConfig, CertificateResult, ChunkStore
from fkd.bounds.registry import CERTIFICATES


def certificate_config(values: dict[str, Any] | CertificateConfig) -> CertificateConfig:
    """The typed configuration of the certificate that ``values["name"]`` names (default: fast).

    Raises:
        ConfigError: unknown certificate, unknown setting, or a value outside its range.
    """
    if isinstance(values, CertificateConfig):
        return values
    return CERTIFICATES.get(values.get("name", "fast")).Config.parse(values)


def make_certificate(config: CertificateConfig) -> Certificate:
    """The certificate that ``config`` names.

    Raises:
        ConfigError: there is no certificate of that name.
    """
    return CERTIFICATES.get(config.name)(config)


__all__ = [
    "CERTIFICATES",
    "Certificate",
    "CertificateConfig",
    "CertificateResult",
    "ChunkStore",
    "certificate_config",
    "make_certificate",
]
