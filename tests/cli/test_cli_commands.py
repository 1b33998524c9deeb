"""The commands themselves, on digits with networks that are trained for a moment."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import fkd.cli
from fkd.records import ANALYSIS_COLUMNS
from tests.support.fake_levels import NAME, fake_level

TINY = ["--architecture", "mlp", "--architecture-config", "hidden=16", "--train-count", "300"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A home with one teacher and two students, made by the commands themselves."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        environment(patch, home)
        common = ["--dataset", "digits", "--epochs", "1", "--quiet", *TINY]
        assert fkd.cli.main(["train", "--name", "t", *common]) == 0
        for name, method in (("s-kd", "kd"), ("s-far", "faithful")):
            command = ["distill", "--name", name, "--teacher", "t", "--method", method]
            assert fkd.cli.main([*command, *common]) == 0
    return home


def environment(patch: pytest.MonkeyPatch, home: Path) -> None:
    patch.setenv("FKD_HOME", str(home))
    patch.setenv("FKD_DATA_DIR", str(home / "data"))
    patch.setenv("FKD_PRETRAINED_DIR", str(home / "pretrained"))


@pytest.fixture
def fkd_command(trained, monkeypatch, capsys):
    """Run one command on the trained models: ``(exit code, stdout, stderr)``."""
    environment(monkeypatch, trained)
    capsys.readouterr()

    def command(*words):
        code = fkd.cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_distill_trains_on_the_teachers_data_set(fkd_command, monkeypatch):
    seen = []

    def train_model(spec, **_):
        seen.append(spec.dataset)
        raise KeyboardInterrupt

    monkeypatch.setattr("fkd.models.read_card", lambda name: SimpleNamespace(dataset=f"of-{name}"))
    monkeypatch.setattr("fkd.distillation.train_model", train_model)
    fkd_command("distill", "--name", "x", "--teacher", "t")
    fkd_command("distill", "--name", "x", "--teacher", "t", "--dataset", "mnist")
    fkd_command("train", "--name", "x")
    assert seen == ["of-t", "mnist", "digits"]


PAIR = ["--dataset", "digits", "--teacher", "t", "--student", "s-kd", "--epsilon", "0.1"]


def test_models_are_listed_for_people_and_for_scripts(fkd_command):
    code, out, _ = fkd_command("models", "--json")
    models = {model["name"]: model for model in json.loads(out)}
    assert code == 0
    assert set(models) == {"t", "s-kd", "s-far"}
    wanted = {"name", "dataset", "role", "method", "architecture", "teacher", "epsilon"}
    assert all(wanted <= set(model) for model in models.values())
    teacher, student = models["t"], models["s-kd"]
    assert (teacher["role"], teacher["method"], teacher["teacher"]) == ("teacher", "standard", None)
    assert (student["role"], student["method"], student["teacher"]) == ("student", "kd", "t")
    assert teacher["epsilon"] is None
    assert student["architecture_config"]["hidden"] == [16]

    _, out, _ = fkd_command("models", "--role", "student")
    assert [line.split()[0] for line in out.splitlines()] == ["name", "s-far", "s-kd"]
    assert json.loads(fkd_command("models", "--json", "--dataset", "mnist")[1]) == []
    assert "mlp: " in fkd_command("models", "--architectures")[1]
    assert json.loads(fkd_command("models", "show", "s-kd")[1])["method"] == "kd"


def test_analyse_writes_the_table_and_prints_the_verdict(fkd_command, tmp_path):
    out_path = tmp_path / "new" / "table.parquet"
    words = ["analyse", *PAIR, "--count", 12, "--seed", 3, "--attack", "steps=4", "--out", out_path]
    code, out, err = fkd_command(*words)
    assert (code, "attack: " in err) == (0, True)
    table = pd.read_parquet(out_path)
    assert list(table.columns) == [column.name for column in ANALYSIS_COLUMNS]
    assert len(table) == 12
    assert (table["seed"] == 3).all()
    assert '"steps": 4' in table["attack"].iloc[0]
    assert "of 12 examples" in out.splitlines()[0]
    assert str(out_path) in out

    # Asked again: the stored answer, at once, the same to the byte.
    again = tmp_path / "again.parquet"
    code, out_again, err = fkd_command(*words[:-1], again)
    assert (code, err) == (0, "")
    assert again.read_bytes() == out_path.read_bytes()
    # Table and witnesses are both named after --out.
    assert out_again == out.replace(str(out_path.with_suffix("")), str(again.with_suffix("")))


def test_analyse_at_a_level_with_a_time_budget(fkd_command, tmp_path):
    level = ["--certificate", f"name={NAME}", "seconds=30"]
    words = [*PAIR, "--count", 2, "--attack", "steps=2"]
    with fake_level():
        code, out, err = fkd_command("analyse", *words, *level)
        assert code == 0
        assert (
            "certificate: 0 of 2 (example 0: gap 0.100 to 0.900, 1 open, 1 evaluated, 0.0 s)" in err
        )
        assert re.search(
            r"^Certificate: staged \(seconds 30\); an example took: certificate .* s, attack .* s$",
            out,
            re.MULTILINE,
        )
        # Another budget is another question, and the usual level another still.
        assert fkd_command("analyse", *words, "--certificate", f"name={NAME}")[2] != ""
        assert "Certificate: staged" not in fkd_command("analyse", *words)[1]
        assert fkd_command("analyse", *words, *level)[2] == ""

        students = ["--students", "s-kd", "--epsilon", "0.1", "--count", 2, "--attack", "steps=2"]
        pair = ["--dataset", "digits", "--teacher", "t"]
        out = fkd_command("compare", *pair, *students, *level)[1]
        assert "certificate staged (seconds 30)" in out.splitlines()[0]
        code, _, err = fkd_command("analyse", *words, "--certificate", f"name={NAME}", "seconds=0")
        assert code == 2 and "'seconds' is not usable" in err


def test_watching_a_run_shows_its_bracket_move(fkd_command, monkeypatch):
    from fkd.runs import RunRecord

    facts = {"id": "analyse-1", "kind": "analyse", "spec": {}, "title": "t", "stage": "certificate"}
    values = {"example": 3, "lower": 0.25, "open": 2, "evaluated": 7, "seconds": 1.0}
    records = [
        RunRecord(**facts, state="running", done=3, total=9, values={**values, "upper": upper})
        for upper in (0.9, 0.9, 0.5)
    ]
    ended = RunRecord(**facts, state="done", done=9, total=9, values={}, result="key")
    standing = iter([*records, ended])
    seen = []
    monkeypatch.setattr("fkd.cli.runs.list_runs", lambda **_: [ended])
    monkeypatch.setattr("fkd.cli.runs.wait_run", lambda *_, **__: next(standing))
    monkeypatch.setattr(
        "fkd.cli.progress.ProgressBar.__call__", lambda self, step: seen.append(step)
    )
    code, out, _ = fkd_command("runs", "watch", "last")
    assert (code, out) == (0, "analyse-1 is done. key\n")
    # The count stays, the bracket moves; what has not moved is not drawn again.
    assert [(step.done, step.values.get("upper")) for step in seen] == [
        (3, 0.9),
        (3, 0.5),
        (9, None),
    ]


def test_the_help_explains_every_level(fkd_command, capsys):
    with fake_level(), pytest.raises(SystemExit):
        fkd.cli.main(["analyse", "--help"])
    shown = capsys.readouterr().out
    assert "--certificate name=staged: A stage set for tests." in shown
    assert "seconds=10: Time budget an example. Above 0, at most 86400." in shown
    assert shown.count("(the default): ") == 2
    flat = " ".join(shown.replace("│", " ").split())
    assert "name=exact seconds=30" in flat


def test_a_copy_is_made_and_compared_with_its_teacher(fkd_command, trained, tmp_path):
    common = ["copy", "--teacher", "t", "--report-count", 10, "--report-steps", 1, "--quiet"]
    out = tmp_path / "pruned"
    words = [*common, "--name", "pruned", "--method", "pruned", "--method-config", "share=1/2"]
    code, shown, err = fkd_command(*words, "--out", out)
    assert (code, err) == (0, "")
    assert "pruned: pruned on digits, mlp with" in shown and str(out) in shown
    card = json.loads(fkd_command("models", "show", out)[1])
    assert (card["method_config"], card["teacher"]["name"]) == ({"share": 0.5}, "t")

    code, shown, _ = fkd_command(*common, "--name", "rounded", "--out", tmp_path / "rounded")
    assert (code, "teacher agreement" in shown) == (0, True)
    pair = ["--dataset", "digits", "--teacher", "t", "--student", tmp_path / "rounded"]
    words = ["analyse", *pair, "--epsilon", "0.01", "--count", 3, "--attack", "steps=2", "--quiet"]
    assert fkd_command(*words)[0] == 0


def test_a_copy_in_the_background_is_a_run(fkd_command, monkeypatch):
    asked = []
    monkeypatch.setattr("fkd.runs.start_run", lambda *words: asked.append(words) or "copy-1")
    words = ["copy", "--teacher", "t", "--name", "c", "--method-config", "bits=4", "--background"]
    assert fkd_command(*words)[:2] == (0, "copy-1\n")
    [(kind, spec)] = asked
    assert (kind, spec["teacher"], spec["method_config"]) == ("copy", "t", {"bits": 4})


def test_analyse_takes_folders_and_fractions(fkd_command, trained):
    pair = ["--teacher", trained / "models" / "t", "--student", trained / "models" / "s-kd"]
    common = ["--dataset", "digits", "--count", 3, "--attack", "steps=2", "--quiet"]
    code, out, err = fkd_command("analyse", *pair, "--epsilon", "8/255", *common)
    assert (code, err) == (0, "")
    assert "epsilon 0.0313725" in out


def test_compare_sets_students_side_by_side(fkd_command, tmp_path):
    words = ["compare", "--dataset", "digits", "--teacher", "t", "--students", "s-kd", "s-far"]
    words += ["--epsilon", "0.05", "--count", 8, "--attack", "steps=3"]
    for name in ("c.csv", "c.parquet"):
        code, out, _ = fkd_command(*words, "--out", tmp_path / name)
        assert code == 0
    shown = [line.split()[0] for line in out.splitlines() if line.startswith("s-")]
    assert sorted(shown) == ["s-far", "s-kd"]
    table = pd.read_parquet(tmp_path / "c.parquet")
    assert table["student"].tolist() == shown
    assert table["gap_certified_mean"].is_monotonic_increasing
    assert (table["gap_attack_mean"] <= table["gap_certified_mean"] + 1e-9).all()
    assert (table["count"] == 8).all()
    csv = pd.read_csv(tmp_path / "c.csv")
    assert csv["gap_attack_mean"].tolist() == pytest.approx(table["gap_attack_mean"].tolist())


def test_data_sets_are_listed(fkd_command):
    code, out, _ = fkd_command("data")
    assert code == 0
    assert "python -m fkd data download mnist" in out
    sets = {item["name"]: item for item in json.loads(fkd_command("data", "--json")[1])}
    assert sets["digits"]["is_available"]
    assert not sets["mnist"]["is_available"]
    assert "on this machine already" in fkd_command("data", "download", "digits")[1]


def test_a_trained_model_is_imported_under_another_name(fkd_command, trained, tmp_path):
    weights = trained / "models" / "t" / "model.safetensors"
    words = ["models", "import", weights, "--name", "mine", "--dataset", "digits"]
    words += ["--role", "teacher", "--architecture", "mlp", "--architecture-config", "hidden=16"]
    code, out, err = fkd_command(*words)
    assert (code, err) == (0, "")
    assert out.startswith("mine: ")
    try:
        assert fkd_command("models", "show", "mine")[0] == 0
        code, _, err = fkd_command(*words)
        assert code == 2
        assert "mine" in err
    finally:
        for file in (trained / "models" / "mine").iterdir():
            file.unlink()
        (trained / "models" / "mine").rmdir()


def test_a_kind_without_runs_is_not_said_of_all(fkd_command, monkeypatch):
    from fkd.runs import RunRecord

    assert fkd_command("runs", "--kind", "copy")[1].startswith("No runs yet;")
    others = [RunRecord("train-1", "train", {}, "mine", "done")]
    monkeypatch.setattr(
        "fkd.cli.runs.list_runs", lambda limit=50, kind=None: [] if kind == "copy" else others
    )
    code, out, _ = fkd_command("runs", "--kind", "copy")
    assert code == 0 and out.startswith("No runs of the kind 'copy' yet")


def test_help_lists_every_kind_of_run_and_every_level(capsys):
    from fkd.bounds import CERTIFICATES
    from fkd.runs import KINDS

    def helped(command):
        with pytest.raises(SystemExit):
            fkd.cli.main([command, "--help"])
        return " ".join(capsys.readouterr().out.split())

    assert all(f"{kind} (" in helped("runs") for kind in KINDS)
    for command, usual in (("analyse", "fast"), ("radius", "tight")):
        text = helped(command)
        assert all(f"--certificate name={name}" in text for name in CERTIFICATES)
        assert f"--certificate name={usual} (the default)" in text
    assert "level of the bounds is tight" in text


ANALYSE = ["analyse", *PAIR]
COPY = ["copy", "--teacher", "t", "--name", "x"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([*ANALYSE, "--epsilon", "-0.1"], "epsilon must lie in [0, 1]"),
        ([*ANALYSE, "--epsilon", "nan"], "epsilon must lie in [0, 1]"),
        ([*ANALYSE, "--epsilon", "8"], "did you mean 8/255?"),
        ([*ANALYSE, "--count", "0"], "'count' is not usable"),
        ([*ANALYSE, "--count", "100000"], "100000"),
        ([*ANALYSE, "--count", "many"], "got 'many'"),
        ([*ANALYSE, "--seed", "-1"], "seed must be a whole number"),
        ([*ANALYSE, "--dataset", "mnits"], "did you mean 'mnist'?"),
        ([*ANALYSE, "--teacher", "tt"], "There is no model called 'tt'"),
        ([*ANALYSE, "--attack", "stepz=3"], "no setting called"),
        ([*ANALYSE, "--attack", "name=magic"], "There is no attack called 'magic'"),
        ([*ANALYSE, "--out", "table.xlsx"], "--out must end in .parquet, got 'table.xlsx'"),
        ([*ANALYSE, "--background", "--out", "a.parquet"], "leave --out"),
        (["models", "--role", "parent"], "--role is teacher or student, got 'parent'"),
        (["train", "--name", "x", "--method", "kd"], "use 'python -m fkd distill'"),
        (
            ["distill", "--name", "x", "--teacher", "t", "--method", "ibp"],
            "use 'python -m fkd train'",
        ),
        (["train", "--name", "../x"], "../x"),
        (["train", "--name", "x", "--dataset", "mnist"], "mnist"),
        (["train", "--name", "x", "--method-config", "alpha=1"], "no setting called 'alpha'"),
        ([*COPY, "--method", "kd"], "There is no way of copying called 'kd'"),
        ([*COPY, "--method-config", "bits=1"], "'bits' is not usable"),
        ([*COPY, "--method", "pruned", "--method-config", "bits=8"], "no setting called 'bits'"),
        ([*COPY, "--background", "--out", "folder"], "leave --out out"),
        (
            [*ANALYSE, "--certificate", "seconds=3"],
            "fast has no setting called 'seconds'; exact has",
        ),
        (
            [*ANALYSE, "--certificate", "name=exact", "seconds=-1"],
            "certificate exact: 'seconds' is",
        ),
        (["copy", "--teacher", "tt", "--name", "x"], "There is no model called 'tt'"),
        (["data", "download", "nowhere"], "There is no data set called 'nowhere'"),
        (["runs", "log", "last"], "There is no run 'last'"),
        (
            ["runs", "--kind", "nosuch"],
            "choose one of analyse, attack, copy, radius, robust, score, train",
        ),
        (["runs", "--kind", "distill"], "'train' are distillations too"),
    ],
)
def test_bad_input_is_one_sentence(fkd_command, words, sentence):
    code, out, err = fkd_command(*words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert "unexpected" not in err
