"""A method's own parameters and buffers, and its choice of examples: trained, kept and resumed."""

import pytest
import torch
from _tiny_training import Recorder, is_equal, tiny_spec, weights_of
from torch import nn

from fkd.core.config import Config
from fkd.core.errors import Cancelled, RunError
from fkd.distillation import LossParts, train_model
from fkd.distillation._state import read_state

#: Steps of three epochs of 90 examples in batches of 30, the second of 40 examples alone.
STEPS = 3 + 2 + 3


class NoSettings(Config):
    """None."""


class Remembering:
    """Attributes of a method that learns a scale, counts its steps and leaves examples out."""

    @staticmethod
    def set_up(self, setting):
        self.extra.scale = nn.Parameter(torch.ones(setting.num_classes))
        self.extra.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @staticmethod
    def loss(self, batch, teacher, student, clock):
        self.extra.count += 1
        self.seen.append((clock.epoch, clock.step, batch.example_ids.tolist()))
        logits = student(batch.images) * self.extra.scale
        value = nn.functional.cross_entropy(logits, batch.labels)
        return LossParts.weighted({"part": (1.0, value)}, {"scale": self.extra.scale.mean()})

    @staticmethod
    def choose_examples(self, setting, epoch):
        assert not setting.student.training
        if epoch != 1:
            return None
        chosen = torch.zeros(len(setting.images), dtype=torch.bool)
        chosen[setting.example_ids[:40]] = True
        return chosen

    @staticmethod
    def finish_epoch(self, setting):
        self.finished.append(int(self.extra.count))


@pytest.fixture
def remembering(throw_away):
    entry = throw_away(
        "remembering",
        role="teacher",
        title="t",
        source="s",
        Config=NoSettings,
        seen=[],
        finished=[],
        **{
            n: getattr(Remembering, n)
            for n in ("set_up", "loss", "choose_examples", "finish_epoch")
        },
    )
    entry.__abstractmethods__ = frozenset()
    return entry


def test_an_epoch_of_fewer_examples_has_fewer_steps(remembering, tmp_path):
    model = train_model(tiny_spec("remembering"), out=tmp_path / "m")
    assert [len(ids) for _, _, ids in remembering.seen] == [30, 30, 30, 30, 10, 30, 30, 30]
    # Schedules count the short epoch as a whole one.
    assert [step for _, step, _ in remembering.seen] == [0, 1, 2, 3, 4, 6, 7, 8]
    second = [i for epoch, _, ids in remembering.seen if epoch == 1 for i in ids]
    assert len(set(second)) == 40
    assert remembering.finished == [3, 5, 8]
    history = model.card.history
    assert [entry["examples"] for entry in history] == [90.0, 130.0, 220.0]
    # Means are over the steps there were, and the method's own parameter learns.
    assert 0.5 < history[1]["part"] < 3.0
    assert history[0]["scale"] != history[2]["scale"] != 1.0


@pytest.mark.parametrize("stopped", range(1, STEPS))
def test_what_a_method_keeps_survives_an_interruption(remembering, each_step, tmp_path, stopped):
    whole = train_model(tiny_spec("remembering"), out=tmp_path / "whole")
    steps = [ids for _, _, ids in remembering.seen]
    remembering.seen.clear()
    seen = []

    def stop(report):
        seen.append(report)
        return sum(r.stage == "training" and "part" in r.values for r in seen) >= stopped

    with pytest.raises(Cancelled):
        train_model(tiny_spec("remembering"), out=tmp_path / "m", progress=Recorder(stop))
    _, tensors, _ = read_state(tmp_path / "m.partial")
    assert int(tensors["extra.count"]) == len(remembering.seen)
    model = train_model(tiny_spec("remembering"), out=tmp_path / "m")
    assert is_equal(weights_of(model), weights_of(whole))
    assert [ids for _, _, ids in remembering.seen] == steps
    assert model.card.history == whole.card.history
    assert not {name for name in weights_of(model) if "scale" in name}


def test_leaving_out_every_example_is_refused(remembering, tmp_path):
    remembering.choose_examples = lambda self, setting, epoch: torch.zeros(
        len(setting.images), dtype=torch.bool
    )
    with pytest.raises(RunError, match="left no example for epoch 1"):
        train_model(tiny_spec("remembering"), out=tmp_path / "m")
