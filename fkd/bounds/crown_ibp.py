"""The same certificate with hidden bounds by intervals: faster, wider (CROWN-IBP, 1906.06316)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from fkd.bounds.base import CertificateConfig
from fkd.bounds.crown import JointCrown
from fkd.bounds.registry import CERTIFICATES


class CrownIBPConfig(CertificateConfig):
    """`CertificateConfig` under this certificate's name."""

    name: str = Field(default="crown_ibp", description="Registry name of the certificate.")


@CERTIFICATES.register("crown_ibp")
class JointCrownIBP(JointCrown):
    """Linear relaxation over interval hidden bounds: for networks too large for CROWN."""

    Config: ClassVar[type[CertificateConfig]] = CrownIBPConfig
    method: ClassVar[str] = "CROWN-IBP"
