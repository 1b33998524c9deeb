"""CCKD's two losses against the formula in NumPy, and who takes part under self-regulation."""

import _numpy_reference as reference
import numpy as np
import pytest
import torch
from _tiny_training import (
    AT_THE_END,
    Recorder,
    frozen,
    is_equal,
    make_batch,
    make_method,
    make_mlp,
    setting_with,
    tiny_spec,
    weights_of,
)
from torch.nn import functional

from fkd.core.errors import Cancelled, ConfigError
from fkd.distillation import METHODS, train_model
from fkd.distillation._confidence import label_confidence, who_takes_part

FORMS = ["cckd_l", "cckd_t"]


@pytest.fixture
def case():
    """Teacher, student, batch, and both networks' logits in NumPy."""
    teacher, student, batch = frozen(make_mlp(1, (9,))), make_mlp(2), make_batch()
    x = batch.images.flatten(1).numpy()
    logits = [reference.MLP.of(network).logits(x) for network in (teacher, student)]
    return teacher, student, batch, *logits


def test_cckd_l(case):
    teacher, student, batch, z_teacher, z_student = case
    tau, labels = 3.0, batch.labels.numpy()
    divergence, label_loss = [], []
    for i, y in enumerate(labels):
        one = slice(i, i + 1)
        w = reference.softmax(z_teacher)[i, y]
        divergence.append(w * reference.kl(z_teacher[one], z_student[one], tau))
        label_loss.append((1 - w) * reference.cross_entropy(z_student[one], labels[one]))
    parts = make_method("cckd_l", temperature=tau).loss(batch, teacher, student, AT_THE_END)
    assert set(parts) == {"distillation", "labels", "total"}
    assert parts["distillation"].item() == pytest.approx(tau**2 * np.mean(divergence), rel=1e-6)
    assert parts["labels"].item() == pytest.approx(np.mean(label_loss), rel=1e-6)
    assert parts.observed == {}


def test_cckd_t(case):
    teacher, student, batch, z_teacher, z_student = case
    tau, labels = 3.0, batch.labels.numpy()
    w = reference.softmax(z_teacher)[np.arange(len(labels)), labels][:, None]
    q = w * reference.softmax(z_teacher / tau) + (1 - w) * np.eye(4)[labels]
    expected = tau**2 * np.mean((q * np.log(q / reference.softmax(z_student / tau))).sum(1))
    parts = make_method("cckd_t", temperature=tau).loss(batch, teacher, student, AT_THE_END)
    assert set(parts) == {"distillation", "total"}
    assert parts["total"].item() == pytest.approx(expected, rel=1e-6)


class Sure(torch.nn.Module):
    """Gives class ``shift`` after the label a logit of 60, so that w is 1 (shift 0) or 0."""

    def __init__(self, labels, shift):
        super().__init__()
        self.logits = 60.0 * functional.one_hot((labels + shift) % 4, 4).double()

    def forward(self, images):
        return self.logits


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_a_sure_teacher_gives_kd_and_one_that_is_surely_wrong_the_labels(form, tau):
    batch, student = make_batch(), make_mlp(2)
    method = make_method(form, temperature=tau)
    right = Sure(batch.labels, 0)
    kd = make_method("kd", temperature=tau).loss(batch, right, student, AT_THE_END)["total"]
    total = method.loss(batch, right, student, AT_THE_END)["total"]
    assert total.item() == pytest.approx(kd.item(), rel=1e-9)
    # The mixed target is met by the softened prediction, the labels' term by the plain one.
    softening = tau if form == "cckd_t" else 1.0
    labels = functional.cross_entropy(student(batch.images) / softening, batch.labels)
    wrong = method.loss(batch, Sure(batch.labels, 1), student, AT_THE_END)["total"]
    assert wrong.item() == pytest.approx(softening**2 * labels.item(), rel=1e-9)


def test_confidence_is_the_labels_probability_at_temperature_one():
    logits = torch.tensor([[0.0, 3.0], [1.0, 1.0]]).log1p().requires_grad_()
    confidence = label_confidence(logits, torch.tensor([1, 0]))
    assert confidence.tolist() == pytest.approx([0.8, 0.5])
    assert not confidence.requires_grad


