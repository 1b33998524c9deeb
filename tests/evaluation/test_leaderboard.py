"""Students side by side: rows from stored figures, seeds together, who is not beaten, tables written."""

import io
import json
import shlex

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from fkd.core.errors import ConfigError
from fkd.evaluation import (
    LEADERBOARD_FORMATS,
    SPREAD_COLUMNS,
    STUDENT_COLUMNS,
    ScoresConfig,
    all_figures,
    analyse,
    figure_text,
    figures_of,
    find_scores,
    group_names,
    latex_table,
    leaderboard,
    leaderboard_bytes,
    leaderboard_columns,
    leaderboard_of,
    pareto,
    reproduce_snippet,
    score_configs,
    score_students,
    spread,
    stored_scores,
)
from fkd.evaluation.leaderboard import recipe
from fkd.models import read_card
from tests.support.pairs import save_digits_model

SETTINGS = {
    "dataset": "digits",
    "teacher": "big",
    "epsilon": 0.06,
    "count": 8,
    "groups": ["retention", "cost"],
}
NAN = float("nan")


def trained(name, seed, **more):
    """A student whose card tells how it was trained."""
    card = {
        "training_config": {"name": name, "seed": seed, "epochs": 1, **more},
        "history": [{"epoch": 1.0, "examples": 100.0}],
        "seconds": 2.0 + seed,
    }
    save_digits_model(name, "student", hidden=(10,), seed=seed, **card)


@pytest.fixture
def students(own_folders):
    save_digits_model("big", "teacher", hidden=(16,), seed=0)
    trained("one", 1)
    trained("two", 2)
    trained("long", 2, epochs=2)


def made_up(**columns):
    """A leaderboard of four students, two of them of one recipe."""
    facts = {
        "student": ["a_1", "a_2", "b", "c"],
        "teacher": "big",
        "method": ["kd", "kd", "rslad", "faithful"],
        "architecture": "mlp",
        "seed": pd.array([0, 1, 0, None], "Int64"),
        "recipe": ["r1", "r1", "r2", "r3"],
        "missing": "",
        "key": ["k1", "k2", "k3", "k4"],
    }
    return pd.DataFrame({**facts, **columns})


def test_one_row_a_student_from_what_is_stored(students):
    configs = score_configs(SETTINGS, ["one", "two", "long"])
    assert leaderboard(configs).empty
    table = score_students(configs[:2], device="cpu")
    assert table.student.tolist() == ["one", "two"]
    figures = [figure.name for figure in figures_of(table)]
    assert list(table) == [*(column.name for column in STUDENT_COLUMNS), *figures]
    assert figures[:2] == ["retention_train", "correction_train"]
    assert table.training_seconds.tolist() == [3.0, 4.0] and table.seed.tolist() == [1, 2]
    assert table.latency_1[1] == find_scores(configs[1]).value("latency_1")
    # The teacher makes too few mistakes for a share of them.
    assert np.isnan(table.retention_train[1])
    # The third has no figures, and the first one group of two.
    other = score_configs({**SETTINGS, "groups": ["cost", "fidelity"]}, ["one"])
    (row,) = leaderboard(other).to_dict("records")
    assert row["missing"] == "fidelity" and np.isnan(row["kl_inside"])
    assert row["parameters"] == 64 * 10 + 10 + 10 * 10 + 10


def test_seeds_are_told_by_the_cards(students):
    one, two, longer = (read_card(name) for name in ("one", "two", "long"))
    assert recipe(one) == recipe(two) != recipe(longer)
    # A model that was not trained here is its own recipe.
    save_digits_model("copy", "student", hidden=(10,), seed=1)
    save_digits_model("other", "student", hidden=(10,), seed=2)
    assert recipe(read_card("copy")) != recipe(read_card("other"))
    table = score_students(
        score_configs({**SETTINGS, "groups": ["cost"]}, ["one", "long", "two"]), device="cpu"
    )
    both = spread(table)
    assert both.students.tolist() == ["one, two", "long"] and both.seeds.tolist() == [2, 1]
    assert both.training_seconds.tolist() == [3.5, 4.0]


