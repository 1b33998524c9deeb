"""Attacks on one network alone: is there a point of the ball that it classifies wrongly?"""

from fkd.attacks.single._library import check_library, library_version, load_attacks
from fkd.attacks.single.autoattack import MEMBERS, left_out, run_autoattack
from fkd.attacks.single.linearity import local_linearity
from fkd.attacks.single.pgd import run_pgd
from fkd.attacks.single.square import run_square
from fkd.attacks.single.standing import Standing, Tell

__all__ = [
    "MEMBERS",
    "Standing",
    "Tell",
    "check_library",
    "left_out",
    "library_version",
    "load_attacks",
    "local_linearity",
    "run_autoattack",
    "run_pgd",
    "run_square",
]
