"""The same certificate with hidden bounds by intervals: faster, wider (CROWN-IBP, 1906.06316)."""

from __future__ import annotations

from typing import ClassVar

from fkd.bounds.crown import JointCrown
from fkd.bounds.registry import CERTIFICATES


@CERTIFICATES.register("crown_ibp")
class JointCrownIBP(JointCrown):
    """Linear relaxation over interval hidden bounds: for networks too large for CROWN."""

    method: ClassVar[str] = "CROWN-IBP"
