"""Everything that is shipped, looked at as files: cards, hashes, sizes, and what tables say they are of.

Cheap whatever the number of models; what takes seconds a pair looks at a sample
(`tests.support.soundness`).
"""

import hashlib

from safetensors import safe_open

from fkd.core.paths import pretrained_dir
from fkd.evaluation import find_scores, list_analyses, shipped_dir
from fkd.evaluation._packed_tables import (
    INDEX,
    find_packed,
    find_packed_tensors,
    is_packed_file,
    packed_tables,
)
from fkd.models import damaged_models, list_models
from fkd.records import list_tables
from pretrained.build import REPORT
from pretrained.estimate import LARGEST_TOTAL, folder_size, total_size
from pretrained.report import figure_lines, students_table
from pretrained.specs import is_current, zoo
from pretrained.tables import scores_of
from pretrained.zoo import DATA

CARDS = {card.name: card for card in list_models() if (pretrained_dir() / card.name).is_dir()}
#: Weights of the largest network of the zoo, its card and its history.
_LARGEST_MODEL = 3 * 10**6


def test_every_folder_is_a_model_whose_weights_are_those_of_its_card():
    folders = {path.parent.name for path in pretrained_dir().glob("*/card.json")}
    assert folders == set(CARDS)
    assert not damaged_models().keys() & folders
    for name, card in CARDS.items():
        weights = pretrained_dir() / name / "model.safetensors"
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == card.weights_sha256, name
        with safe_open(weights, "np") as tensors:
            assert len(list(tensors.keys())) > 0, name
        assert {path.name for path in weights.parent.iterdir()} == {"card.json", weights.name}


def test_every_student_is_of_the_teacher_that_is_shipped():
    for card in CARDS.values():
        if card.role == "student":
            teacher = CARDS[card.teacher.name]
            assert card.teacher.model_hash == teacher.model_hash, card.name
            assert (card.dataset, card.image_shape) == (teacher.dataset, teacher.image_shape)
            assert card.metrics["teacher_agreement"] > 1 / card.num_classes, card.name


def test_every_model_is_better_than_chance_and_no_more_robust_than_accurate():
    for card in CARDS.values():
        robust = {k: v for k, v in card.metrics.items() if k.startswith("robust_accuracy_")}
        assert robust, card.name
        assert card.metrics["clean_accuracy"] > 2 / card.num_classes, card.name
        for key, value in robust.items():
            proved = card.metrics.get(key.replace("robust", "certified"), 0.0)
            by_intervals = card.metrics.get(key.replace("robust", "interval"), proved)
            # All are shares of the first 1000 test images.
            assert 0.0 <= by_intervals <= proved <= value <= 1.0, (card.name, key)


def test_the_sizes_are_what_a_repository_can_hold():
    assert total_size() <= LARGEST_TOTAL
    for name in CARDS:
        assert folder_size(pretrained_dir() / name) <= _LARGEST_MODEL, name


def test_every_table_is_under_its_key_and_of_shipped_models():
    entries = {entry.key: entry for entry in list_analyses() if entry.is_shipped}
    loose = {path.stem for path in list_tables(shipped_dir()) if not is_packed_file(path)}
    assert loose | packed_tables(shipped_dir()).keys() == set(entries)
    for key, entry in entries.items():
        assert entry.metadata["key"] == key
        for role in ("teacher", "student"):
            shipped = CARDS[entry.metadata[role]["name"]]
            assert entry.metadata[role]["model_hash"] == shipped.model_hash, (key, role)


def test_every_packed_table_can_be_read_and_is_the_one_of_its_key():
    packed = packed_tables(shipped_dir())
    named = {p.file for one in packed.values() for p in (one.rows, one.witnesses) if p is not None}
    assert {p.name for p in shipped_dir().glob("packed*")} == named | {INDEX}
    assert packed
    for key, one in packed.items():
        stored = find_packed(shipped_dir(), key)
        assert stored is not None and stored.metadata["key"] == key
        assert set(stored.table["key"]) == {key}
        assert len(stored.table) == stored.metadata["config"]["count"]
        assert (one.witnesses is None) == (find_packed_tensors(shipped_dir(), key) is None)


def test_witnesses_are_shipped_of_digits_alone():
    with_witnesses = {p.name.split(".")[0] for p in shipped_dir().glob("*.safetensors")}
    packed = packed_tables(shipped_dir())
    with_witnesses |= {key for key, one in packed.items() if one.witnesses is not None}
    of = {e.key: e.config.dataset for e in list_analyses() if e.is_shipped}
    assert {of[key] for key in with_witnesses} <= {"digits"}
    assert with_witnesses


def test_every_current_student_has_the_tables_that_the_zoo_declares():
    found: dict[str, set[float]] = {}
    for entry in list_analyses():
        if entry.is_shipped:
            found.setdefault(entry.config.student, set()).add(entry.config.epsilon)
    current = [m for name in DATA for m in zoo(name) if m.name in CARDS and is_current(m.spec)]
    assert current
    for member in current:
        assert found.get(member.name, set()) == set(member.table_epsilons), member.name


def test_the_leaderboard_has_every_shipped_student_that_has_figures():
    students = [m for m in zoo("digits") if m.teacher is not None and m.name in CARDS]
    with_figures = [m.name for m in students if find_scores(scores_of(m)) is not None]
    table = students_table(students)
    assert (list(table["student"]) if len(table) else []) == with_figures
    assert "clean_accuracy" in table or not with_figures
    # The shipped report was written after the last of them, and of nothing else.
    text = (pretrained_dir() / REPORT).read_text(encoding="utf-8")
    assert f"\n{len(CARDS)} models; " in text
    made = "\n".join(figure_lines("digits", table))
    start = text.index("\n## digits\n")
    assert text[start : text.find("\n## ", start + 1)] == f"\n## digits\n\n{made}\n"
    lacking = text[: text.index("## Claims")]
    for member in (member for name in DATA for member in zoo(name)):
        assert (f"`{member.name}`" in lacking) == (member.name not in CARDS), member.name
