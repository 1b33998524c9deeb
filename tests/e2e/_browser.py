"""A dashboard server and a Chromium for browser tests and screenshots."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_path() -> str | None:
    """A Chromium of the system; None where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def dashboard(home: Path, log: Path, **environment: str) -> Iterator[str]:
    """Serve the dashboard with a home folder of its own; its address.

    Args:
        home: ``FKD_HOME`` of the server.
        log: file for the server's output.
        environment: further variables.
    """
    port = _free_port()
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/app.py"]
    options = ["--server.port", str(port), "--server.headless", "true"]
    options += ["--server.fileWatcherType", "none"]
    variables = {**os.environ, "FKD_HOME": str(home), "OMP_NUM_THREADS": "2", **environment}
    with log.open("wb") as output:
        server = subprocess.Popen(
            command + options, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, server, log)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@contextlib.contextmanager
def faultless_dashboard(
    home: Path, data: Path, prepare: Callable[[Path], object] | None = None
) -> Iterator[str]:
    """As `dashboard`, without downloaded sets; afterwards no error may have been noted anywhere.

    Args:
        home: an empty folder.
        data: another one.
        prepare: called with ``home`` before the server starts.
    """
    if prepare is not None:
        prepare(home)
    log = home / "server.log"
    with dashboard(home, log, FKD_DATA_DIR=str(data)) as address:
        yield address
    assert "Traceback" not in log.read_text()
    assert not (home / "logs").exists(), "the guard noted an unexpected error"


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"The dashboard ended at once: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"The dashboard did not come up: {log.read_text()[-2000:]}")


def analyse_what_is_shown_first(home: Path, *, every_student: bool = False) -> None:
    """Store the analysis that the first page shows; at once where it is shipped.

    Args:
        home: ``FKD_HOME`` of the server to come.
        every_student: also those of the same teacher's other students, what carries over to them, and the
            measures of the first.
    """
    code = """
import sys
from dashboard import backend
from dashboard.backend.catalogue import is_student_of
from fkd.evaluation import analyse, measure_pair, transfer_witnesses
teacher, student, epsilon = backend.default_pair("digits")
own = [card.name for card in backend.students("digits", teacher) if is_student_of(card, teacher)]
for name in own if len(sys.argv) > 1 else [student]:
    analyse(backend.Choice("digits", teacher, name, epsilon).config())
if len(sys.argv) > 1:
    shown = backend.Choice("digits", teacher, student, epsilon)
    transfer_witnesses(backend.transfer_of(shown, own))
    measure_pair(backend.measures_of(shown))
"""
    variables = {**os.environ, "FKD_HOME": str(home), "OMP_NUM_THREADS": "2"}
    more = ["all"] if every_student else []
    subprocess.run([sys.executable, "-c", code, *more], cwd=ROOT, env=variables, check=True)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_path(), args=_ARGUMENTS, timeout=60_000
        )
        try:
            yield browser
        finally:
            browser.close()


def settle(page: Page, timeout: float = 30_000) -> None:
    """Wait until the page's script has run to its end and nothing is being drawn."""
    page.locator("h1").first.wait_for(timeout=timeout)
    page.wait_for_function(
        """() => {
            const app = document.querySelector('[data-testid="stApp"]');
            const busy = document.querySelector('[data-testid="stStatusWidget"], [data-stale="true"]');
            const spin = document.querySelector('[data-testid="stSpinner"], [data-testid="stSkeleton"]');
            return app && app.getAttribute('data-test-script-state') === 'notRunning'
                && !busy && !spin;
        }""",
        timeout=timeout,
    )
    # Charts and tables are drawn a moment after their elements are there.
    page.wait_for_timeout(400)
