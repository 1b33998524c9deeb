"""Try settings of a student's method on train images that are held out: no test image chooses any.

    python pretrained/tune.py mnist-faithful-of-mtl --try kappa=1 --try kappa=3 temperature=1 --jobs 2

Each candidate is what the zoo's table says of that student, with the settings given in place of those of
the same name, trained on four fifths of the train images.  Of the fifth that is left, all tell the
accuracy and the first ``--count`` the gap found and certified, and the agreement certified, at the
radius of the leaderboard.  The teacher saw all train images, for every candidate alike.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

# Before torch is loaded: idle threads sleep (see fkd.__main__).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT.parent))

import pandas as pd  # noqa: E402
import torch  # noqa: E402

from fkd.bounds import make_certificate  # noqa: E402
from fkd.cli.options import pairs  # noqa: E402
from fkd.core.errors import ConfigError, FkdError  # noqa: E402
from fkd.core.precision import logits_of  # noqa: E402
from fkd.data import get_data_set  # noqa: E402
from fkd.distillation import TrainSpec, check_spec, train_model, training_examples  # noqa: E402
from fkd.evaluation import AnalysisConfig  # noqa: E402
from fkd.evaluation._attacked import attack_pair  # noqa: E402
from fkd.models import Model, load_model  # noqa: E402
from pretrained.jobs import at_least_one, run_to_end  # noqa: E402
from pretrained.specs import zoo  # noqa: E402
from pretrained.zoo import DATA  # noqa: E402

LOG = logging.getLogger("tune")

#: Share of the train images that candidates are trained on.
_SHARE = 0.8


def candidate(
    student: str, settings: Mapping[str, Any], *, epochs: int | None = None, seed: int = 0
) -> TrainSpec:
    """A student of the zoo with other settings, on a part of the train images.

    Raises:
        ConfigError: the zoo has no such student, or its method refuses the settings.
    """
    known = {m.name: m.spec for name in DATA for m in zoo(name) if isinstance(m.spec, TrainSpec)}
    spec = known.get(student)
    if spec is None or spec.teacher is None:
        raise ConfigError(
            f"The zoo distils no student called '{student}'; pretrained/build.py --list says which."
        )
    available = len(get_data_set(spec.dataset).load("train"))
    made = spec.model_copy(
        update={
            "method_config": {**spec.method_config, **settings},
            "train_count": int(_SHARE * available),
            "epochs": spec.epochs if epochs is None else epochs,
            "seed": seed,
            # Nothing is asked of test images but what the training itself notes.
            "report_count": 1,
            "report_steps": 1,
        }
    )
    check_spec(made)
    return made


def held_out(spec: TrainSpec) -> torch.Tensor:
    """Positions of the train images that a candidate does not see, ascending: int64 (N,)."""
    available = len(get_data_set(spec.dataset).load("train"))
    is_left = torch.ones(available, dtype=torch.bool)
    is_left[training_examples(spec, available)] = False
    return is_left.nonzero().squeeze(1)


def measure(spec: TrainSpec, student: Model, count: int) -> dict[str, float]:
    """What a candidate is judged by, on images that it was not trained on."""
    split, teacher = get_data_set(spec.dataset).load("train"), load_model(spec.teacher)
    ids = held_out(spec)
    theirs, own = (logits_of(m.network, split.images[ids]) for m in (teacher, student))
    near = ids[:count]
    config = AnalysisConfig(
        dataset=spec.dataset,
        teacher=spec.teacher,
        student=spec.teacher,
        epsilon=DATA[spec.dataset].score_epsilon,
        count=len(near),
    )
    region = config.ball.region(split.images[near], torch.arange(len(near)))
    networks, labels = (teacher.network, student.network), split.labels[near]
    found = attack_pair(config.attack, networks, region, labels, seed=config.seed)
    proved = make_certificate(config.certificate).bound(*networks, region, labels)
    return {
        "accuracy": float((own.argmax(1) == split.labels[ids]).double().mean()),
        "as teacher": float((own.argmax(1) == theirs.argmax(1)).double().mean()),
        "gap found": float(found.gap.mean()),
        "gap certified": float(proved.gap.clamp(0.0, 1.0).mean()),
        "agreement certified": float(proved.agrees.double().mean()),
    }


def tried(spec: TrainSpec, count: int) -> dict[str, float]:
    """Train one candidate and measure it (in a process of its own)."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        model = train_model(spec, out=Path(folder) / "candidate")
        seconds = time.monotonic() - started
        return {**measure(spec, model, count), "seconds": seconds}


def tune(specs: Mapping[str, TrainSpec], *, count: int, jobs: int = 1) -> pd.DataFrame:
    """All candidates, ``jobs`` at a time, one thread each.

    Args:
        specs: by what they are called.
        count: held-out images that are attacked and certified.
        jobs: processes.
    """
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = {name: pool.submit(tried, spec, count) for name, spec in specs.items()}
        rows = []
        try:
            for name, future in waiting.items():
                rows.append({"settings": name, **future.result()})
                LOG.info("%s", rows[-1])
        except BaseException:
            # The pool would wait for the trainings that run, which may take an hour each.
            for process in active_children():
                process.terminate()
            raise
    return pd.DataFrame(rows)


def main(words: Sequence[str] | None = None) -> int:
    """Read the command line and try; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("student", help="a student of the zoo")
    parser.add_argument(
        "--try",
        dest="tries",
        action="append",
        nargs="*",
        metavar="KEY=VALUE",
        help="a candidate's settings (none: the zoo's own); once for each candidate",
    )
    parser.add_argument(
        "--count", type=at_least_one, default=200, help="images attacked and certified"
    )
    parser.add_argument("--epochs", type=int, help="default: the zoo's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=at_least_one, default=1, help="processes at a time")
    arguments = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        specs = {}
        for tries in arguments.tries or [[]]:
            for seed in arguments.seeds:
                name = f"{' '.join(tries) or 'as in the zoo'}, seed {seed}"
                specs[name] = candidate(
                    arguments.student, pairs("try", tries), epochs=arguments.epochs, seed=seed
                )
        table = tune(specs, count=arguments.count, jobs=arguments.jobs)
    except FkdError as error:
        LOG.error("%s", error)
        return 1
    sys.stdout.write(table.round(4).to_string(index=False) + "\n")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("FKD_PRETRAINED_DIR", str(ROOT))
    sys.exit(run_to_end(main, "candidates that were finished are in the lines above."))
