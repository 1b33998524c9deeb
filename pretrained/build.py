"""Build what is shipped: the teachers and students of the zoo, and the tables of their pairs.

    python pretrained/build.py                           # everything that is missing or out of date
    python pretrained/build.py --dataset digits mnist    # some data sets
    python pretrained/build.py --methods kd rslad        # some rows of the table, with their teachers
    python pretrained/build.py --jobs 3                  # three processes at a time, one thread each
    python pretrained/build.py --list                    # what is missing, and how long it will take
    python pretrained/build.py --report                  # what came out, and which claims hold

The zoo is the table in `zoo.py`.  A model whose card names the same specification (and, for a student,
the same teacher) is kept, wherever it was trained; an interrupted training goes on where it stopped.
Teachers come first.  A model that fails is named at the end, its students are left out, and the others
are made all the same; the exit code is then 1.  Then each student is analysed against its teacher on the
first 200 test images at the radii of its data set, each model's robustness alone is measured, and so are
the figures of the leaderboard.  Witnesses are images: those of digits are shipped, those of other sets
are not.  At the end the report of everything that is there is written to REPORT.md beside the models.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Before torch is loaded: idle threads sleep (see fkd.__main__).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT.parent))

from fkd.core.errors import FkdError  # noqa: E402
from fkd.core.memory import keep_freed_memory  # noqa: E402
from fkd.core.paths import pretrained_dir  # noqa: E402
from pretrained import tables  # noqa: E402
from pretrained.estimate import (  # noqa: E402
    LARGEST_TOTAL,
    Estimate,
    TableEstimate,
    duration,
    total_size,
)
from pretrained.jobs import Job, at_least_one, run_jobs, run_to_end  # noqa: E402
from pretrained.make import make  # noqa: E402
from pretrained.right import ship_right  # noqa: E402
from pretrained.specs import Member, is_current, registered, zoo  # noqa: E402
from pretrained.zoo import COPIES, DATA, STUDENTS, TEACHERS  # noqa: E402

LOG = logging.getLogger("build")

#: The report that is shipped, beside the models.
REPORT = "REPORT.md"


def chosen(
    members: Sequence[Member],
    *,
    datasets: Sequence[str] = (),
    only: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Member]:
    """The members asked for (all, where nothing narrows it down) and the teachers that they need.

    Raises:
        FkdError: a name in ``only`` is no model of the zoo.
    """
    strangers = set(only) - {member.name for member in members}
    if strangers:
        raise FkdError(
            f"The zoo has no model called '{min(strangers)}'; --list says which there are."
        )
    wanted = [
        member
        for member in members
        if (not datasets or member.dataset in datasets)
        and (not only or member.name in only)
        and (not methods or member.label in methods)
        and (not seeds or member.teacher is None or member.spec.seed in seeds)
    ]
    needed = {member.name for member in wanted} | {member.teacher for member in wanted}
    return [member for member in members if member.name in needed]


def training_jobs(members: Sequence[Member], device: str) -> list[Job]:
    """A job for each model that is not there; students wait for the teachers that are made too."""
    missing = [member for member in members if not _is_settled(member, members)]
    return [
        Job(m.name, _command("--train", m.name, device), frozenset({m.teacher} - {None}))
        for m in missing
    ]


def table_jobs(members: Sequence[Member], device: str) -> list[Job]:
    """A job for each model whose tables are not all there."""
    return [
        Job(f"tables of {member.name}", _command("--tables-of", member.name, device))
        for member in members
        if is_current(member.spec) and tables.missing(member)
    ]


def _is_settled(member: Member, members: Sequence[Member]) -> bool:
    """Whether the model is current and so will its teacher be: a new teacher makes students stale."""
    teachers = [other for other in members if other.name == member.teacher]
    return is_current(member.spec) and all(is_current(teacher.spec) for teacher in teachers)


def _command(task: str, name: str, device: str) -> tuple[str, ...]:
    return (sys.executable, str(ROOT / "build.py"), task, name, "--device", device)


def show_list(members: Sequence[Member], everything: Sequence[Member]) -> None:
    """Say of each model what is missing, and how long all of it will take."""
    estimate, table_estimate = Estimate(everything), TableEstimate()
    total, unknown = 0.0, 0
    for member in members:
        seconds: list[float | None] = []
        if is_current(member.spec):
            lacking = tables.missing(member)
            text = f"lacks {', '.join(lacking)}" if lacking else "current"
            if "analyses" in lacking:
                seconds.append(table_estimate.seconds(member))
        else:
            seconds += [estimate.seconds(member), table_estimate.seconds(member)]
            known = seconds[0]
            text = "missing or out of date, " + ("?" if known is None else duration(known))
        total += sum(value for value in seconds if value is not None)
        unknown += any(value is None for value in seconds)
        LOG.info("%s: %s", member.name, text)
    more = f", and {unknown} models of unknown time" if unknown else ""
    LOG.info(
        "%d models, about %s of one process for what is missing%s",
        len(members),
        duration(total),
        more,
    )
    sizes = [size for m in everything for size in (estimate.size(m), table_estimate.size(m))]
    known_sizes = [size for size in sizes if size is not None]
    LOG.info(
        "now %.1f MB of %.0f; all %d models and their analyses about %.0f MB, without %d of unknown size",
        total_size() / 1e6,
        LARGEST_TOTAL / 1e6,
        len(everything),
        sum(known_sizes) / 1e6,
        len({m.name for m in everything if None in (estimate.size(m), table_estimate.size(m))}),
    )


def build(
    members: Sequence[Member], everything: Sequence[Member], jobs: int, device: str, train: bool
) -> int:
    """Train what is missing, make the tables, drop what is stale, write the report.

    Returns:
        How many models or tables could not be made.
    """
    from pretrained.report import report, write_lines

    failures = run_jobs(training_jobs(members, device), jobs) if train else {}
    failures |= run_jobs(table_jobs(members, device), jobs)
    dropped = tables.prune(everything)
    if dropped:
        LOG.info("%d stale tables dropped", dropped)
    ship_right(everything)
    # What it lacks may not have been asked for, so it is no failure of this run.
    write_lines(report(everything)[0], pretrained_dir() / REPORT)
    for name, why in failures.items():
        LOG.error("not made: %s (%s)", name, why)
    size = total_size()
    if size > LARGEST_TOTAL:
        LOG.error("%.1f MB are more than the %.0f allowed", size / 1e6, LARGEST_TOTAL / 1e6)
    return len(failures)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    labels = [*TEACHERS, *STUDENTS, *COPIES]
    parser.add_argument("--dataset", choices=list(DATA), nargs="+", default=[], help="default: all")
    parser.add_argument("--only", metavar="NAME", nargs="+", default=[], help="these models only")
    parser.add_argument(
        "--methods",
        choices=labels,
        metavar="LABEL",
        nargs="+",
        default=[],
        help=f"rows of the table, default: all of {', '.join(labels)}",
    )
    seeds = sorted({seed for data in DATA.values() for seed in data.seeds})
    parser.add_argument(
        "--seeds", type=int, choices=seeds, nargs="+", default=[], help="of students, default: all"
    )
    parser.add_argument("--jobs", type=at_least_one, default=1, help="processes at a time")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="say what is missing and stop")
    what.add_argument("--tables", action="store_true", help="make the tables, train nothing")
    what.add_argument("--report", action="store_true", help="write the report of what is there")
    # What the processes are told that this one starts.
    what.add_argument("--train", metavar="NAME", help=argparse.SUPPRESS)
    what.add_argument("--tables-of", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="file of the report; default: standard output")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Refuse a wrong path before the work on the report, and one that nothing is written to.

    Raises:
        FkdError: in one sentence.
    """
    out: Path | None = arguments.out
    if out is None:
        return
    if not arguments.report:
        raise FkdError("--out names the file of a report; add --report or leave it out.")
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise FkdError(f"{out} cannot be written: name a file in a folder that exists.")