def test_the_spread_by_hand():
    table = spread(made_up(clean_accuracy=[0.9, 0.94, 0.8, 0.7], ece=[0.1, 0.1, NAN, 0.2]))
    names = [column.name for column in SPREAD_COLUMNS]
    assert list(table) == [*names, "clean_accuracy", "clean_accuracy_std", "ece", "ece_std"]
    assert table.method.tolist() == ["kd", "rslad", "faithful"]
    assert table.students.tolist() == ["a_1, a_2", "b", "c"]
    assert table.seeds.tolist() == [2, 1, 1] and table.unmeasured.tolist() == [0, 0, 0]
    assert table.clean_accuracy.tolist() == pytest.approx([0.92, 0.8, 0.7])
    # sqrt((0.02^2 + 0.02^2) / 1)
    assert table.clean_accuracy_std[0] == pytest.approx(0.0282842712)
    assert table.clean_accuracy_std[1:].isna().all() and table.ece_std[1:].isna().all()
    np.testing.assert_array_equal(table.ece, [0.1, np.nan, 0.2])


def test_a_seed_that_is_not_measured_hides_nothing_of_the_others():
    table = spread(made_up(clean_accuracy=[0.9, 0.94, 0.8, 0.7], ece=[0.1, NAN, NAN, NAN]))
    assert table.students[0] == "a_1, a_2"
    assert (table.seeds[0], table.unmeasured[0]) == (1, 1)
    # Not 0.92: all figures of a row are of the same students.
    assert (table.clean_accuracy[0], table.ece[0]) == (0.9, 0.1)
    assert np.isnan(table.clean_accuracy_std[0])
    # A figure alone that one seed has not leaves the seed in, and is no mean of some.
    table = spread(made_up(ece=0.1, teacher_ece=[0.2, NAN, 0.3, 0.4], clean_accuracy=0.9))
    assert (table.seeds[0], table.unmeasured[0]) == (2, 0)
    assert table.ece[0] == 0.1 and np.isnan(table.teacher_ece[0])
    # Where each lacks another group, nobody stands for all.
    table = spread(made_up(clean_accuracy=[0.9, NAN, 0.8, 0.7], ece=[NAN, 0.1, NAN, NAN]))
    assert (table.seeds[0], table.unmeasured[0]) == (2, 0)
    assert np.isnan(table.clean_accuracy[0]) and np.isnan(table.ece[0])


@pytest.mark.parametrize(
    ("accuracy", "gap", "front"),
    [
        ([0.9, 0.8, 0.7, 0.6], [0.4, 0.3, 0.3, 0.1], [True, True, False, True]),
        # Equal ones do not beat each other; what is missing is on no front and beats nobody.
        ([0.9, 0.9, 0.95, 0.5], [0.2, 0.2, NAN, 0.3], [True, True, False, False]),
        # As good in one and better in the other.
        ([0.9, 0.9, 0.8, 0.8], [0.2, 0.3, 0.2, 0.1], [True, False, False, True]),
    ],
)
def test_the_pareto_front_by_hand(accuracy, gap, front):
    # A higher accuracy is better, and a smaller gap.
    table = made_up(clean_accuracy=accuracy, gap_attack_mean=gap).set_index("student")
    found = pareto(table, "clean_accuracy", "gap_attack_mean")
    assert found.tolist() == front == pareto(table, "gap_attack_mean", "clean_accuracy").tolist()
    assert found.index.tolist() == table.index.tolist()


def test_a_front_needs_figures_with_a_better_end():
    table = made_up(clean_accuracy=0.5, teacher_accuracy=0.5)
    with pytest.raises(ConfigError, match="Neither a high nor a low 'teacher_accuracy' is better"):
        pareto(table, "clean_accuracy", "teacher_accuracy")
    with pytest.raises(ConfigError, match="no figure called 'clean_acuracy'; did you mean"):
        pareto(table, "clean_acuracy", "clean_accuracy")


