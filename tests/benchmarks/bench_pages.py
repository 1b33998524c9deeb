"""How long the server works on a page: first visit against second, in the same run.

Run ``python -m tests.benchmarks.bench_pages [--limit 0.5]``.  Each page is visited in one session of the
whole app without a browser (AppTest), on the pair that the dashboard shows by default; the pair's
analysis is stored before.  The second visit is the median of five.  Then *Compare methods* with all
students of the teacher that has most of them, each tab in a session of its own with empty caches: its
first visit against that with one student, and against its own second one.  Exit status 1 if a second
visit takes longer than the limit, or a first one of *Compare methods* longer than ``--first-limit``.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
REPEATS = 5


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=0.5, help="seconds for a second visit")
    parser.add_argument(
        "--first-limit", type=float, default=3.0, help="seconds for a first visit with all students"
    )
    limits = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as home:
        os.environ["FKD_HOME"] = home
        status = _measure(limits.limit)
        return status or _many_students(limits.first_limit)


def _measure(limit: float) -> int:
    started = time.perf_counter()
    from streamlit.testing.v1 import AppTest

    from dashboard import backend
    from dashboard.registry import all_views
    from fkd.evaluation import analyse

    print(f"imports            {time.perf_counter() - started:8.3f} s")
    _, name, epsilon = backend.default_pair("digits")
    card = next((c for c in backend.students("digits", "") if c.name == name), None)
    if card is None or card.teacher is None:
        print("There is no digits pair; make one with: make pretrained", file=sys.stderr)
        return 2
    choice = backend.Choice("digits", card.teacher.name, card.name, epsilon)
    started = time.perf_counter()
    analyse(choice.config())
    print(f"the analysis       {time.perf_counter() - started:8.3f} s (0 where it is shipped)")
    print(f"\n{card.name} against {card.teacher.name}, epsilon {epsilon:g}, {choice.count} images")
    print(f"{'page':<16}{'first visit':>14}{'second visit':>14}{'ratio':>8}")

    app = AppTest.from_file(str(APP), default_timeout=120)
    app.query_params.update(
        {
            "dataset": "digits",
            "teacher": card.teacher.name,
            "student": card.name,
            "epsilon": f"{epsilon:g}",
        }
    )
    slowest = 0.0
    for view in all_views():
        seconds = []
        for _ in range(1 + REPEATS):
            app.switch_page(f"views/{view.name}.py")
            started = time.perf_counter()
            app.run()
            seconds.append(time.perf_counter() - started)
            if app.exception or app.error or app.title[0].value != view.title:
                print(f"{view.name} did not draw.", file=sys.stderr)
                return 2
        first, second = seconds[0], statistics.median(seconds[1:])
        slowest = max(slowest, second)
        print(f"{view.name:<16}{first:>12.3f} s{second:>12.3f} s{first / second:>8.1f}")
    print(f"\nslowest second visit {slowest:.3f} s, limit {limit:g} s")
    return 0 if slowest < limit else 1


def _many_students(limit: float) -> int:
    """Tabs of *Compare methods* with one student and with all of a teacher's."""
    from dashboard import backend
    from dashboard.backend.catalogue import is_student_of

    own = {
        teacher.name: [
            card.name
            for card in backend.students("digits", teacher.name)
            if is_student_of(card, teacher.name)
        ]
        for teacher in backend.teachers("digits")
    }
    teacher = max(own, key=lambda name: len(own[name]))
    usual = backend.Choice("digits", teacher, own[teacher][0], backend.default_pair("digits")[2])
    # Where nothing is measured, a table of what analyses tell.
    epsilon = backend.stored_radius(usual) or usual.epsilon
    count = len(own[teacher])
    print(f"\nCompare methods, {count} students of {teacher}, epsilon {epsilon:g}")
    print(
        f"{'tab':<16}{'one student':>14}{f'all {count}':>14}{'ratio':>8}{'again':>12}{'ratio':>8}"
    )
    slowest = 0.0
    for part in ("Leaderboard", "Gaps", "Seeds", "Two students", "Confidence", "Settings"):
        address = {"dataset": "digits", "teacher": teacher, "epsilon": f"{epsilon:g}", "part": part}
        # A tab's own modules are for once, so it is drawn with one student twice.
        times = [
            _visits({**address, **more})
            for more in ({"students": own[teacher][0]}, {"students": own[teacher][0]}, {})
        ]
        if None in times:
            print(f"{part} did not draw.", file=sys.stderr)
            return 2
        (_, (one, _), (first, again)) = times
        slowest = max(slowest, first)
        print(
            f"{part:<16}{one:>12.3f} s{first:>12.3f} s{first / one:>8.1f}{again:>10.3f} s"
            f"{first / again:>8.1f}"
        )
    print(f"\nslowest first visit {slowest:.3f} s, limit {limit:g} s")
    return 0 if slowest < limit else 1


def _visits(address: dict[str, str]) -> tuple[float, float] | None:
    """Seconds of a first visit of *Compare methods* with empty caches and of a second one."""
    import streamlit as st
    from streamlit.testing.v1 import AppTest

    st.cache_data.clear()
    st.cache_resource.clear()
    app = AppTest.from_file(str(APP), default_timeout=120)
    app.query_params.update(address)
    app.switch_page("views/compare.py")
    seconds = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        app.run()
        seconds.append(time.perf_counter() - started)
        if app.exception or app.error or app.title[0].value != "Compare methods":
            return None
    return seconds[0], statistics.median(seconds[1:])


if __name__ == "__main__":
    raise SystemExit(main())