def main(words: Sequence[str] | None = None) -> int:
    """Read the command line and build; the exit code."""
    keep_freed_memory()
    arguments = _parser().parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        _check(arguments)
        everything = [m for name in DATA for m in zoo(name, arguments.device)]
        one = arguments.train or arguments.tables_of
        if one:
            (member,) = (m for m in everything if m.name == one)
            if arguments.train:
                make(member.spec)
            else:
                tables.make_tables(member, arguments.device)
            return 0
        everything = registered(everything)
        members = chosen(
            everything,
            datasets=arguments.dataset,
            only=arguments.only,
            methods=arguments.methods,
            seeds=arguments.seeds,
        )
        if not members:
            raise FkdError(
                "The zoo has no model that fits all of --dataset, --methods and --seeds; ask for "
                "fewer of them."
            )
        if arguments.list:
            show_list(members, everything)
            return 0
        if arguments.report:
            from pretrained.report import write_report

            return write_report(members, arguments.out)
        failed = build(members, everything, arguments.jobs, arguments.device, not arguments.tables)
    except FkdError as error:
        LOG.error("%s", error)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("FKD_PRETRAINED_DIR", str(ROOT))
    is_one_of_many = not {"--train", "--tables-of"}.isdisjoint(sys.argv)
    kept = "what is finished is kept, and the same command goes on from there."
    sys.exit(run_to_end(main, None if is_one_of_many else kept))