def test_a_leaderboard_in_latex():
    table = made_up(
        clean_accuracy=[0.9, 0.9404, 0.8, NAN],
        gap_attack_mean=[0.12399, 0.2, 0.3, NAN],
        relative_clean_signed=[-0.01, 0.02, 0.0, NAN],
    ).head(3)
    text = latex_table(table, ["clean_accuracy", "gap_attack_mean", "relative_clean_signed"])
    assert text == (
        "\\begin{tabular}{llrrr}\n"
        "\\toprule\n"
        "student & method & accuracy, clean (\\%) & gap found, mean "
        "& student more confident, clean \\\\\n"
        "\\midrule\n"
        "a\\_1 & kd & 90.0 & \\textbf{0.123} & $-$0.010 \\\\\n"
        "a\\_2 & kd & \\textbf{94.0} & 0.200 & +0.020 \\\\\n"
        "b & rslad & 80.0 & 0.300 & +0.000 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_a_spread_in_latex_has_deviations_and_a_caption():
    table = spread(made_up(clean_accuracy=[0.9, 0.94, 0.8, NAN], parameters=1234.0))
    text = latex_table(table, caption="Students", label="tab:students")
    assert "\\textbf{92.0} $\\pm$ 2.8 & 1,234 $\\pm$ 0 \\\\" in text
    assert "faithful & mlp & 1 & -- & 1,234 \\\\" in text
    assert "\\caption{Students}" in text and "\\label{tab:students}" in text
    with pytest.raises(ConfigError, match="no figure called 'beauty'"):
        latex_table(table, ["beauty"])


def test_small_numbers_in_latex_have_powers_of_ten():
    table = spread(
        made_up(kl_inside=[1e-5, 3e-5, 0.02, NAN], linearity=[12345.6, 12345.6, 1.0, NAN])
    )
    text = latex_table(table, ["kl_inside", "linearity"])
    assert (
        "\\textbf{2.00 $\\cdot 10^{-5}$} $\\pm$ 1.41 $\\cdot 10^{-5}$ & 12,346 $\\pm$ 0 \\\\"
        in text
    )
    assert "0.0200 & \\textbf{1.00}" in text and "e-0" not in text


def test_files_hold_the_same_and_say_what_it_is():
    table = made_up(clean_accuracy=[0.9, 0.94, 0.8, NAN])
    measured = ScoresConfig(
        dataset="digits", teacher="t", student="a_1", norm="l2", epsilon=0.5, count=7
    )
    read = pd.read_csv(io.BytesIO(leaderboard_bytes(table, ".csv", measured=measured)))
    assert read.clean_accuracy.tolist()[:3] == [0.9, 0.94, 0.8] and read.seed.isna()[3]
    first = ["dataset", "norm", "epsilon", "count", "certificate"]
    assert read[first].drop_duplicates().values.tolist() == [["digits", "l2", 0.5, 7, "fast"]]
    for kind in (table, spread(table)):
        content = leaderboard_bytes(kind, ".parquet", measured=measured)
        arrow = pq.read_table(io.BytesIO(content))
        assert arrow.column_names == [*first, *kind]
        assert arrow.schema.field("epsilon").metadata[b"unit"] == b"pixel"
        config = json.loads(arrow.schema.metadata[b"fkd"])["config"]
        assert (config["teacher"], config["epsilon"]) == ("t", 0.5) and "student" not in config
        field = arrow.schema.field("clean_accuracy").metadata
        assert field[b"unit"] == b"share" and b"classifies as labelled" in field[b"meaning"]
        np.testing.assert_array_equal(arrow.to_pandas().clean_accuracy, kind.clean_accuracy)
    comment, latex = leaderboard_bytes(table, ".tex", measured=measured).split(b"\n", 1)
    assert comment == (
        b"% Students of t on the first 7 test examples of digits; ball: l2, radius 0.5; "
        b"certificate: fast."
    )
    assert latex.startswith(b"\\begin{tabular}")
    with pytest.raises(ConfigError, match=r"written as \.csv, \.parquet, \.tex, got '\.xls'"):
        leaderboard_bytes(table, ".xls", measured=measured)
    assert LEADERBOARD_FORMATS == (".csv", ".parquet", ".tex")


def test_every_column_is_documented():
    table = spread(made_up(ece=[0.1, 0.2, 0.3, 0.4]))
    told = leaderboard_columns(table).set_index("column")
    assert told.index.tolist() == list(table)
    assert (told.meaning.str.len() > 10).all()
    assert told.loc["ece", "better"] == "lower" and told.loc["ece_std", "better"] == "neither"
    assert told.loc["recipe", "better"] == ""


def test_latex_does_not_round_to_all_and_marks_the_true_best():
    text = latex_table(made_up(clean_accuracy=[0.9999, 1.0, 0.0004, 0.5]), ["clean_accuracy"])
    assert r"\textbf{100.0}" in text and r"\textbf{99.99}" not in text
    assert "99.99" in text and "0.04" in text


@pytest.mark.parametrize(
    ("figure", "value", "text"),
    [
        ("clean_accuracy", 0.98765, "98.8 %"),
        ("clean_accuracy", 0.9999, "99.99 %"),
        ("clean_accuracy", 1.0 - 1e-15, "100.0 %"),
        ("certified_accuracy", 0.0004, "0.04 %"),
        ("certified_accuracy", 0.0, "0.0 %"),
        ("gap_attack_mean", 0.98799, "0.987"),
        ("gap_certified_mean", 0.98701, "0.988"),
        ("relative_clean_signed", 0.0123, "+0.012"),
        ("kl_inside", 0.012345, "0.0123"),
        ("kl_inside", 0.0000107, "1.07·10⁻⁵"),
        ("kl_inside", 0.00099951, "0.00100"),
        ("kl_inside", 0.0, "0"),
        ("training_seconds", 12345.6, "12,346 s"),
        ("auroc_knn_noise", 0.98765, "0.988"),
        ("flops", 14672.0, "14,672"),
        ("latency_1", 0.24123, "0.241 ms"),
        ("ece", None, "-"),
        ("ece", NAN, "-"),
    ],
)
def test_a_figure_in_words(figure, value, text):
    assert figure_text(all_figures()[figure], value) == text


def test_bad_input_is_one_sentence(students):
    with pytest.raises(ConfigError, match="At least one student is needed, got none"):
        score_configs(SETTINGS, [])
    with pytest.raises(ConfigError, match="'one' is named more than once"):
        score_configs(SETTINGS, ["one", "two", "one"])
    with pytest.raises(ConfigError, match="no setting called 'beauty'"):
        score_configs({**SETTINGS, "beauty": 1}, ["one"])
    (first,) = score_configs(SETTINGS, ["one"])
    with pytest.raises(ConfigError, match="Only analyses with the same epsilon"):
        leaderboard([first, first.model_copy(update={"epsilon": 0.05})])
    with pytest.raises(ConfigError, match="the same groups of figures"):
        leaderboard([first, first.model_copy(update={"groups": ("cost",)})])
    other = first.model_copy(update={"outside": "mine"})
    for refused in (leaderboard, score_students):
        with pytest.raises(
            ConfigError, match="out of distribution can be compared, got None and mine"
        ):
            refused([first, other])


def test_values_alone_make_the_same_leaderboard(students):
    configs = score_configs(SETTINGS, ["one", "two"])
    score_students(configs, device="cpu")
    whole = [stored_scores(config) for config in configs]
    alone = [stored_scores(config, values_only=True) for config in configs]
    assert [len(scores.table) for scores in alone] == [len(scores.table) for scores in whole]
    pd.testing.assert_frame_equal(leaderboard_of(alone), leaderboard_of(whole))


def test_an_analysis_stands_in_for_missing_faithfulness(students):
    config = score_configs({**SETTINGS, "groups": ["faithfulness", "cost"]}, ["one"])[0]
    nothing = stored_scores(config)
    assert nothing.missing == ("faithfulness", "cost") and nothing.table.empty
    told = analyse(config.analysis(), device="cpu").table
    table = leaderboard_of([nothing], {"one": told})
    [row] = table.to_dict("records")
    assert row["gap_attack_mean"] == told.gap_attack.mean()
    assert row["agreement_certified"] == told.agrees_certified.mean()
    assert row["missing"] == "faithfulness, cost"
    # What needs the whole split is not guessed from some examples, what the card holds is no guess.
    assert np.isnan(row["agreement_clean"]) and np.isnan(row["flops"])
    assert row["parameters"] == read_card("one").parameters > 0
    # Measured figures need nobody to stand in, and both ways give the same.
    measured = score_students([config], device="cpu")
    known = table.columns[table.loc[0].notna() & (table.columns != "missing")]
    pd.testing.assert_frame_equal(measured[known], table[known])


def test_a_deviation_follows_its_figure_in_the_same_digits():
    known = all_figures()
    assert figure_text(known["clean_accuracy"], 0.9782, 0.0123) == "97.8 ± 1.2 %"
    assert figure_text(known["gap_certified_mean"], 0.12301, 0.004) == "0.124 ± 0.004"
    assert figure_text(known["parameters"], 1810.0, 0.0) == "1,810 ± 0"
    assert figure_text(known["training_seconds"], 2.5, NAN) == "2.50 s"
    assert figure_text(known["training_seconds"], NAN, 1.0) == "-"
    assert figure_text(known["kl_inside"], 1.5, 0.1342) == "1.50 ± 0.13"
    assert figure_text(known["kl_inside"], 0.05161, 0.0) == "0.0516 ± 0.0000"
    assert figure_text(known["kl_inside"], 1.5e-5, 2e-6) == "1.50·10⁻⁵ ± 0.20·10⁻⁵"


def test_the_command_line_measures_the_same(students):
    config = score_configs(SETTINGS, ["one"])[0]
    words = shlex.split(reproduce_snippet(config, students=["one", "two"]))
    assert words[:4] == ["python", "-m", "fkd", "score"]
    place = words.index("--students")
    assert words[place + 1 : place + 3] == ["one", "two"]
    assert words[words.index("--groups") + 1 :][:2] == ["retention", "cost"]
    assert "--groups" not in reproduce_snippet(
        score_configs({**SETTINGS, "groups": group_names()}, ["one"])[0]
    )
