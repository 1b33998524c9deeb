"""What the pages show first."""

from collections import defaultdict

from dashboard import backend
from fkd.evaluation import list_analyses
from fkd.models import list_models


def test_the_teacher_shown_first_is_one_of_most_students():
    """Of a teacher with few, *Compare methods* would show a newcomer next to nothing."""
    trained = {card.name for card in list_models("digits") if card.history}
    students = defaultdict(set)
    for entry in list_analyses("digits"):
        if entry.config.student in trained:
            students[entry.config.teacher].add(entry.config.student)
    teacher, student, _ = backend.default_pair("digits")
    assert len(students[teacher]) == max(map(len, students.values())) > 10
    assert student in students[teacher]
