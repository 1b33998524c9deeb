"""Pages are found by walking ``dashboard/views``: a new page is one new file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dashboard import views

#: What a page may say it needs; the frame explains what is missing in its place.
KNOWN_NEEDS = frozenset({"pair", "analysis"})


@dataclass(frozen=True)
class View:
    """One page, as its module declares it.

    Attributes:
        name: the module's name; also its path in the address.
        file: the module's file, which Streamlit runs.
        title: heading and navigation entry.
        icon: Material icon.
        section: heading in the navigation.
        order: sorts pages, and sections by their first page.
        needs: subset of `KNOWN_NEEDS`.
        render: draws it.
    """

    name: str
    file: Path
    title: str
    icon: str
    section: str
    order: int
    needs: frozenset[str]
    render: Callable[[], None]


def all_views() -> list[View]:
    """Every page in order.

    Raises:
        ValueError: a module lacks a declaration or needs something unknown.
    """
    found = []
    for entry in pkgutil.iter_modules(views.__path__):
        if entry.name.startswith("_"):
            continue
        module = importlib.import_module(f"{views.__name__}.{entry.name}")
        missing = [
            name
            for name in ("TITLE", "ICON", "SECTION", "ORDER", "NEEDS", "render")
            if not hasattr(module, name)
        ]
        if missing:
            raise ValueError(f"The page {entry.name} does not declare {', '.join(missing)}.")
        needs = frozenset(module.NEEDS)
        if not needs <= KNOWN_NEEDS:
            raise ValueError(
                f"The page {entry.name} needs {needs - KNOWN_NEEDS}, which is unknown."
            )
        found.append(
            View(
                name=entry.name,
                file=Path(str(module.__file__)).resolve(),
                title=module.TITLE,
                icon=module.ICON,
                section=module.SECTION,
                order=module.ORDER,
                needs=needs,
                render=module.render,
            )
        )
    return sorted(found, key=lambda view: view.order)
