"""A worker with kinds of run of its own: some count, some hang, crash or are killed."""

import errno
import os
import signal
import subprocess
import sys
import time
from typing import Any, Literal

from pydantic import Field

from fkd.core.config import Config
from fkd.core.errors import DataError
from fkd.core.paths import home_dir
from fkd.core.progress import ProgressCallback, report
from fkd.runs import launch
from fkd.runs.kind import KINDS, RunKind


class FakeSpec(Config):
    name: str
    mode: Literal["count", "hang", "crash", "refuse", "vanish", "full", "exit"] = "count"
    steps: int = Field(default=3, ge=1)
    seconds: float = 0.0


class FakeRun(RunKind):
    """Counts, or misbehaves in a chosen way."""

    def check(self, spec: dict[str, Any]) -> dict[str, Any]:
        return FakeSpec.parse(spec).model_dump(mode="json")

    def title(self, spec: dict[str, Any]) -> str:
        return f"{spec['name']}: {spec['mode']}"

    def target(self, spec: dict[str, Any]) -> str:
        return f"fake:{spec['name']}"

    def run(self, spec: dict[str, Any], progress: ProgressCallback) -> str:
        checkpoint = home_dir() / f"{spec['name']}.checkpoint"
        start = int(checkpoint.read_text()) if checkpoint.exists() else 0
        for step in range(start + 1, spec["steps"] + 1):
            time.sleep(spec["seconds"])
            report(progress, "count", step, spec["steps"], loss=1.0 / step, start=start)
            checkpoint.write_text(str(step))
            if step == 2:
                _misbehave(spec["mode"])
        return f"{spec['name']}-{spec['steps']}"


def _misbehave(mode: str) -> None:
    if mode == "crash":
        raise ValueError("an inner detail nobody should see")
    if mode == "refuse":
        raise DataError("The data set 'x' is damaged; download it again.")
    if mode == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "model.safetensors")
    if mode == "exit":
        raise SystemExit(0)
    if mode == "vanish":
        time.sleep(1.2)  # what was reported so far reaches the database
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (home_dir() / "child.pid").write_text(str(child.pid))
        while True:
            time.sleep(0.1)


def install() -> None:
    """Make the fake kind known and let it run in this module."""
    KINDS.register("fake")(FakeRun)
    launch.WORKER_MODULE = "fake_run_worker"


if __name__ == "__main__":
    # The module is "__main__" here: use the importable copy, as pickle and registries want.
    import fake_run_worker

    from fkd.runs.worker import main

    fake_run_worker.install()
    sys.exit(main(sys.argv[1]))
