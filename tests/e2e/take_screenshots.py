"""Render every page on digits: ``python -m tests.e2e.take_screenshots [FOLDER]``.

Without a folder it renews the README's pictures in ``dashboard/screenshots``.  They show digits only,
which come with scikit-learn: the server gets an empty data folder, so no downloaded set can appear.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image

from dashboard.registry import all_views
from tests.e2e._browser import (
    DESKTOP,
    PHONE,
    ROOT,
    analyse_what_is_shown_first,
    chromium,
    dashboard,
    settle,
)

#: Colours a picture keeps: what a palette holds.
_COLOURS = 256


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=ROOT / "dashboard" / "screenshots", help="for them"
    )
    parser.add_argument("--phone", action="store_true", help="at the size of a phone")
    parser.add_argument("--dark", action="store_true", help="in the dark theme")
    parser.add_argument("--whole", action="store_true", help="whole pages, not only what fits")
    parser.add_argument("--query", default="dataset=digits", help="address parameters")
    parser.add_argument("--only", nargs="*", help="names of pages")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    size = PHONE if arguments.phone else DESKTOP
    with tempfile.TemporaryDirectory() as home:
        log = Path(home) / "server.log"
        data = str(Path(home) / "data")
        analyse_what_is_shown_first(Path(home), every_student=True)
        with dashboard(Path(home), log, FKD_DATA_DIR=data) as address, chromium() as browser:
            context = browser.new_context(
                viewport=size,
                color_scheme="dark" if arguments.dark else "light",
                device_scale_factor=1,
            )
            page = context.new_page()
            views = all_views()
            for view in views:
                if arguments.only and view.name not in arguments.only:
                    continue
                path = "" if view is views[0] else view.name
                page.goto(f"{address}/{path}?{arguments.query}")
                settle(page)
                if arguments.whole:
                    _grow(page, size)
                suffix = ("-phone" if arguments.phone else "") + ("-dark" if arguments.dark else "")
                target = arguments.folder / f"{view.name}{suffix}.png"
                _save(page.screenshot(), target)
                page.set_viewport_size(size)
                print(f"{target} {target.stat().st_size / 1000:.0f} kB")


def _save(png: bytes, target: Path) -> None:
    """Write a picture with a palette: a third of its size, and no difference to the eye."""
    with Image.open(io.BytesIO(png)) as picture:
        # Maximum coverage keeps rare colours, a ring around one point say, which median cut would lose;
        # k-means then moves the others to where most pixels are, so that large areas keep their tint.
        small = picture.convert("RGB").quantize(
            _COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=8, dither=Image.Dither.NONE
        )
        small.save(target, optimize=True)


def _grow(page, size: dict[str, int]) -> None:
    """Make the window as high as the page: Streamlit scrolls inside it."""
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": max(size["height"], int(height))})
    page.wait_for_timeout(600)


if __name__ == "__main__":
    main()
