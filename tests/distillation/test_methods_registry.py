"""Every registered method, and one added at run time, does what a method must."""

import inspect

import pytest
import torch
from _tiny_training import AT_THE_END, setting_of, tiny_spec, weights_of
from pydantic import Field
from torch.nn import functional

import fkd.cli
from dashboard.backend import runs as dashboard_runs
from fkd.core.config import Config
from fkd.core.errors import ConfigError
from fkd.data import load_split
from fkd.distillation import (
    METHODS,
    Batch,
    LossParts,
    Method,
    check_spec,
    evaluate_accuracy,
    train_model,
    trainer,
)
from fkd.distillation._initialisation import ibp_initialise
from fkd.models import build, load_model

#: One epoch over 400 digits, ten steps.
TINY = {
    "epochs": 1,
    "train_count": 400,
    "batch_size": 20,
    "architecture_config": {"hidden": [32]},
    "learning_rate": 0.03,
}

#: A method that starts from a regression would lose it at the others' learning rate.
OTHERWISE = {"tintem": {"learning_rate": 0.01}}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers") / "teacher"
    train_model(tiny_spec("standard", **{**TINY, "epochs": 5}), out=folder)
    return folder


def role_of(name):
    return METHODS.get(name).role


def fixed_loss(plan, network):
    """The method's loss with every ramp risen, on examples of its own."""
    split = load_split("digits", "test")
    batch = Batch(split.images[:200], split.labels[:200], torch.arange(200), seed=0, step=0)
    parts = plan.method.loss(
        batch, plan.teacher.network if plan.teacher else None, network, AT_THE_END
    )
    assert torch.stack([v for k, v in parts.items() if k != "total"]).sum().item() == pytest.approx(
        parts["total"].item(), rel=1e-5
    )
    return parts["total"].item()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_one_epoch_lowers_the_loss_and_learns_something(name, teacher, tmp_path, monkeypatch):
    values = {**TINY, **OTHERWISE.get(name, {})}
    spec = tiny_spec(name, teacher if role_of(name) == "student" else None, **values)
    plan = check_spec(spec)
    mean, std = plan.data_set.channel_statistics()
    fresh = build(
        "mlp",
        plan.architecture_config,
        image_shape=(1, 8, 8),
        num_classes=10,
        mean=mean,
        std=std,
        seed=0,
    )
    plan.method.prepare(setting_of(plan, fresh))
    before = fixed_loss(plan, fresh)
    # What the method itself learns belongs to its loss: the run's own plan is kept.
    trained = check_spec(spec)
    monkeypatch.setattr(trainer, "check_spec", lambda _: trained)
    model = train_model(spec, out=tmp_path / "m")
    after = fixed_loss(trained, model.network)
    assert after < 0.97 * before
    untrained = evaluate_accuracy(fresh.eval(), load_split("digits", "test"))
    assert model.card.metrics["clean_accuracy"] > max(0.3, untrained + 0.1)
    assert model.card.method == name
    assert model.card.role == role_of(name)
    assert set(model.card.history[0]) >= {"epoch", "loss", "learning_rate", "clean_accuracy"}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods_are_documented(name):
    entry = METHODS.get(name)
    assert entry.role in ("teacher", "student")
    assert entry.title
    assert entry.source
    assert issubclass(entry.Config, Config)
    assert inspect.getdoc(entry)
    assert METHODS.available()[name]
    # Every setting can be left out.
    entry(entry.Config.parse({}))


def test_teachers_and_students_of_the_literature_are_there():
    teachers = {name for name in METHODS if role_of(name) == "teacher"}
    students = {name for name in METHODS if role_of(name) == "student"}
    assert teachers >= {"standard", "pgd_at", "trades", "ibp", "crown_ibp", "sabr", "mtl_ibp"}
    assert students >= {"kd", "ard", "rslad", "iad", "akd", "adaad", "igdm"}
    assert students >= {"faithful", "faithful_ibp", "faithful_crown_ibp"}


