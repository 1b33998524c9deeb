"""TinTeM: the head, the loss, the probe, and the finished network's own last layer."""

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
    stop_after,
    tiny_spec,
    weights_of,
)
from sklearn.linear_model import LogisticRegression

from fkd.core.errors import Cancelled, ConfigError
from fkd.distillation import check_spec, train_model, trainer
from fkd.distillation._latent_head import LatentHead, principal_axes, similarity_divergence
from fkd.distillation._probe import fit_probe, least_squares
from fkd.models import ModelCard, latent_vectors, load_model, save_model


def ready(teacher, student, batch, **config):
    """A method after step 1, and its setting."""
    method = make_method("tintem", **config)
    setting = setting_with(batch, teacher, student)
    method.set_up(setting)
    method.prepare(setting)
    return method, setting


def make_latents(count=300, dimension=12, seed=0):
    """Anisotropic vectors away from 0 in clusters, float64."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(6, dimension, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    spread = torch.linspace(2.0, 0.2, dimension)
    return 3.0 + centres[torch.arange(count) % 6] + spread * noise


def test_principal_axes_by_hand():
    centred = torch.tensor([[0.0, 3.0, 0.0], [0.0, -3.0, 0.0], [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    rows = principal_axes(centred, 2)
    torch.testing.assert_close(rows, torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    tall = principal_axes(centred, 5)
    torch.testing.assert_close(tall.T @ tall, torch.eye(3))
    assert (tall[3:] == 0).all()


def test_similarity_divergence_by_hand_and_of_what_is_only_turned():
    latents, mapped = make_latents(4, 5), make_latents(4, 2, seed=1)

    def distributions(vectors):
        unit = vectors.numpy() / np.linalg.norm(vectors.numpy(), axis=1, keepdims=True)
        e = np.exp(unit @ unit.T / 0.3)
        np.fill_diagonal(e, 0.0)
        return e / e.sum(1, keepdims=True)

    p, q = distributions(latents), distributions(mapped)
    expected = sum(
        p[i, j] * np.log(p[i, j] / q[i, j]) for i in range(4) for j in range(4) if i != j
    )
    assert similarity_divergence(latents, mapped, 0.3).item() == pytest.approx(expected / 4)
    turn, _ = torch.linalg.qr(make_latents(5, 5, seed=2))
    assert similarity_divergence(latents, 7 * latents @ turn, 0.3).item() < 1e-12


def test_the_fitted_head_is_orthonormal_and_keeps_neighbours_better_than_principal_axes():
    latents = make_latents()
    head, axes = (LatentHead(12, 4).double() for _ in range(2))
    head.fit(latents, steps=60, temperature=0.1, seed=0)
    axes.fit(latents, steps=0, temperature=0.1, seed=0)
    for one in (head, axes):
        torch.testing.assert_close(one.weight @ one.weight.T, torch.eye(4).double())
        targets = one(latents)
        torch.testing.assert_close(targets.mean(0), torch.zeros(4).double())
        assert targets.square().sum(1).mean().item() == pytest.approx(1.0)
    torch.testing.assert_close(axes.weight, principal_axes(latents - latents.mean(0), 4))
    fresh = make_latents(seed=0) - latents.mean(0)
    fitted, start = (similarity_divergence(fresh, one(latents), 0.1) for one in (head, axes))
    assert fitted < 0.97 * start
    again = LatentHead(12, 4).double()
    again.fit(latents, steps=60, temperature=0.1, seed=0)
    assert torch.equal(again.weight, head.weight)


@pytest.mark.parametrize("student", [12, 15])
def test_a_head_that_loses_no_dimension_keeps_the_classifier_exactly(student):
    latents = make_latents()
    head = LatentHead(12, student).double()
    head.fit(latents, steps=50, temperature=0.1, seed=0)
    weight, bias = make_latents(3, 12, seed=3), torch.arange(3).double()
    pulled, moved = head.pull_back(weight, bias)
    torch.testing.assert_close(
        head(latents) @ pulled.T + moved, latents @ weight.T + bias, rtol=1e-9, atol=1e-9
    )
    # Where dimensions are lost, the mean's logits are kept.
    small = LatentHead(12, 4).double()
    small.fit(latents, steps=0, temperature=0.1, seed=0)
    torch.testing.assert_close(
        small.pull_back(weight, bias)[1], weight @ latents.mean(0) + bias, rtol=1e-9, atol=1e-9
    )


def test_latent_vectors_that_never_change_leave_finite_targets():
    head = LatentHead(3, 2)
    head.fit(torch.ones(5, 3), steps=3, temperature=0.1, seed=0)
    assert torch.equal(head(torch.ones(5, 3)), torch.zeros(5, 2))


@pytest.fixture
def case():
    """A teacher with 9 latent dimensions, a student with 5, a batch."""
    return frozen(make_mlp(1, (9,))), make_mlp(2), make_batch(40)


@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_the_loss_in_numpy(case, distance):
    teacher, student, batch = case
    method, _ = ready(teacher, student, batch, distance=distance)
    with torch.no_grad():
        method.extra.map.weight.copy_(make_latents(5, 5, seed=4))
        method.extra.map.bias.copy_(make_latents(1, 5, seed=5)[0])
    head = method.extra.head
    t = latent_vectors(teacher, batch.images)[0].numpy()
    r = latent_vectors(student, batch.images)[0].numpy()
    assert (r >= 0).all()
    target = (t - head.mean.numpy()) @ head.weight.numpy().T / head.scale.item()
    u = r @ method.extra.map.weight.detach().numpy().T + method.extra.map.bias.detach().numpy()
    lengths = np.linalg.norm(u, axis=1) * np.linalg.norm(target, axis=1)
    cosine = ((u * target).sum(1) / lengths).mean()
    expected = ((u - target) ** 2).sum(1).mean() if distance == "squared" else 1 - cosine
    parts = method.loss(batch, teacher, student, AT_THE_END)
    assert set(parts) == {"latents", "total"}
    assert parts["total"].item() == pytest.approx(expected, rel=1e-6)
    assert parts.observed["latent_cosine"].item() == pytest.approx(cosine, rel=1e-6)


@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_a_student_with_the_targets_as_latent_vectors_has_no_loss_and_its_teachers_logits(distance):
    teacher, student, batch = frozen(make_mlp(1)), make_mlp(1), make_batch(40)
    method, setting = ready(teacher, student, batch, distance=distance)
    head = method.extra.head
    with torch.no_grad():
        method.extra.map.weight.copy_(head.weight / head.scale)
        method.extra.map.bias.copy_(-head.weight @ head.mean / head.scale)
        # Lengths mean nothing to the cosine.
        if distance == "cosine":
            for value in method.extra.map.parameters():
                value.mul_(3.0)
        student.body.logits.weight.zero_()
    parts = method.loss(batch, teacher, student, AT_THE_END)
    assert parts["total"].item() == pytest.approx(0.0, abs=1e-7)
    method.finish_epoch(setting)
    torch.testing.assert_close(student(batch.images), teacher(batch.images), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("distance", ["squared", "cosine"])
@pytest.mark.parametrize("decision", ["classifier", "probe"])
def test_the_last_layer_becomes_the_decision_on_the_mapped_latent_vectors(case, distance, decision):
    teacher, student, batch = case
    method, setting = ready(teacher, student, batch, distance=distance, decision=decision)
    with torch.no_grad():
        method.extra.map.weight.copy_(make_latents(5, 5, seed=4))
        method.extra.map.bias.copy_(make_latents(1, 5, seed=5)[0])
    student.eval()
    method.finish_epoch(setting)
    extra, head = method.extra, method.extra.head
    u = extra.map(latent_vectors(student, batch.images)[0])
    if distance == "cosine":
        u = u / u.square().sum(1).mean().sqrt()
    if decision == "classifier":
        # The teacher's last layer at the point of its space that u stands for.
        back = head.scale * u @ head.weight + head.mean
        expected = teacher.body.logits(back)
    else:
        expected = u @ extra.decision_weight.T + extra.decision_bias
        correct = (expected.argmax(1) == batch.labels).double().mean()
        assert correct > batch.labels.bincount().max() / len(batch.labels)
    torch.testing.assert_close(student(batch.images), expected, rtol=1e-6, atol=1e-6)


def test_the_probe_is_fitted_to_the_end(monkeypatch):
    """Latents of very different spreads, small as the head's targets are: the gradient vanishes."""
    generator = torch.Generator().manual_seed(0)
    spreads = torch.logspace(0, -2, 40)
    labels = torch.randint(10, (2000,), generator=generator)
    means = torch.randn(10, 40, generator=generator)
    features = 0.1 * spreads * (means[labels] + torch.randn(2000, 40, generator=generator))
    start = torch.zeros(10, 40, dtype=torch.float64), torch.zeros(10, dtype=torch.float64)
    found = [
        value.requires_grad_(True) for value in fit_probe(features, labels, *start, penalty=1e-4)
    ]
    logits = features.double() @ found[0].T + found[1]
    loss = torch.nn.functional.cross_entropy(logits, labels) + 0.5e-4 * found[0].square().sum()
    for gradient in torch.autograd.grad(loss, found):
        assert gradient.abs().max() < 1e-5
    monkeypatch.setattr("fkd.distillation._probe._ITERATIONS", 3000)
    more = fit_probe(features, labels, *start, penalty=1e-4)
    assert (more[0] - found[0]).abs().max() < 0.01 * found[0].abs().max()


