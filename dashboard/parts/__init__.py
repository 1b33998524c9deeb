"""Pieces that several pages share: heading, charts, images, one example, one run, forms."""

from dashboard.parts.chart import chart, clicked_example, downloads
from dashboard.parts.example import example_images, example_panel, images_at, probabilities_at
from dashboard.parts.form import form_values
from dashboard.parts.names import named
from dashboard.parts.offer import offer_run
from dashboard.parts.page import (
    certificate_note,
    copy_link,
    heading,
    how_to_read,
    images_absent,
    no_pair,
    not_analysed,
    page_link,
    state_badge,
)
from dashboard.parts.run import duration, run_card, watch

__all__ = [
    "certificate_note",
    "chart",
    "clicked_example",
    "copy_link",
    "downloads",
    "duration",
    "example_images",
    "example_panel",
    "form_values",
    "heading",
    "how_to_read",
    "images_absent",
    "images_at",
    "named",
    "no_pair",
    "not_analysed",
    "offer_run",
    "page_link",
    "probabilities_at",
    "run_card",
    "state_badge",
    "watch",
]