class ThrowAwayConfig(Config):
    sharpness: float = Field(default=2.0, gt=0, le=9, description="How sharp the targets are.")


@pytest.fixture
def throw_away():
    @METHODS.register("throw_away")
    class ThrowAway(Method):
        """Fits sharpened predictions of the teacher."""

        title = "Throw-away method"
        role = "student"
        source = "This test"
        Config = ThrowAwayConfig

        def loss(self, batch, teacher, student, clock):
            with torch.no_grad():
                target = (self.config.sharpness * teacher(batch.images)).softmax(1)
            value = functional.cross_entropy(student(batch.images), target)
            return LossParts.weighted({"sharpened": (1.0, value)}, {"over": clock.fraction})

    yield ThrowAway
    METHODS.unregister("throw_away")


def test_a_method_added_at_run_time_trains(throw_away, teacher, tmp_path):
    spec = tiny_spec("throw_away", teacher, method_config={"sharpness": 3.0}, **TINY)
    model = train_model(spec, out=tmp_path / "m")
    assert model.card.method_config == {"sharpness": 3.0}
    assert model.card.history[0]["sharpened"] == model.card.history[0]["loss"]
    # The mean of what was observed over the 20 steps.
    assert model.card.history[0]["over"] == pytest.approx(sum(i / 20 for i in range(20)) / 20)
    assert model.card.metrics["teacher_agreement"] > 0.5
    again = load_model(tmp_path / "m")
    assert all(torch.equal(v, weights_of(model)[k]) for k, v in weights_of(again).items())


def test_a_method_added_at_run_time_is_in_help_and_form(throw_away, capsys):
    with pytest.raises(SystemExit) as ended:
        fkd.cli.main(["distill", "--help"])
    assert ended.value.code in (0, None)
    out = capsys.readouterr().out
    assert "throw_away: Fits sharpened predictions of the teacher." in out
    assert "sharpness=2: How sharp the targets are. Above 0, at most 9." in out
    assert dashboard_runs.methods("student")["throw_away"] == "Throw-away method"
    assert "throw_away" not in dashboard_runs.methods("teacher")
    (field,) = dashboard_runs.training_fields("throw_away", "mlp")["method"]
    assert field.name == "sharpness"
    with pytest.raises(ConfigError, match="'sharpness' is not usable"):
        check_spec(tiny_spec("throw_away", method_config={"sharpness": 10}))


@pytest.mark.parametrize("name", list(METHODS))
def test_what_is_wrong_in_the_settings_is_told_of_this_method(name):
    settings = METHODS.get(name).Config
    unusable = dict.fromkeys(settings.model_fields, "?")
    for values in ({"no_such": 1}, unusable) if unusable else ({"no_such": 1},):
        with pytest.raises(ConfigError, match=f"^training method {name}(:| has no setting)"):
            settings.parse(values)


def test_a_name_is_taken_once(throw_away):
    with pytest.raises(ConfigError, match=r"The training method name 'kd' is taken by fkd\.distil"):
        METHODS.register("kd")(throw_away)


def test_ibp_initialisation_has_its_published_spread_and_is_seeded():
    def make(seed):
        network = build(
            "cnn_small",
            {"width": 16},
            image_shape=(1, 28, 28),
            num_classes=10,
            mean=[0.1],
            std=[0.3],
            seed=1,
        )
        ibp_initialise(network, seed)
        return network.state_dict()

    first, again, other = make(0), make(0), make(1)
    for name, value in first.items():
        assert torch.equal(value, again[name])
        if name.endswith("bias"):
            assert (value == 0).all()
        else:
            fan_in = value[0].numel()
            expected = (2 * torch.pi) ** 0.5 / fan_in
            assert value.std().item() == pytest.approx(expected, rel=0.2)
            assert not torch.equal(value, other[name])
