"""About: what every number means, what it does not mean, and what is installed."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import backend, figures, state

TITLE = "About the numbers"
ICON = ":material/menu_book:"
SECTION = "Help"
ORDER = 90
NEEDS = ()

_GLOSSARY = """
**Teacher, student.** Two image classifiers; the student was trained to imitate the teacher
(*distillation*).

**ε, the ball.** All images in which every pixel differs from the given one by at most ε and stays in
[0, 1]. Pixels run from 0 (black) to 1 (white), so ε = 0.1 is a tenth of the whole range, 25.5 of 255
steps. With the norm **L2** it is all images in [0, 1] whose change has at most the length ε: the root of
the sum of all pixels' squared changes.

**Confidence.** The softmax probability that a network gives one class; here the true label, or the
teacher's prediction if *Class compared* says so.

**Confidence gap.** How far the teacher's and the student's confidence are apart at one point, from 0
(equally sure) to 1. Over a ball, the largest gap counts.

**Witness.** A point of the ball that shows what is claimed: the largest gap found, or different
predictions. It is stored and re-checked, so anyone can verify it.

**Level of the bounds.** How much work certificates are given. *Fast* relaxes both networks once, *Tight*
optimises the relaxation and splits the ball a little, *Exact* splits on until the bracket is closed or
its time is over; *auto_LiRPA* is the general path. All are proofs, and the page *Certified bounds*
compares them.

**Certified, open, refuted.** *Certified*: it is proved that both networks predict the same class at every
point of the ball (both may be wrong together). *Refuted*: a witness with different predictions was found.
*Open*: neither.
"""

_LIMITS = """
**What an attack can and cannot say.** It reports a point it has reached, so its gap is a lower end of the
truth. When it finds no disagreement, this is *no disagreement found*, never *robust*: a stronger attack
may find one.

**What a certificate can and cannot say.** Its bound holds for every point of the ball, whatever attack
may come. It over-estimates: linear relaxations get loose as ε and depth grow, until the bound says no
more than 1. A loose certificate tells about the method, not about the networks. It is computed in
floating point; every witness is checked against it, and a violation stops the program.

**What neither says.** Perturbations other than the ball's (rotations, blur, other images) are outside.
The figures are of the images analysed, the first of the test split; other images may differ.
"""


def render() -> None:
    """Draw the page."""
    words, columns, models, installation = st.tabs(
        ["Glossary and limits", "Columns", "Models and data", "Installation"]
    )
    with words:
        left, right = st.columns(2, gap="large")
        with left:
            st.subheader("Glossary", anchor=False)
            st.markdown(figures.unbroken(_GLOSSARY))
        with right:
            st.subheader("Limits", anchor=False)
            st.markdown(_LIMITS)
    with columns:
        st.markdown(
            "An analysis is a table with one row per image. The same text travels inside every Parquet "
            "file as field metadata."
        )
        st.dataframe(
            backend.column_documentation(),
            hide_index=True,
            height=520,
            column_config={"meaning": st.column_config.TextColumn(width="large")},
            alt="Columns of the analysis table with unit and meaning",
        )
    with models:
        _models_and_data()
    with installation:
        _installation()


def _models_and_data() -> None:
    st.subheader("Models", anchor=False)
    cards = backend.cards()
    if cards:
        st.dataframe(
            figures.styled(
                pd.DataFrame(
                    [
                        {
                            "name": card.name,
                            "role": card.role,
                            "data set": card.dataset,
                            "method": card.method,
                            "architecture": card.architecture,
                            "parameters": card.parameters,
                            "trained at ε": card.epsilon,
                            "teacher": card.teacher.name if card.teacher else None,
                            "clean accuracy": card.metrics.get("clean_accuracy"),
                        }
                        for card in cards
                    ]
                ),
                {"clean accuracy": figures.percent, "trained at ε": "{:g}".format},
            ),
            hide_index=True,
            placeholder="",
            column_config={
                "parameters": st.column_config.NumberColumn(format="localized"),
            },
            alt="All models, shipped ones first",
        )
    else:
        st.caption("There is no model yet; train a teacher on the page Distil.")
    for name, problem in backend.damaged().items():
        st.warning(f"**{name}**: {problem}", icon=":material/broken_image:")
    st.subheader("Data sets", anchor=False)
    st.dataframe(
        pd.DataFrame(
            [
                {
                    "name": info.name,
                    "title": info.title,
                    "classes": len(info.classes),
                    "image": " by ".join(str(size) for size in info.image_shape or ()),
                    "on this machine": info.is_available,
                    "source": info.source,
                    "problem": info.problem,
                }
                for info in backend.data_sets()
            ]
        ),
        hide_index=True,
        placeholder="",
        alt="All data sets",
    )


def _installation() -> None:
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Versions", anchor=False)
        st.table(
            pd.DataFrame(backend.package_versions().items(), columns=["package", "version"]),
            hide_index=True,
            alt="Versions of the packages that determine numbers",
        )
    with right:
        st.subheader("Folders", anchor=False)
        st.table(
            pd.DataFrame(backend.where_things_are().items(), columns=["what", "folder"]),
            hide_index=True,
            alt="Folders in use",
        )
    choice = state.maybe_choice()
    if choice is not None:
        st.subheader("Reproduce", anchor=False)
        st.caption("The command line that computes the present analysis.")
        st.code(backend.reproduce(choice), language="bash", wrap_lines=False)


if __name__ == "__main__":
    render()
