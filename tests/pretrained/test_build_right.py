"""Which test images students get right: shipped as bits, kept while model and images are the same."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
import torch

from fkd.core.paths import pretrained_dir
from fkd.data import get_data_set
from fkd.evaluation import find_scores
from fkd.models import load_model
from fkd.records import read_table, write_table
from pretrained import right
from pretrained.right import RIGHT_COLUMNS, right_of, right_path, ship_right
from pretrained.specs import zoo
from pretrained.tables import scores_of
from pretrained.zoo import DATA

STUDENTS = [
    member
    for dataset in DATA
    for member in zoo(dataset)
    if member.teacher and (pretrained_dir() / member.name).is_dir()
]
KD, RSLAD = (
    next(member for member in STUDENTS if member.name == name)
    for name in ("digits-kd-of-pgd", "digits-rslad-of-pgd")
)


@pytest.mark.parametrize("member", STUDENTS, ids=lambda member: member.name)
def test_what_is_shipped_is_the_leaderboards_accuracy(member):
    found = right_of([member])[member.name]
    stored = find_scores(scores_of(member)).table.set_index("figure")
    assert found.mean() == stored.loc["clean_accuracy", "value"]
    assert len(found) == stored.loc["clean_accuracy", "count"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A teacher and two students of it, and no table yet."""
    for name in ("digits-teacher-pgd", KD.name, RSLAD.name):
        shutil.copytree(pretrained_dir() / name, tmp_path / "pretrained" / name)
    monkeypatch.setenv("FKD_PRETRAINED_DIR", str(tmp_path / "pretrained"))
    return tmp_path / "pretrained"


def test_bits_are_what_the_network_says_image_by_image(folder):
    assert right_of([KD]) == {}
    ship_right([KD, RSLAD])
    split = get_data_set("digits").load("test")
    with torch.no_grad():
        expected = load_model(KD.name).network(split.images).argmax(1) == split.labels
    found = right_of([KD, RSLAD])
    assert found[KD.name].tolist() == expected.tolist()
    # Two students of the same accuracy would not do as a check.
    assert found[KD.name].tolist() != found[RSLAD.name].tolist()


def test_what_is_known_is_kept_and_what_is_gone_is_dropped(folder, monkeypatch):
    ship_right([KD])
    asked = []
    made = right._row
    monkeypatch.setattr(right, "_row", lambda *of: asked.append(of[1]) or made(*of))
    ship_right([KD, RSLAD])
    assert asked == [RSLAD.name]
    before = right_path("digits").read_bytes()
    ship_right([KD, RSLAD])
    assert right_path("digits").read_bytes() == before and asked == [RSLAD.name]
    shutil.rmtree(folder / KD.name)
    ship_right([KD, RSLAD])
    assert len(read_table(right_path("digits")).table) == 1


def test_bits_of_other_images_are_not_used(folder):
    ship_right([KD])
    stored = read_table(right_path("digits"))
    metadata = {**stored.metadata, "data_hash": "other"}
    write_table(right_path("digits"), pd.DataFrame(stored.table), metadata, RIGHT_COLUMNS)
    assert right_of([KD]) == {}
    ship_right([KD])
    assert len(right_of([KD])[KD.name]) == 500
