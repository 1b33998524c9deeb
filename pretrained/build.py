"""Build what is shipped: teachers and students for digits and MNIST, and the tables of their pairs.

    python pretrained/build.py                       # everything that is missing or out of date
    python pretrained/build.py --dataset digits      # one data set
    python pretrained/build.py --jobs 3              # three trainings at a time, one thread each
    python pretrained/build.py --list                # what would be done

Students are distilled, or copies of their teacher with rounded or pruned weights.  A model whose card
names the same specification (and, for a student, the same teacher) is kept; an interrupted training goes
on where it stopped.  Everything runs on the CPU, one thread a training, so that the same machine type
gives the same weights.  Then each student is analysed against its teacher on the first 200 test images at
every radius of `EPSILONS`.  Witnesses are images: those of digits are shipped, those of downloaded sets
are not.  Last, each model's robustness alone is measured (`robustness.py`): a minute a model.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before torch is loaded: idle threads sleep (see fkd.__main__).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT.parent))

from fkd.core.errors import FkdError  # noqa: E402
from fkd.core.memory import keep_freed_memory  # noqa: E402
from fkd.core.progress import Progress  # noqa: E402
from fkd.data import get_data_set  # noqa: E402
from fkd.distillation import CopySpec, TrainSpec, copy_model, train_model  # noqa: E402
from fkd.evaluation import AnalysisConfig, ResolvedPair, analyse, shipped_dir, summarise  # noqa: E402
from fkd.models import read_card  # noqa: E402
from pretrained.robustness import drop_others, make_missing  # noqa: E402

LOG = logging.getLogger("build")

#: Waiting threads sleep, so that trainings side by side do not slow each other down.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

DIGITS: dict[str, Any] = {
    "dataset": "digits",
    "batch_size": 64,
    "report_epsilons": (0.02, 0.05, 0.1),
}
MNIST: dict[str, Any] = {
    "dataset": "mnist",
    "batch_size": 128,
    "report_epsilons": (0.05, 0.1, 0.2, 0.3),
}
#: Radii of the shipped analyses, and how many test images each covers.
EPSILONS = (0.02, 0.05, 0.1)
COUNT = 200
TEACHER: dict[str, Any] = {"architecture": "cnn_small", "architecture_config": {"width": 16}}
#: Students of their teacher's shape: part of the name, way of copying, settings.
COPIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("8bit", "quantised", {"bits": 8, "granularity": "channel"}),
    ("pruned", "pruned", {"share": 0.3}),
)
STUDENT: dict[str, Any] = {"architecture": "cnn_small", "architecture_config": {"width": 4}}

Spec = TrainSpec | CopySpec


def zoo(dataset: str) -> list[Spec]:
    """Specifications of one data set's models, teachers first."""
    return [*trainings(dataset), *copies(dataset)]


def copies(dataset: str) -> list[CopySpec]:
    """The students that are copies of a teacher."""
    common = DIGITS if dataset == "digits" else MNIST
    return [
        CopySpec(
            name=f"{dataset}-{kind}-of-{teacher}",
            teacher=f"{dataset}-teacher-{teacher}",
            method=method,
            method_config=config,
            report_epsilons=common["report_epsilons"],
            device="cpu",
        )
        for teacher in ("pgd", "ibp")
        for kind, method, config in COPIES
    ]


def trainings(dataset: str) -> list[TrainSpec]:
    """The teachers and the distilled students."""
    is_digits = dataset == "digits"
    common = {**(DIGITS if is_digits else MNIST), "device": "cpu", "seed": 0}
    attack = {"epsilon": 0.1, "steps": 7 if is_digits else 5, "step_size": 0.03}
    teachers = [
        TrainSpec(
            name=f"{dataset}-teacher-pgd",
            method="pgd_at",
            method_config=attack,
            epochs=60 if is_digits else 8,
            **TEACHER,
            **common,
        ),
        TrainSpec(
            name=f"{dataset}-teacher-ibp",
            method="ibp",
            method_config={"epsilon": 0.06 if is_digits else 0.15, "clean_weight": 0.6},
            epochs=150 if is_digits else 16,
            learning_rate=0.002 if is_digits else 0.003,
            **TEACHER,
            **common,
        ),
    ]
    # Chosen among a dozen settings by the certified gap on digits (README, "The shipped models").
    faithful = {"epsilon": 0.1, "temperature": 2.0, "kappa": 3.0, "attack_weight": 3.0}
    # This teacher's own confidence cannot be certified at 0.1 on 8x8 pixels, so that a heavier
    # certificate only cost accuracy.
    lighter = {**faithful, "temperature": 1.0, "kappa": 1.0}

    def settings(teacher: str) -> dict[str, dict[str, Any]]:
        of_pgd_digits = is_digits and teacher == "pgd"
        return {"kd": {}, "rslad": attack, "faithful": lighter if of_pgd_digits else faithful}

    return teachers + [
        TrainSpec(
            name=f"{dataset}-{method}-of-{teacher}",
            method=method,
            method_config=config,
            teacher=f"{dataset}-teacher-{teacher}",
            # A faithful step costs ten times as much as one of plain KD.
            epochs=100 if is_digits else 8 if method == "faithful" else 12,
            **STUDENT,
            **common,
        )
        for teacher in ("pgd", "ibp")
        for method, config in settings(teacher).items()
    ]