def test_the_probe_is_logistic_regression():
    features, labels = make_latents(120, 4), torch.arange(120) % 3
    weight, bias = torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    found = fit_probe(features, labels, weight, bias, penalty=0.05)
    oracle = LogisticRegression(C=1 / (120 * 0.05), tol=1e-10, max_iter=2000)
    oracle.fit(features.numpy(), labels.numpy())
    ours = (features @ found[0].T + found[1]).softmax(1).numpy()
    np.testing.assert_allclose(ours, oracle.predict_proba(features.numpy()), atol=1e-3)
    # Convex: from elsewhere to the same place.
    again = fit_probe(features, labels, weight + 1.0, bias - 2.0, penalty=0.05)
    torch.testing.assert_close(again[0], found[0], rtol=1e-3, atol=1e-3)


def test_least_squares_finds_an_affine_map_and_bears_features_that_never_vary():
    features, weight = make_latents(200, 6), make_latents(3, 6, seed=6)
    targets = features @ weight.T + 2.0
    features = torch.cat([features, torch.full((200, 1), 5.0)], 1).double()
    found, bias = least_squares(features, targets, ridge=1e-3)
    assert (found @ features.T + bias[:, None] - targets.T).abs().max() < 0.05 * targets.std()
    assert found[:, 6].abs().max() < 1e-9
    # With the pull it is ridge regression.
    middle = features - features.mean(0)
    pull = 1e-3 * (middle**2).sum(0).mean()
    rows = torch.cat([middle, pull.sqrt() * torch.eye(7)])
    aims = torch.cat([targets - targets.mean(0), torch.zeros(7, 3)])
    oracle, *_ = np.linalg.lstsq(rows.numpy(), aims.numpy(), rcond=None)
    np.testing.assert_allclose(found.numpy(), oracle.T, atol=1e-9)
    silent, level = least_squares(torch.zeros(200, 4), targets, ridge=1.0)
    assert (silent == 0).all()
    torch.testing.assert_close(level, targets.mean(0))


