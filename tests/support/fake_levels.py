"""Certificates for tests of everything above them: any bracket, any points, live reports, at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import Field
from torch import Tensor

from fkd.bounds import CERTIFICATES, Certificate, CertificateConfig
from fkd.bounds.crown import JointCrown
from fkd.core.progress import report

#: Registered by `fake_level`; no certificate of the project has this name.
NAME = "staged"
#: The bracket that is reported of every example: seconds, lower, upper, open, evaluated.
STEPS = ((0.0, 0.10, 0.90, 1, 1), (0.5, 0.20, 0.60, 8, 20), (1.0, 0.30, 0.40, 5, 64))


class StagedConfig(CertificateConfig):
    """As the settings of branch and bound."""

    name: str = Field(default=NAME, description="Registry name of the certificate.")
    seconds: float = Field(default=10.0, gt=0, le=86400, description="Time budget an example.")
    tolerance: float = Field(default=0.001, ge=0, le=1, description="Stop when this narrow.")


@contextmanager
def fake_level(
    points: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[type[Certificate]]:
    """Register a certificate that bounds like auto_LiRPA's and reports like branch and bound.

    Args:
        points: makes the points it claims to have visited from the images (N, C, H, W).
    """

    class Staged(Certificate):
        """A stage set for tests."""

        Config = StagedConfig

        def bound(self, teacher, student, region, classes, *, progress=None):
            known = JointCrown(CertificateConfig(name="crown")).bound(
                teacher, student, region, classes
            )
            for example in range(len(region)):
                for seconds, lower, upper, still_open, evaluated in STEPS:
                    report(
                        progress,
                        "certificate",
                        example,
                        len(region),
                        example=example,
                        upper=upper,
                        lower=lower,
                        open=still_open,
                        evaluated=evaluated,
                        seconds=seconds,
                    )
            report(progress, "certificate", len(region), len(region))
            made = None if points is None else points(region.images)
            return dataclasses.replace(known, points=made)

    CERTIFICATES.register(NAME)(Staged)
    try:
        yield Staged
    finally:
        CERTIFICATES.unregister(NAME)