def is_current(spec: Spec) -> bool:
    """Whether the folder holds the model that this specification makes."""
    if not (ROOT / spec.name / "card.json").is_file():
        return False
    card = read_card(ROOT / spec.name)
    if card.training_config != spec.model_dump(mode="json"):
        return False
    if spec.teacher is None:
        return True
    teacher = ROOT / spec.teacher
    return (
        (teacher / "card.json").is_file()
        and card.teacher is not None
        and card.teacher.model_hash == read_card(teacher).model_hash
    )


def make(spec: Spec) -> None:
    """Train one model, or copy its teacher, into its folder."""
    if is_current(spec):
        LOG.info("%s is up to date", spec.name)
        return
    shutil.rmtree(ROOT / spec.name, ignore_errors=True)
    reported = 0.0

    def log(progress: Progress) -> None:
        nonlocal reported
        if time.monotonic() - reported > 15 or "clean_accuracy" in progress.values:
            reported = time.monotonic()
            values = ", ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in progress.values.items()
            )
            LOG.info(
                "%s: %s %d/%d: %s", spec.name, progress.stage, progress.done, progress.total, values
            )

    out = ROOT / spec.name
    if isinstance(spec, CopySpec):
        model = copy_model(spec, out=out, progress=log)
    else:
        try:
            model = train_model(spec, out=out, progress=log)
        except FkdError:
            # A checkpoint of an older specification is of no use to this script.
            LOG.info("%s starts afresh", spec.name)
            model = train_model(spec, out=out, progress=log, resume=False)
    LOG.info("%s: done in %.0f s: %s", spec.name, model.card.seconds, model.card.metrics)


def waves(specs: list[Spec]) -> Iterator[list[Spec]]:
    """Teachers before the students that need them."""
    yield [spec for spec in specs if spec.teacher is None]
    yield [spec for spec in specs if spec.teacher is not None]


def make_side_by_side(specs: list[Spec], jobs: int) -> None:
    """Make models in ``jobs`` processes at a time.

    Raises:
        SystemExit: one failed.
    """
    for wave in waves(specs):
        waiting, running = list(wave), {}
        while waiting or running:
            while waiting and len(running) < jobs:
                spec = waiting.pop(0)
                running[spec.name] = subprocess.Popen(
                    [sys.executable, str(ROOT / "build.py"), "--only", spec.name],
                    env={**os.environ, **ONE_THREAD},
                )
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    if process.returncode:
                        raise SystemExit(f"{name} could not be built.")
            time.sleep(0.2)


def tables(specs: list[Spec]) -> list[AnalysisConfig]:
    """What the shipped tables are of: each student with its teacher at each radius."""
    return [
        AnalysisConfig(
            dataset=read_card(ROOT / spec.name).dataset,
            teacher=spec.teacher,
            student=spec.name,
            epsilon=epsilon,
            count=COUNT,
        )
        for spec in specs
        if spec.teacher is not None and is_current(spec)
        for epsilon in EPSILONS
    ]


def make_tables(specs: list[Spec]) -> None:
    """Make the tables that are missing and drop those of pairs that are no more."""
    folder = shipped_dir()
    keys = {}
    # A home of its own: the user's stored results must not pass for newly made ones.
    with tempfile.TemporaryDirectory() as home:
        os.environ["FKD_HOME"] = home
        for config in tables(specs):
            key = ResolvedPair(config).key()
            keys[key] = config.dataset
            if (folder / f"{key}.parquet").is_file():
                continue
            analysis = analyse(config, device="cpu")
            if not get_data_set(config.dataset).is_embedded:
                analysis = dataclasses.replace(analysis, witnesses={})
            folder.mkdir(exist_ok=True)
            analysis.write(folder / f"{key}.parquet")
            LOG.info(
                "%s at %g: %s", config.student, config.epsilon, summarise(analysis.table).verdict
            )
    for path in folder.iterdir():
        if path.is_file() and path.name.split(".")[0] not in keys:
            path.unlink()
    models = [spec.name for spec in specs if is_current(spec)]
    make_missing(models)
    drop_others(models)


def main() -> None:
    """Read the command line and build."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dataset", choices=["digits", "mnist"], help="default: both")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="these models only")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--tables", action="store_true", help="make the tables, train nothing")
    parser.add_argument("--list", action="store_true", help="say what is missing and stop")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    os.environ.setdefault("FKD_PRETRAINED_DIR", str(ROOT))
    names = [arguments.dataset] if arguments.dataset else ["digits", "mnist"]
    specs = [spec for name in names for spec in zoo(name)]
    if arguments.only:
        specs = [spec for spec in specs if spec.name in arguments.only]
    missing = [spec for spec in specs if not is_current(spec)]
    if arguments.list:
        for spec in specs:
            LOG.info("%s %s", spec.name, "missing or out of date" if spec in missing else "current")
    elif arguments.tables:
        make_tables([spec for name in ["digits", "mnist"] for spec in zoo(name)])
    elif arguments.only and len(specs) == 1:
        make(specs[0])
    else:
        make_side_by_side(missing, max(1, arguments.jobs))
        if not arguments.only:
            make_tables([spec for name in ["digits", "mnist"] for spec in zoo(name)])


if __name__ == "__main__":
    main()
