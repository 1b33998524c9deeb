"""Train one model of the zoo, or copy its teacher, into its folder."""

from __future__ import annotations

import logging
import shutil
import time

from fkd.core.errors import RunError
from fkd.core.progress import Progress
from fkd.distillation import CopySpec, copy_model, train_model
from pretrained.specs import Spec, folder_of, is_current

LOG = logging.getLogger("build")
_REPORT_SECONDS = 15.0


def make(spec: Spec) -> None:
    """Make the model unless it is there; an interrupted training goes on where it stopped.

    Raises:
        FkdError: the specification cannot be carried out.
    """
    if is_current(spec):
        LOG.info("%s is up to date", spec.name)
        return
    out = folder_of(spec.name)
    shutil.rmtree(out, ignore_errors=True)
    log = _Log(spec.name)
    if isinstance(spec, CopySpec):
        model = copy_model(spec, out=out, progress=log)
    else:
        try:
            model = train_model(spec, out=out, progress=log)
        except RunError as error:
            if log.has_begun:
                raise
            # A checkpoint of an older specification is of no use to this script.
            LOG.info("%s starts afresh: %s", spec.name, error)
            model = train_model(spec, out=out, progress=log, resume=False)
    LOG.info("%s: done in %.0f s: %s", spec.name, model.card.seconds, model.card.metrics)


class _Log:
    """Progress as a line now and then."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.said = float("-inf")
        self.has_begun = False

    def __call__(self, progress: Progress) -> None:
        self.has_begun |= progress.stage == "training"
        if time.monotonic() - self.said < _REPORT_SECONDS:
            return
        self.said = time.monotonic()
        values = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in progress.values.items()
        )
        LOG.info(
            "%s: %s %d/%d: %s", self.name, progress.stage, progress.done, progress.total, values
        )
