"""The sidebar: data set, teacher, student, radius; kept across pages and in the address."""

from __future__ import annotations

import contextlib

import streamlit as st

from dashboard import backend, state

#: Images analysed where nothing else is asked for.
_COUNT = backend.DEFAULT_COUNT
_GAP_CLASS_HELP = (
    "Whose probability is compared: the image's true label, or the class the teacher predicts."
)


def draw() -> tuple[backend.Choice | None, str | None]:
    """Draw the pickers; the choice, or None and the reason in one sentence."""
    with st.sidebar:
        dataset = _dataset()
        teacher, student = _pair(dataset)
        norm = _norm()
        epsilon_text = _epsilon(dataset, norm)
        level, seconds = _level()
        count, gap_class = _more(backend.image_count(dataset))
    if teacher is None or student is None:
        missing = "teacher" if teacher is None else "student"
        return None, (
            f"There is no {missing} on '{dataset}' yet; choose another data set in the sidebar, or make "
            "one on the page Distil."
        )
    try:
        epsilon = backend.parse_epsilon(epsilon_text, norm)
    except backend.FkdError as error:
        return None, str(error)
    choice = backend.Choice(
        dataset, teacher, student, epsilon, count, gap_class, norm, level, seconds
    )
    return choice, None


def _dataset() -> str:
    infos = {info.name: info for info in backend.data_sets()}
    return st.selectbox(
        "Data set",
        list(infos),
        on_change=_dataset_changed,
        help="Sets with models come first.",
        **state.bound("dataset"),
    )


def _pair(dataset: str) -> tuple[str | None, str | None]:
    default_teacher, default_student, _ = backend.default_pair(dataset)
    teachers = [card.name for card in backend.teachers(dataset)]
    teacher = st.selectbox(
        "Teacher",
        teachers,
        index=teachers.index(default_teacher) if default_teacher in teachers else 0,
        on_change=_teacher_changed,
        placeholder="none for this data set",
        disabled=not teachers,
        help="The network that was imitated.",
        **state.bound("teacher"),
    )
    students = [card.name for card in backend.students(dataset, teacher or "")]
    if default_teacher != teacher and teacher is not None:
        default_student = backend.same_method_student(dataset, teacher, default_student or "")
    student = st.selectbox(
        "Student",
        students,
        index=students.index(default_student) if default_student in students else 0,
        placeholder="none for this data set",
        disabled=not students,
        help="The network that imitates. This teacher's own students come first.",
        **state.bound("student"),
    )
    return teacher, student


def _norm() -> str:
    """The ball's norm, by its name in fkd."""
    names = list(backend.NORM_NAMES.values())
    shown = st.segmented_control(
        "Norm",
        names,
        default=names[0],
        required=True,
        on_change=_norm_changed,
        help="L∞ limits the change of every pixel, L2 the root of the sum of all squared changes.",
        **state.bound("norm"),
    )
    return _norm_named(shown)


def _norm_named(shown: str | None) -> str:
    by_name = {name: norm for norm, name in backend.NORM_NAMES.items()}
    return by_name.get(shown or "", "linf")


def _epsilon(dataset: str, norm: str) -> str:
    state.take_wanted_radius()
    info = backend.data_set(dataset)
    default = _default_epsilon(dataset, norm)
    if norm == "l2":
        label, offered = "ε, length of the change", backend.L2_RADII
        limited = "All pixels' changes, squared and summed, have at most this root"
    else:
        label, offered = "ε, largest pixel change", info.epsilons if info else ()
        limited = "Every pixel may change by at most this much"
    # Six digits of 8/255 are another ball: a label means the radius that it was made from.
    exact = {f"{value:g}": value for value in (*_typed_epsilon(norm), default, *offered)}
    labels = sorted(exact, key=exact.__getitem__)
    shown = st.selectbox(
        label,
        labels,
        accept_new_options=True,
        on_change=lambda: state.note_radius(is_chosen=True),
        help=(
            f"{limited}; images lie in [0, 1]. Type another value, also as a fraction such as 8/255."
        ),
        # The usual one too, once it was chosen: a page may open at another one.
        **state.addressed("epsilon", None, f"{default:g}", is_told=state.radius_is_chosen()),
    )
    return repr(exact[shown]) if shown in exact else shown


def _default_epsilon(dataset: str, norm: str) -> float:
    return backend.L2_DEFAULT if norm == "l2" else backend.default_pair(dataset)[2]


def _typed_epsilon(norm: str) -> list[float]:
    """The radius in use or in the address, so that the list holds a typed one too."""
    with contextlib.suppress(backend.FkdError):
        typed = st.session_state.get("epsilon") or st.query_params.get("epsilon")
        if typed:
            return [backend.parse_epsilon(typed, norm)]
    return []


def _level() -> tuple[str, float | None]:
    """Registry name of the certificate, and its time budget an image where it has one."""
    levels = {level.title: level for level in backend.levels().values()}
    usual = backend.levels()[backend.default_level()].title
    shown = st.selectbox(
        "Level of the bounds",
        list(levels),
        index=list(levels).index(usual),
        help="How much work the upper end of a bracket is given; the page Certified bounds compares.",
        **state.bound("level"),
    )
    level = levels[shown]
    if level.budget is None:
        return level.name, None
    seconds = st.number_input(
        "Seconds an image",
        help="How long an image is searched beyond what the level before does; what it has then holds.",
        **state.seconds_range(level),
        **state.bound("seconds"),
    )
    return level.name, float(seconds)


def _more(most: int | None) -> tuple[int, str]:
    """How many images, at most ``most`` where that is known, and the class compared."""
    if most is not None:
        _bring_down("count", most)
    with st.expander("More", icon=":material/tune:"):
        count = st.number_input(
            "Images",
            min_value=1,
            max_value=most,
            value=_COUNT if most is None else min(_COUNT, most),
            step=50,
            help="How many test images are analysed, from the first on.",
            **state.bound("count"),
        )
        gap_class = st.selectbox(
            "Class compared", ["label", "teacher"], help=_GAP_CLASS_HELP, **state.bound("gap_class")
        )
    return int(count), gap_class


def _bring_down(key: str, most: int) -> None:
    """Lower a number in use or in the address to ``most``.

    A link may ask for more than there is, as may what was chosen on another data set; a widget would drop
    the one and refuse the other.
    """
    with contextlib.suppress(TypeError, ValueError):
        wanted = st.session_state.get(key) or st.query_params.get(key)
        if wanted and int(wanted) > most:
            st.session_state[key] = most


def _dataset_changed() -> None:
    teacher, student, _ = backend.default_pair(st.session_state["dataset"])
    st.session_state["teacher"] = teacher
    st.session_state["student"] = student
    _norm_changed()
    # An id means another image there.
    if "example" in st.session_state:
        st.session_state["example"] = None


def _norm_changed() -> None:
    """A radius means another thing in another norm, and another data set has its own."""
    norm = _norm_named(st.session_state.get("norm"))
    st.session_state["epsilon"] = f"{_default_epsilon(st.session_state['dataset'], norm):g}"
    state.note_radius(is_chosen=False)


def _teacher_changed() -> None:
    student = backend.same_method_student(
        st.session_state["dataset"],
        st.session_state["teacher"],
        st.session_state.get("student") or "",
    )
    if student is not None:
        st.session_state["student"] = student
