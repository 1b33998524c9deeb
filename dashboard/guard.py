"""Errors become sentences: nobody sees a traceback, and whoever runs the server finds it in the log."""

from __future__ import annotations

import contextlib
import functools
import logging
import secrets
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import ParamSpec

import streamlit as st

from dashboard import backend

_LOGGER = logging.getLogger("dashboard")
_P = ParamSpec("_P")


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Show an `FkdError` as its sentence, anything else as an apology with an id.

    Also needed inside every fragment (`guarded`): Streamlit draws a fragment's exception itself before
    the page could see it.  Its own control flow (rerun, stop) derives from BaseException and passes.
    """
    try:
        yield
    except backend.FkdError as error:
        st.error(str(error), icon=":material/info:")
    except Exception as error:
        st.error(
            f"Sorry, this part of the page could not be drawn. The details are in the log under "
            f"**{note(error)}**; the rest of the dashboard still works.",
            icon=":material/error:",
        )


def guarded(function: Callable[_P, object]) -> Callable[_P, None]:
    """The function with `guard` around its body; put it below ``@st.fragment``."""

    @functools.wraps(function)
    def inner(*args: _P.args, **kwargs: _P.kwargs) -> None:
        with guard():
            function(*args, **kwargs)

    return inner


def note(error: Exception) -> str:
    """Write an unexpected error to the terminal and the log file; the id it can be found under."""
    reference = secrets.token_hex(4)
    _LOGGER.error("[%s] unexpected error", reference, exc_info=error)
    text = "".join(traceback.format_exception(error))
    # A full or read-only disk must not hide the error that is being reported.
    with contextlib.suppress(OSError):
        folder = backend.log_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "dashboard.log").open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} [{reference}]\n{text}\n")
    return reference
