"""The README says what is shipped: its tables, its commands, its pictures."""

import re
import shlex

import pytest

from fkd.cli import main
from fkd.evaluation import AnalysisConfig, list_analyses, summarise
from fkd.models import list_models, load_model
from tests.support.readme import README, SECTIONS, section

TEXT = README.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    # Models and tables of the person who runs the tests are not the README's.
    monkeypatch.setenv("FKD_HOME", str(tmp_path))


@pytest.mark.parametrize("name", SECTIONS)
def test_tables_are_those_of_what_is_shipped(name):
    made = "\n".join(SECTIONS[name]()) + "\n"
    assert section(TEXT, name) == made, "run python -m tests.support.readme"


def test_pictures_and_linked_files_exist():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) >= 6
    for link in links:
        assert link.startswith("http") or (README.parent / link).is_file(), link


def _commands():
    joined = re.sub(r"\\\n\s*", "", TEXT)
    return [
        shlex.split(line.split("#")[0])[3:]
        for line in re.findall(r"^python -m fkd .*$", joined, re.MULTILINE)
    ]


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_every_option_shown_exists(words, capsys):
    command = [words[0], "import"] if words[1:2] == ["import"] else words[:1]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    offered = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", offered), option


def test_every_command_is_shown():
    shown = {words[0] for words in _commands()}
    assert {"analyse", "compare", "distill", "copy", "train", "models", "data"} <= shown


def test_names_in_examples_are_shipped():
    shipped = {card.name for card in list_models()}
    named = set()
    for words in _commands():
        for option in ("--teacher", "--student"):
            if option in words:
                named.add(words[words.index(option) + 1])
    assert named and named <= shipped


def test_the_python_example_is_answered_at_once():
    code, _ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(compile(code, "README", "exec"), names)
    assert isinstance(names["config"], AnalysisConfig)
    assert names["analysis"].key in {entry.key for entry in list_analyses() if entry.is_shipped}
    assert summarise(names["analysis"].table).count == 200


def test_the_python_example_of_distilling_makes_a_student():
    _, code = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(compile(code, "README", "exec"), names)
    assert load_model("faithful-student").card == names["model"].card
    assert names["model"].card.metrics["clean_accuracy"] > 0.2


def test_every_environment_variable_is_explained():
    root = README.parent
    used = set()
    for folder in ("fkd", "dashboard"):
        for path in (root / folder).rglob("*.py"):
            used |= set(re.findall(r"FKD_[A-Z]+(?:_[A-Z]+)*", path.read_text(encoding="utf-8")))
    assert used
    explained = set(re.findall(r"^\| `(FKD_[A-Z_]+)` \|", TEXT, re.MULTILINE))
    assert used == explained
