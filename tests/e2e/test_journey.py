"""One walk through the dashboard in a real browser, at the size of a desk and of a phone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from dashboard.registry import all_views
from tests.e2e._browser import (
    DESKTOP,
    PHONE,
    analyse_what_is_shown_first,
    chromium_path,
    faultless_dashboard,
    settle,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]

if chromium_path() is None and os.environ.get("CI", "").lower() != "true":
    pytest.skip("needs Chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home, data = (tmp_path_factory.mktemp(name) for name in ("home", "data"))
    with faultless_dashboard(home, data, analyse_what_is_shown_first) as found:
        yield found


class Watched:
    """A fresh browser context whose script errors are collected."""

    def __init__(self, browser: Browser, size: dict[str, int]) -> None:
        self.context = browser.new_context(viewport=size)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._note_stranger)

    def _note_stranger(self, request: Request) -> None:
        # A tool for models and data that may be private asks no other machine for anything.
        if urlparse(request.url).hostname not in ("127.0.0.1", None):
            self.problems.append(f"asked another machine: {request.url}")

    def close(self) -> None:
        text = self.page.locator("body").inner_text()
        self.context.close()
        assert self.problems == []
        assert "Traceback" not in text


def _open_by_navigation(page: Page, title: str, *, is_phone: bool) -> None:
    if is_phone:
        page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_test_id("stSidebarNavLink").filter(has_text=title).click()
    page.get_by_role("heading", level=1, name=title, exact=True).wait_for()
    settle(page)
    expand = page.get_by_test_id("stExpandSidebarButton")
    # Another page closes the sidebar by itself; the page one is on already does not.
    if is_phone and expand.count() == 0:
        page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()
        expand.wait_for()


def _example(page: Page) -> int:
    return int(page.get_by_role("spinbutton", name="Image", exact=True).input_value())


def _click_row(page: Page, row: int) -> None:
    """Tick a row of the table: it is painted on a canvas, header and rows 35 pixels high."""
    table = page.get_by_test_id("stDataFrame").first
    table.scroll_into_view_if_needed()
    table.locator(".dvn-scroller").click(position={"x": 17, "y": 35 * (row + 1) + 17})


def _click_lone_point(page: Page, *, but: int) -> int:
    """Click the scatter's point that is furthest from all others, ``but`` one; its example id."""
    chart = page.locator(".js-plotly-plot").first
    chart.scroll_into_view_if_needed()
    found = chart.evaluate(
        """(plot, but) => {
            const {xaxis, yaxis, _size} = plot._fullLayout;
            const points = plot.calcdata.flatMap((marks, trace) =>
                plot._fullData[trace].mode !== 'markers' ? [] : marks.map((mark, row) => ({
                    x: _size.l + xaxis.d2p(mark.x), y: _size.t + yaxis.d2p(mark.y),
                    id: Number(plot._fullData[trace].customdata[row]),
                })));
            const gap = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
            const room = a => Math.min(...points.filter(b => b.id !== a.id).map(b => gap(a, b)));
            return points.filter(a => a.id !== but)
                .reduce((best, point) => room(point) > room(best) ? point : best);
        }""",
        but,
    )
    box = chart.bounding_box()
    page.mouse.move(box["x"] + found["x"] - 1, box["y"] + found["y"])
    page.mouse.click(box["x"] + found["x"], box["y"] + found["y"])
    return int(found["id"])


def _shown_address(page: Page) -> str:
    # Playwright hears of history.replaceState late; the window itself knows.
    return page.evaluate("location.href")


