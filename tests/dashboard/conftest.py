"""Pages without a browser: the whole app in AppTest, on analyses small enough to make here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard import backend
from dashboard.registry import all_views
from fkd.core.config import Config
from fkd.core.paths import home_dir
from fkd.evaluation import AnalysisConfig, analyse, list_analyses
from fkd.models import ModelCard, read_card
from fkd.runs import RunRecord
from tests.support.pairs import save_digits_model
from tests.support.soundness import sampled_students

APP = str(Path(__file__).resolve().parents[2] / "dashboard" / "app.py")
PAGES = [view.name for view in all_views()]
COUNT = 6
EPSILON = 0.05


class Opened:
    """The app as a browser session would see it."""

    def __init__(self, **query: object) -> None:
        self.app = AppTest.from_file(APP, default_timeout=60)
        self.app.query_params.update({key: str(value) for key, value in query.items()})

    def page(self, name: str) -> Opened:
        """Go to a page; the sidebar's choice stays, as it does in a browser."""
        self.app.switch_page(f"views/{name}.py").run()
        return self

    def rerun(self) -> Opened:
        self.app.run()
        return self

    @property
    def title(self) -> str:
        return self.app.title[0].value

    @property
    def errors(self) -> list[str]:
        return [element.value for element in self.app.error]

    @property
    def warnings(self) -> list[str]:
        return [element.value for element in self.app.warning]

    @property
    def text(self) -> str:
        """All that is written on the page."""
        kinds = ("markdown", "caption", "info", "success", "subheader", "warning", "error")
        return "\n".join(str(e.value) for kind in kinds for e in getattr(self.app, kind))

    def buttons(self, label: str) -> list:
        return [button for button in self.app.button if button.label == label]

    def charts(self) -> int:
        return len(self.app.get("plotly_chart"))

    def check(self) -> Opened:
        """Nothing was raised, and the guard had nothing to apologise for."""
        assert not self.app.exception, self.app.exception[0].value
        assert not [text for text in self.errors if text.startswith("Sorry")], self.errors
        assert not (home_dir() / "logs").exists(), (home_dir() / "logs/dashboard.log").read_text()
        return self


@pytest.fixture(autouse=True)
def fresh_caches() -> Iterator[None]:
    """Server-wide caches outlive a test's folders otherwise."""
    st.cache_data.clear()
    st.cache_resource.clear()
    yield


@pytest.fixture
def opened(own_folders: Path) -> Callable[..., Opened]:
    """Open the app at an address: ``opened("gaps", epsilon=0.05)``."""

    def open_at(page: str = PAGES[0], **query: object) -> Opened:
        return Opened(**query).page(page)

    return open_at


TINY = {"dataset": "digits", "teacher": "tiny-teacher", "student": "tiny-student"}


@pytest.fixture(scope="session")
def analysed_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a tiny pair and its analyses, made once and copied by every test that needs it."""
    home = tmp_path_factory.mktemp("analysed") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FKD_HOME", str(home))
        teacher = save_digits_model(TINY["teacher"], "teacher", seed=1)
        save_digits_model(
            TINY["student"],
            "student",
            hidden=(12,),
            seed=2,
            teacher={"name": TINY["teacher"], "model_hash": teacher.model_hash},
        )
        for gap_class in ("label", "teacher"):
            analyse(AnalysisConfig(**TINY, epsilon=EPSILON, count=COUNT, gap_class=gap_class))
    return home


@pytest.fixture
def pair(own_folders: Path, analysed_home: Path) -> dict[str, object]:
    """A tiny pair in the user's models with a stored analysis; the address that shows it."""
    shutil.copytree(analysed_home, home_dir(), dirs_exist_ok=True)
    return {**TINY, "epsilon": EPSILON, "count": COUNT}


@pytest.fixture
def choice(pair: dict[str, object]) -> backend.Choice:
    """The same pair as pages know it."""
    return backend.Choice("digits", pair["teacher"], pair["student"], EPSILON, COUNT)


def run_record(kind: str, config: Config, state: str, **facts: object) -> RunRecord:
    """A run of ``config`` that began just now, called after its kind and state unless facts say else."""
    usual = {"id": f"{kind}-{state}", "title": "tiny-student against tiny-teacher"}
    now = datetime.now(UTC)
    spec = config.model_dump(mode="json")
    return RunRecord(
        kind=kind, spec=spec, state=state, created=now, started=now, **{**usual, **facts}
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What pages ask of runs, without starting a process."""
    calls: list[tuple] = []

    def start_run(kind: str, spec: dict) -> str:
        calls.append((kind, spec))
        return f"{kind}-queued"

    monkeypatch.setattr("fkd.runs.start_run", start_run)
    monkeypatch.setattr("fkd.runs.cancel_run", lambda run_id: calls.append(("cancel", run_id)))
    monkeypatch.setattr("fkd.runs.resume_run", lambda run_id: calls.append(("resume", run_id)))
    return calls


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the given records all there are."""

    def stand(*records: RunRecord) -> None:
        known = {entry.id: entry for entry in records}
        monkeypatch.setattr(
            "fkd.runs.list_runs",
            lambda limit=50, kind=None: [r for r in records if kind in (None, r.kind)],
        )
        monkeypatch.setattr("fkd.runs.get_run", known.__getitem__)
        monkeypatch.setattr("fkd.runs.run_history", lambda *_, **__: pd.DataFrame())
        monkeypatch.setattr("fkd.runs.run_log", lambda *_: "the log's last line")

    return stand


def shipped_students() -> list[ModelCard]:
    """A few of the shipped students; collected before a test's own home hides the user's."""
    names = [name for dataset in ("digits", "mnist") for name in sampled_students(dataset)]
    # Each takes seconds; every third has distilled students and copies of both teachers.
    return [read_card(name) for name in names[::3]]


def address_of(card: ModelCard) -> dict[str, object]:
    """Where a shipped pair can be seen: a shipped table if there is one, else a tiny ball."""
    query = {"dataset": card.dataset, "teacher": card.teacher.name, "student": card.name}
    for entry in list_analyses(card.dataset, card.teacher.name, card.name):
        return {**query, "epsilon": entry.config.epsilon, "count": entry.config.count}
    return {**query, "epsilon": EPSILON, "count": COUNT}