def test_gradients_reach_the_student_below_its_last_layer_and_the_map_alone(case):
    _, student, batch = case
    teacher = make_mlp(1, (9,)).eval()
    method, _ = ready(teacher, student, batch)
    method.loss(batch, teacher, student, AT_THE_END)["total"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    reached = {name for name, p in student.named_parameters() if p.grad is not None}
    assert reached == {f"body.fc{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
    assert {name for name, p in method.extra.named_parameters() if p.grad is not None} == {
        "map.weight",
        "map.bias",
    }


def small(name="tintem", teacher=None, **config):
    return tiny_spec(name, teacher, method_config={"head_steps": 3, **config})


@pytest.mark.parametrize("decision", ["classifier", "probe"])
def test_training_lowers_the_distance_and_resumes_to_the_bit(
    decision, teacher, each_step, tmp_path
):
    spec = small(teacher=teacher, decision=decision)
    whole = train_model(spec, out=tmp_path / "whole")
    history = whole.card.history
    assert history[2]["latents"] < history[0]["latents"]
    # The teacher is poor: its student agrees with it, and a probe does better.
    figure = {"classifier": "teacher_agreement", "probe": "clean_accuracy"}[decision]
    assert whole.card.metrics[figure] > 0.4
    assert not {name for name in weights_of(whole) if "map" in name}
    for stopped in (3, 4):
        out = tmp_path / f"{stopped}"
        with pytest.raises(Cancelled):
            train_model(spec, out=out, progress=Recorder(stop_after(stopped)))
        again = train_model(spec, out=out)
        assert is_equal(weights_of(again), weights_of(whole))
        assert again.card.history == history


def test_labels_are_not_looked_at(teacher, tmp_path, monkeypatch):
    first = train_model(small(teacher=teacher), out=tmp_path / "first")

    class Shuffled(trainer._Run):
        def __init__(self, *values):
            super().__init__(*values)
            self.labels.copy_(self.labels.flip(0))

    monkeypatch.setattr(trainer, "_Run", Shuffled)
    second = train_model(small(teacher=teacher), out=tmp_path / "second")
    assert is_equal(weights_of(first), weights_of(second))
    third = train_model(small(teacher=teacher, decision="probe"), out=tmp_path / "third")
    last = "body.logits.weight"
    assert not torch.equal(weights_of(third)[last], weights_of(first)[last])


@pytest.fixture
def foreign(tmp_path):
    """Folder of a teacher of images of the same shape in 7 other classes."""
    network = make_mlp(3, (20, 16), shape=(1, 8, 8), classes=7).float()
    card = ModelCard(
        name="letters-teacher",
        role="teacher",
        dataset="letters",
        method="standard",
        architecture="mlp",
        architecture_config={"hidden": [20, 16]},
        image_shape=(1, 8, 8),
        num_classes=7,
        mean=(0.4,),
        std=(0.5,),
    )
    save_model(tmp_path / "letters-teacher", network, card)
    return tmp_path / "letters-teacher"


@pytest.mark.parametrize("latents", ["penultimate", "output"])
def test_a_teacher_of_another_data_set_is_imitated_with_a_probe(foreign, latents, tmp_path):
    spec = small(teacher=foreign, decision="probe", teacher_latents=latents)
    model = train_model(spec, out=tmp_path / "student")
    history = model.card.history
    assert history[2]["latents"] < 0.9 * history[0]["latents"]
    # Random features of a teacher that knows nothing of digits: better than chance.
    assert model.card.metrics["clean_accuracy"] > 0.2
    assert "teacher_agreement" not in model.card.metrics
    assert load_model(tmp_path / "student").card.teacher.name == "letters-teacher"


def test_a_classifier_of_other_classes_is_refused(foreign, case):
    with pytest.raises(ConfigError) as refused:
        check_spec(small(teacher=foreign))
    assert str(refused.value) == (
        "The teacher 'letters-teacher' was trained on letters and its classifier cannot decide "
        "between other classes; set decision to 'probe' or choose another teacher."
    )
    teacher, student, batch = case
    with pytest.raises(
        ConfigError, match="tells 4 classes apart and the data set has 6; set decis"
    ):
        make_method("tintem").set_up(setting_with(batch, teacher, student, num_classes=6))
    with pytest.raises(
        ConfigError, match="decision must be 'probe' where teacher_latents is 'outp"
    ):
        make_method("tintem", teacher_latents="output")