def test_who_takes_part_by_hand():
    # Probabilities of class 0 of two: 0.9, 0.7, 0.4, 0.6; all labels are 0.
    p = torch.tensor([0.9, 0.7, 0.4, 0.6])
    logits = torch.stack([p, 1 - p], 1).log()
    labels, teacher = torch.zeros(4, dtype=torch.int64), torch.tensor([0.8, 0.8, 0.1, 0.6])

    def takes(margin=0.0, least=1):
        return who_takes_part(logits, labels, teacher, margin=margin, least=least).tolist()

    # The third is surer than the teacher but wrong; the fourth is level with it.
    assert takes() == [False, True, True, False]
    assert takes(margin=0.05) == [False, True, True, True]
    assert takes(margin=0.2) == [True, True, True, True]
    assert takes(margin=-0.2) == [False, False, True, False]
    # A batch of three: the next by its own confidence, then the surest last.
    assert takes(least=3) == [False, True, True, True]
    assert takes(margin=-0.2, least=2) == [False, False, True, True]
    assert takes(least=9) == [True] * 4


@pytest.mark.parametrize("form", FORMS)
def test_a_choice_lasts_until_the_next_look(form):
    batch, teacher = make_batch(12), frozen(make_mlp(1, (9,)))
    student, ids = make_mlp(2), torch.tensor([0, 2, 3, 4, 7, 8, 11])
    method = make_method(form, self_regulation=True, check_every=2)
    setting = setting_with(batch, teacher, student, example_ids=ids)
    method.set_up(setting)
    first = method.choose_examples(setting, 0)
    with torch.no_grad():
        sure = student(batch.images).softmax(1)[range(12), batch.labels]
        wrong = student(batch.images).argmax(1) != batch.labels
        aim = teacher(batch.images).softmax(1)[range(12), batch.labels]
    among = torch.zeros(12, dtype=torch.bool)
    among[ids] = True
    assert first.tolist() == (among & (wrong | (sure < aim))).tolist()
    assert 0 < first.sum() < len(ids)
    assert student.training
    share = method.loss(batch, teacher, student, AT_THE_END).observed["distilled_share"]
    assert share.item() == first.sum().item() / len(ids)
    # A student that knows everything is noticed at the next look, and a batch is left.
    setting = setting_with(
        batch, teacher, frozen(Sure(batch.labels[ids], 0)), example_ids=ids, batch_size=3
    )
    assert torch.equal(method.choose_examples(setting, 1), first)
    assert method.choose_examples(setting, 2).sum() == 3


@pytest.mark.parametrize("form", FORMS)
def test_without_self_regulation_everybody_takes_part(form):
    batch, teacher, student = make_batch(), frozen(make_mlp(1)), make_mlp(2)
    method = make_method(form)
    setting = setting_with(batch, teacher, student)
    method.set_up(setting)
    assert method.choose_examples(setting, 0) is None
    assert not method.extra.state_dict()


def regulated(form, teacher):
    return tiny_spec(
        form,
        teacher,
        method_config={"self_regulation": True, "check_every": 2, "margin": -0.3},
        epochs=5,
    )


@pytest.mark.parametrize("form", FORMS)
def test_self_regulation_saves_examples_logs_the_share_and_resumes_to_the_bit(
    form, teacher, each_step, tmp_path
):
    spec = regulated(form, teacher)
    whole = train_model(spec, out=tmp_path / "whole")
    history = whole.card.history
    shares = [entry["distilled_share"] for entry in history]
    assert shares[0] == shares[1] and shares[2] == shares[3]
    assert shares[4] < shares[0]
    examples = np.diff([0.0, *(entry["examples"] for entry in history)])
    assert examples.tolist() == pytest.approx([90 * share for share in shares])
    for stopped in (2, 5, 9):
        reports = []

        def stop(report, reports=reports, stopped=stopped):
            reports.append(report)
            return sum(r.stage == "training" for r in reports) >= stopped

        with pytest.raises(Cancelled):
            train_model(spec, out=tmp_path / f"{stopped}", progress=Recorder(stop))
        again = train_model(spec, out=tmp_path / f"{stopped}")
        assert is_equal(weights_of(again), weights_of(whole))
        assert again.card.history == history


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("field", "value"), [("margin", 1.5), ("check_every", 0)])
def test_settings_out_of_range_are_refused(form, field, value):
    with pytest.raises(ConfigError, match=f"'{field}' is not usable, .* got {value}"):
        METHODS.get(form).Config.parse({field: value})
