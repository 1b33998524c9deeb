"""From a first visit of *Compare methods* to a table in a paper, in a real browser."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from dashboard import backend
from tests.e2e._browser import DESKTOP, chromium_path, faultless_dashboard, settle

pytestmark = [pytest.mark.browser, pytest.mark.slow]

if chromium_path() is None and os.environ.get("CI", "").lower() != "true":
    pytest.skip("needs Chromium", allow_module_level=True)

TEACHER = "digits-teacher-mtl"
#: Rows of a table and its header, in pixels.
ROW = 35


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home, data = (tmp_path_factory.mktemp(name) for name in ("home", "data"))
    with faultless_dashboard(home, data) as found:
        yield found


def _rows(table: Locator) -> list[list[str]]:
    """The cells of a table, which is painted on a canvas and told to screen readers."""
    return table.locator("canvas tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => cell.innerText))"
    )


def _sort_by(table: Locator, column: int) -> None:
    """Click a column's header where its cells are."""
    cell = table.locator("canvas tbody tr").first.locator("td").nth(column)
    left, width = cell.evaluate(
        "cell => { const b = cell.getBoundingClientRect(); return [b.left, b.width]; }"
    )
    here = table.bounding_box()
    table.locator(".dvn-scroller").click(
        position={"x": left + width / 2 - here["x"] if width > 1 else 300, "y": ROW / 2}
    )


def _tick(page: Page, table: Locator, row: int) -> None:
    table.locator(".dvn-scroller").click(position={"x": 17, "y": ROW * (row + 1) + ROW / 2})
    settle(page)


def _download(page: Page, label: str) -> str:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=label, exact=True).click()
    return Path(waiting.value.path()).read_text(encoding="utf-8")


def _columns_of(latex: str) -> list[int]:
    """How many cells each row of a tabular has."""
    body = latex.split("\\toprule")[1].split("\\bottomrule")[0].replace("\\midrule", "")
    rows = [row for row in body.split("\\\\") if row.strip()]
    return [len(re.split(r"(?<!\\)&", row)) for row in rows]


def test_from_the_leaderboard_to_two_students_and_a_paper(address: str, browser: Browser) -> None:
    context = browser.new_context(viewport=DESKTOP, accept_downloads=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))

    # Nobody asked for a radius: the page opens where figures are stored, and says so.
    page.goto(f"{address}/compare?dataset=digits&teacher={TEACHER}")
    table = page.get_by_test_id("stDataFrame").first
    table.wait_for(timeout=60_000)
    settle(page)
    expect(
        page.get_by_text("where the figures of this teacher's students are stored")
    ).to_be_visible()
    own = [c.name for c in backend.students("digits", TEACHER) if c.teacher.name == TEACHER]
    board = backend.board(backend.Choice("digits", TEACHER, own[0], 0.1), own)
    best = backend.ranked(board.methods, "gap_certified_mean")
    shown = _rows(table)
    assert [float(row[2]) for row in shown] == pytest.approx(best["gap_certified_mean"].tolist())
    expect(
        page.get_by_label(re.compile("^accuracy, clean against gap bound, mean"))
    ).to_be_visible()

    # A column's header sorts by it: ascending, then descending.
    _sort_by(table, 2)
    _sort_by(table, 2)
    expect(table.locator("canvas tbody tr").first.locator("td").first).to_have_text(shown[-1][0])
    worst = _rows(table)

    # What is ticked is what is seen, also in a sorted table.
    _tick(page, table, 0)
    _tick(page, table, 2)
    first, other = (_name(own, worst[row][0]) for row in (0, 2))
    named = f"Compare {worst[0][0]} with {worst[2][0]}, image by image"

    files = {label: _download(page, label) for label in ("CSV", "LaTeX")}
    rows = list(csv.DictReader(files["CSV"].splitlines()))
    assert [row["students"] for row in rows] == best["students"].tolist()
    assert [float(row["clean_accuracy"]) for row in rows] == best["clean_accuracy"].tolist()
    assert {row["teacher"] for row in rows} == {TEACHER}
    latex = files["LaTeX"]
    layout = re.search(r"\\begin\{tabular\}\{([lr]+)\}", latex)
    assert set(_columns_of(latex)) == {len(layout[1])} and len(_columns_of(latex)) == 1 + len(rows)
    plain = re.sub(r"\\[{}%&_#$]", "", latex)
    assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    assert not re.search(r"\de[-+]?\d", latex)

    page.get_by_role("button", name=named).click()
    settle(page)
    expect(page.get_by_text("Where they differ most")).to_be_visible()
    expect(page.get_by_label(re.compile(f"of {first} across, of {other} up"))).to_be_visible()

    page.get_by_role("tab", name="Seeds").click()
    settle(page)
    expect(page.get_by_label(re.compile("seeds and their mean, by method"))).to_be_visible()
    text = page.locator("body").inner_text()
    context.close()
    assert problems == [] and "Traceback" not in text and "Sorry" not in text


def _name(students: list[str], label: str) -> str:
    """The student that a row's short name means."""
    return next(name for name in students if name == f"digits-{label}-of-mtl")
