"""What surrounds every page: navigation, the pair's pickers, heading, link, and the error guard."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import backend, parts, registry, sidebar, state
from dashboard.guard import guard

_LOGO = str(Path(__file__).with_name("logo.svg"))
#: A file of our own: the browser would fetch a named Material icon from another machine.
_ICON = str(Path(__file__).with_name("icon.svg"))
_STYLE = """
<style>
.stMainBlockContainer { padding: 4rem 2.2rem 3rem; max-width: 1500px; }
@media (max-width: 640px) {
  .stMainBlockContainer { padding: 4rem 1rem 3rem; }
  .stMainBlockContainer h1 { font-size: 1.45rem; }
}
[data-testid="stImage"] img { image-rendering: pixelated; border-radius: 3px; }
[data-testid="stMetricLabel"] p { font-size: 0.9rem; }
</style>
"""


def main() -> None:
    """Draw the frame and run the chosen page in it."""
    st.set_page_config(page_title="Faithful distillation", page_icon=_ICON, layout="wide")
    st.html(_STYLE)
    st.logo(_LOGO, size="large")
    with guard():
        _draw()


def _draw() -> None:
    asked = state.asked_parameters()
    state.begin_run()
    if "epsilon" in asked:
        state.note_radius(is_chosen=True)

    views = registry.all_views()
    pages = [
        st.Page(
            view.file,
            title=view.title,
            icon=view.icon,
            url_path=view.name,
            default=view.name == views[0].name,
        )
        for view in views
    ]
    sections: dict[str, list[st.Page]] = {}
    for view, page in zip(views, pages, strict=True):
        sections.setdefault(view.section, []).append(page)
    current = st.navigation(sections)
    view = next(
        (v for v, p in zip(views, pages, strict=True) if p is current or p == current), views[0]
    )

    choice, problem = sidebar.draw()
    state.set_choice(choice, None)
    slot = parts.heading(view.title, choice if view.needs else None)
    notices = st.container()
    for sentence in state.dropped_parameters(asked):
        notices.warning(sentence, icon=":material/link_off:")

    with guard():
        if view.needs and choice is None:
            parts.no_pair(problem or "")
        elif "analysis" in view.needs:
            found = backend.find(choice)
            state.set_choice(choice, found)
            if found is None:
                parts.not_analysed(choice)
            else:
                current.run()
        else:
            current.run()
    for sentence in state.dropped_view_parameters(asked):
        notices.warning(sentence, icon=":material/link_off:")
    state.forget_asked()
    parts.copy_link(slot)