@pytest.mark.parametrize(
    "size", [DESKTOP, PHONE], ids=lambda size: f"{size['width']}x{size['height']}"
)
def test_walk_select_share(address: str, browser: Browser, size: dict[str, int]) -> None:
    is_phone = size is PHONE
    first = Watched(browser, size)
    page = first.page
    page.goto(f"{address}/?dataset=digits")
    settle(page)
    expect(page.get_by_text("Where they differ most")).to_be_visible()

    for view in all_views():
        _open_by_navigation(page, view.title, is_phone=is_phone)
        assert page.get_by_test_id("stException").count() == 0
        # The page must fit its window: nothing scrolls sideways.
        overflow = page.evaluate(
            "(() => { const m = document.querySelector('[data-testid=stMain]');"
            " return m.scrollWidth - m.clientWidth; })()"
        )
        assert overflow <= 1, view.name

    _open_by_navigation(page, "Confidence gaps", is_phone=is_phone)
    before = _example(page)
    _click_row(page, 3)
    expect(page.get_by_role("spinbutton", name="Image", exact=True)).not_to_have_value(str(before))
    settle(page)
    chosen = _example(page)
    witness = page.get_by_role("img", name=f"Witness of image {chosen}")
    expect(witness).to_be_visible()
    assert witness.evaluate("image => image.complete && image.naturalWidth > 0")
    query = parse_qs(urlparse(_shown_address(page)).query)
    assert query["example"] == [str(chosen)]

    page.get_by_role("button", name="Copy link").click()
    code = page.get_by_test_id("stCode").filter(has_text=re.compile(r"^http")).first
    expect(code).to_be_visible()
    link = code.locator("code").inner_text().strip()
    assert parse_qs(urlparse(link).query)["example"] == [str(chosen)]
    pair = (
        page.get_by_test_id("stMarkdownContainer")
        .filter(has_text=re.compile(r"ε\s="))
        .first.inner_text()
    )
    picture = witness.get_attribute("src")
    first.close()

    second = Watched(browser, size)
    second.page.goto(link)
    settle(second.page)
    assert second.page.locator("h1").first.inner_text() == "Confidence gaps"
    assert _example(second.page) == chosen
    again = second.page.get_by_role("img", name=f"Witness of image {chosen}")
    expect(again).to_be_visible()
    # Pictures are served under the hash of their content.
    assert Path(urlparse(again.get_attribute("src")).path) == Path(urlparse(picture).path)
    badges = (
        second.page.get_by_test_id("stMarkdownContainer").filter(has_text=re.compile(r"ε\s=")).first
    )
    assert badges.inner_text() == pair
    second.close()


def test_points_and_keys_move_the_selection(address: str, browser: Browser) -> None:
    watched = Watched(browser, DESKTOP)
    page = watched.page
    page.goto(f"{address}/gaps?dataset=digits")
    settle(page)
    before = _example(page)
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("spinbutton", name="Image", exact=True)).not_to_have_value(str(before))
    settle(page)
    second = _example(page)
    chosen = _click_lone_point(page, but=second)
    expect(page.get_by_role("spinbutton", name="Image", exact=True)).to_have_value(str(chosen))
    settle(page)
    expect(page.get_by_role("img", name=f"Witness of image {chosen}")).to_be_visible()
    page.get_by_text("Gap against ε for this image").click()
    expect(page.get_by_label(re.compile("Confidence gap of image"))).to_be_visible(timeout=20_000)
    assert "curve=true" in _shown_address(page)
    watched.close()


def test_what_a_link_asks_for_in_vain_is_said(address: str, browser: Browser) -> None:
    watched = Watched(browser, DESKTOP)
    page = watched.page
    page.goto(f"{address}/?dataset=digits&teacher=nobody&epsilon=-3")
    page.get_by_text("The link asks for the teacher").wait_for()
    expect(page.get_by_text("epsilon must lie in")).to_be_visible()
    watched.close()


def test_an_analysis_started_on_the_page_appears_there(address: str, browser: Browser) -> None:
    watched = Watched(browser, DESKTOP)
    page = watched.page
    page.goto(f"{address}/?dataset=digits&epsilon=0.031&count=4")
    settle(page)
    page.get_by_role("button", name="Analyse 4 images").click()
    expect(page.get_by_text("Where they differ most")).to_be_visible(timeout=60_000)
    settle(page)
    expect(page.get_by_text("of 4 examples").first).to_be_visible()
    watched.close()


def test_a_search_is_started_watched_and_cancelled(address: str, browser: Browser) -> None:
    watched = Watched(browser, DESKTOP)
    page = watched.page
    page.goto(f"{address}/certificates?dataset=digits&epsilon=0.1&count=30")
    settle(page)
    page.get_by_test_id("stButtonGroup").get_by_text("Exact", exact=True).click()
    seconds = page.get_by_test_id("stMain").get_by_label("Seconds an image")
    expect(seconds).to_be_visible()
    seconds.fill("60")
    seconds.press("Enter")
    start = page.get_by_role("button", name="Analyse 30 images")
    expect(page.get_by_text("Exact, 60 s").first).to_be_visible()
    query = parse_qs(urlparse(_shown_address(page)).query)
    assert (query["level"], float(query["seconds"][0])) == (["Exact"], 60.0)
    start.click()
    # While a chart is drawn anew, the one before is still there, hidden.
    closing = page.locator('[aria-label^="The bracket of image"]:visible')
    expect(closing.first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Gap certified")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=60_000)
    expect(closing).to_have_count(0)
    # Nothing was stored, and the other levels are as they were.
    page.get_by_test_id("stButtonGroup").get_by_text("Fast", exact=True).click()
    expect(page.get_by_text("Exact, 60 s")).to_have_count(0)
    settle(page)
    assert "seconds" not in parse_qs(urlparse(_shown_address(page)).query)
    watched.close()
