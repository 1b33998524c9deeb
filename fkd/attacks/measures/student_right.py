"""The student is right and the teacher is wrong."""

from __future__ import annotations

from fkd.attacks.measures._base import MEASURES
from fkd.attacks.measures.teacher_right import TeacherRight


@MEASURES.register("student_right")
class StudentRight(TeacherRight):
    """``min(max_{j != y} z^T_j - z^T_y, z^S_y - max_{j != y} z^S_j)``."""

    title = "Student right, teacher wrong"
    meaning = "Whether the student predicts the label at a point where the teacher does not."
    sign = -1.0
