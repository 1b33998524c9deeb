"""Options drawn from a configuration: every field, its words, its values, its sentences."""

from typing import Any, Literal

import pytest
from pydantic import Field

from fkd.cli.options import (
    Option,
    config_values,
    fraction,
    options_of,
    pairs,
    parse,
    settings_text,
)
from fkd.core.config import Config
from fkd.core.errors import ConfigError


class Inner(Config):
    steps: int = Field(default=10, ge=1, le=200, description="How many steps.")
    sizes: tuple[int, ...] = Field(default=(3, 4), description="How large.")


class Outer(Config):
    name: str = Field(description="What to call it.")
    epsilon: float = Field(default=1.0 / 3.0, gt=0, description="How far.")
    mode: Literal["a", "b"] = Field(default="a", description="Which way.")
    parent: str | None = Field(default=None, description="Whose child.")
    is_odd: bool = Field(default=False, description="Whether odd.")
    is_even: bool = Field(default=True, description="Whether even.")
    radii: tuple[float, ...] = Field(default=(), description="Several.")
    inner: Inner = Field(default_factory=Inner, description="Inside.")
    extra: dict[str, Any] = Field(default_factory=dict, description="Anything.")


def parsed(*words: str, **more: Any) -> Outer:
    values = parse("try", words, options_of(Outer, **more), description="Try it.")
    return Outer.parse(config_values(Outer, values))


def test_every_field_can_be_given():
    outer = parsed(
        *[
            "--name",
            "x",
            "--epsilon",
            "8/255",
            "--mode",
            "b",
            "--parent",
            "p",
            "--is-odd",
            "--no-is-even",
        ],
        *[
            "--radii",
            "0.1",
            "2/255",
            "--inner",
            "steps=7",
            "sizes=5",
            "--extra",
            "alpha=0.9",
            "words=two",
        ],
    )
    assert outer == Outer(
        name="x",
        epsilon=8 / 255,
        mode="b",
        parent="p",
        is_odd=True,
        is_even=False,
        radii=(0.1, 2 / 255),
        inner=Inner(steps=7, sizes=(5,)),
        extra={"alpha": 0.9, "words": "two"},
    )


def test_what_is_not_given_is_exactly_the_default():
    # 1/3 is shown rounded in the help; the value must not be.
    assert parsed("--name", "x") == Outer(name="x")


def test_a_command_may_change_defaults_and_leave_fields_out():
    assert parsed("--name", "x", defaults={"mode": "b"}).mode == "b"
    with pytest.raises(SystemExit, match="2"):
        parsed("--name", "x", "--mode", "b", skip=["mode"])
    with pytest.raises(SystemExit, match="2"):
        parsed("--name", "x", defaults={"parent": ...})


def test_help_shows_every_field_with_range_and_default(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(
            "try",
            ["--help"],
            options_of(Outer),
            description="Try it.",
            epilog=lambda: "More:\n" + settings_text(Inner),
        )
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in (
        "python -m fkd try",
        "Try it.",
        "--name TEXT What to call it. (required)",
        "How far. Above 0. (default: 0.333333)",
        "--mode {a,b} Which way. (default: a)",
        "--inner KEY=VALUE ...",
        "More: steps=10: How many steps. 1 to 200. sizes=3,4: How large.",
    ):
        assert text in shown
    assert "None" not in shown


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--epsilon", "far"], "'epsilon' is not usable, .* number.*got 'far'"),
        (["--epsilon", "1/0"], "'epsilon' is not usable.*got '1/0'"),
        (["--epsilon", "-1"], "'epsilon' is not usable, input should be greater than 0"),
        (["--mode", "c"], "'mode' is not usable, input should be 'a' or 'b', got 'c'"),
        (["--inner", "stepz=3"], r"no setting called 'inner\.stepz'"),
        (["--inner", "steps=0"], r"'inner\.steps' is not usable.*got 0"),
        (["--inner", "steps=3", "steps=4"], "--inner has 'steps' twice; leave one"),
        (["--inner", "steps"], r"--inner takes KEY=VALUE pairs .* got 'steps'"),
        (["--extra", "{alpha: 1}"], r"--extra got '\{alpha: 1\}', which is no JSON"),
    ],
)
def test_a_wrong_value_is_a_sentence(words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        parsed("--name", "x", *words)


def test_pairs_take_json_lists_and_words():
    words = ['{"a": 1, "b": [1, 2]}', "c=200,100", "d-e=8/255", "f=true", "g=None", "h=x=y"]
    assert pairs("extra", words) == {
        "a": 1,
        "b": [1, 2],
        "c": [200, 100],
        "d_e": 8 / 255,
        "f": True,
        "g": None,
        "h": "x=y",
    }


def test_a_fraction_is_a_number():
    assert fraction("8/255") == 8 / 255
    assert fraction("a/b") == "a/b"
    assert fraction("0.1") == "0.1"


def test_positional_and_plain_options(capsys):
    options = [
        Option("file", str, "What.", metavar="FILE", is_positional=True),
        Option("count", int, "How many.", 3, "INT"),
        Option("quiet", bool, "Say less.", False),
    ]
    assert parse("try", ["a.txt"], options, description="") == {
        "file": "a.txt",
        "count": 3,
        "quiet": False,
    }
    values = parse("try", ["a.txt", "--count", "4", "--quiet"], options, description="")
    assert (values["count"], values["quiet"]) == (4, True)
    with pytest.raises(SystemExit, match="2"):
        parse("try", [], options, description="")
    assert "FILE" in capsys.readouterr().err
