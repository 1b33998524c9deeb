"""The foundations: balls, configurations, registries, hashes, noise."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from fkd.core.ball import Ball, check_epsilon
from fkd.core.config import Config
from fkd.core.device import choose_device
from fkd.core.errors import Cancelled, ConfigError
from fkd.core.hashing import hash_arrays, hash_json
from fkd.core.lirpa_compat import lirpa_version, load_auto_lirpa
from fkd.core.memory import keep_freed_memory
from fkd.core.progress import Progress, report
from fkd.core.registry import Registry, unknown_name_sentence
from fkd.core.seeding import check_seed, uniform_noise
from fkd.core.versions import package_versions


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, 1.01, 8, "much", None, [0.1]])
def test_an_epsilon_outside_the_image_range_is_one_sentence(value):
    with pytest.raises(ConfigError, match="epsilon must") as caught:
        check_epsilon(value)
    assert "\n" not in str(caught.value)


def test_an_epsilon_in_levels_of_255_is_recognised():
    with pytest.raises(ConfigError, match="did you mean 8/255"):
        Ball(epsilon=8)


@given(st.floats(0, 1))
def test_the_ball_is_clipped_to_the_image_range(epsilon):
    images = torch.tensor([[[[0.0, 0.3, 1.0]]]])
    lower, upper = Ball(epsilon=epsilon).limits(images)
    assert (lower >= 0).all() and (upper <= 1).all()
    assert (lower <= images).all() and (images <= upper).all()
    assert ((upper - lower) <= 2 * epsilon + 1e-6).all()


@given(
    st.floats(0, 1) | st.floats(0, 1e-6),
    st.floats(0, 1, width=32),
)
def test_regions_lie_inside_the_real_ball_and_bounds_cover_it(epsilon, pixel):
    image = torch.full((1, 1, 1, 1), pixel)
    region = Ball(epsilon=epsilon).region(image, torch.arange(1))
    exact_lower = max(Fraction(0), Fraction(pixel) - Fraction(epsilon))
    exact_upper = min(Fraction(1), Fraction(pixel) + Fraction(epsilon))
    lower, upper = Fraction(region.lower.item()), Fraction(region.upper.item())
    assert region.lower.dtype == torch.float32
    assert exact_lower <= lower <= Fraction(pixel) <= upper <= exact_upper
    # Not smaller than float32 makes necessary.
    assert max(lower - exact_lower, exact_upper - upper) <= Fraction(2) ** -23
    low, high = (Fraction(limit.item()) for limit in region.double_limits())
    rounding = Fraction(2) ** -53
    assert exact_lower - rounding <= low <= exact_lower + rounding
    assert exact_upper - rounding <= high <= exact_upper + rounding


def test_regions_are_cut_and_repeated_row_by_row():
    images = torch.rand(5, 1, 2, 2)
    region = Ball(epsilon=0.1).region(images, torch.arange(5))
    assert [len(part) for _, part in region.chunks(2)] == [2, 2, 1]
    twice = region.repeat(2)
    assert twice.example_ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    torch.testing.assert_close(twice.images[::2], images)
    far = region.clamp(images + 5)
    torch.testing.assert_close(far, region.upper)


class _Settings(Config):
    steps: int = Field(default=3, ge=1, description="Steps.")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"steps": 0}, "'steps' is not usable, input should be greater than or equal to 1, got 0"),
        ({"stps": 2}, "has no setting called 'stps'"),
        ({"steps": "many"}, "'steps' is not usable, input should be a valid integer"),
    ],
)
def test_bad_configurations_are_one_sentence(values, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        _Settings.parse(values)
    assert "\n" not in str(caught.value)


def test_settings_are_called_what_people_call_them():
    class TrialRunConfig(_Settings):
        """Settings of nothing in particular."""

    with pytest.raises(ConfigError, match=r"^trial run: 'steps' is not usable"):
        TrialRunConfig.parse(steps=0)
    registry = Registry("shape", None)

    class CircleConfig(_Settings):
        """A circle's."""

        name: str = "circle"

    class SquareConfig(CircleConfig):
        """A square's."""

        name: str = "square"
        side: int = 1

    for name, settings in (
        ("circle", CircleConfig),
        ("disc", CircleConfig),
        ("square", SquareConfig),
    ):
        registry.register(name)(type(name, (), {"Config": settings}))
    for settings, values, sentence in (
        (CircleConfig, {"side": 2}, "shape circle has no setting called 'side'; square has."),
        (CircleConfig, {"name": "disc", "steps": 0}, "shape disc: 'steps' is not usable"),
        (SquareConfig, {"size": 2}, "shape square has no setting called 'size'; remove it"),
    ):
        with pytest.raises(ConfigError) as caught:
            settings.parse(values)
        assert str(caught.value).startswith(sentence)


def test_a_file_that_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    package = tmp_path / "shapes_of_mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "round.py").write_text("import no_such_module_of_mine")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("shape", "shapes_of_mine")
    sentence = (
        r"^The file round\.py in shapes_of_mine cannot be loaded \(ModuleNotFoundError: No module "
        r"named 'no_such_module_of_mine'\); mend it or take it away\.$"
    )
    for _ in range(2):
        with pytest.raises(ConfigError, match=sentence):
            registry.available()
    (package / "round.py").write_text("")
    assert registry.available() == {}


def test_a_name_can_be_taken_only_once():
    registry = Registry("shape", None)

    @registry.register("circle")
    class Circle:
        """A round thing."""

    with pytest.raises(ConfigError, match="'circle' is taken"):

        @registry.register("circle")
        class Other:
            """Another."""

    assert registry.available() == {"circle": "A round thing."}
    assert registry.get("circle") is Circle
    with pytest.raises(ConfigError, match="no shape called 'circel'; did you mean 'circle'"):
        registry.get("circel")


def test_of_many_names_the_nearest_are_told():
    names = [f"model-{i:03d}" for i in range(100)]
    sentence = unknown_name_sentence("model", "model-42", names)
    assert "did you mean 'model-042'?" in sentence and "and 90 more" in sentence
    assert len(sentence) < 200


def test_hashes_see_content_shape_and_type_but_not_key_order():
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1}) != hash_json({"a": 1})
    array = np.arange(6, dtype=np.int64)
    hashes = {hash_arrays([a]) for a in (array, array.reshape(2, 3), array.astype(np.int32))}
    assert len(hashes) == 3
    assert hash_arrays([np.asfortranarray(array.reshape(2, 3))]) == hash_arrays(
        [array.reshape(2, 3)]
    )


def test_noise_depends_on_seed_stream_and_example_only():
    ids = torch.tensor([4, 9, 100])
    whole = uniform_noise(ids, (2, 3), seed=1, stream=0)
    torch.testing.assert_close(whole[1:2], uniform_noise(ids[1:2], (2, 3), seed=1, stream=0))
    assert not torch.equal(whole, uniform_noise(ids, (2, 3), seed=2, stream=0))
    assert not torch.equal(whole, uniform_noise(ids, (2, 3), seed=1, stream=1))


def test_noise_is_uniform_and_uncorrelated():
    noise = uniform_noise(torch.arange(4000), (50,), seed=7, stream=2).double()
    assert noise.min() >= 0 and noise.max() < 1
    counts = torch.histc(noise, 20, 0, 1) / noise.numel()
    assert (counts - 0.05).abs().max() < 0.002
    neighbours = torch.corrcoef(torch.stack([noise[:-1].flatten(), noise[1:].flatten()]))[0, 1]
    pixels = torch.corrcoef(noise.T).fill_diagonal_(0).abs().max()
    assert abs(neighbours) < 0.01 and pixels < 0.08


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "0", True])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ConfigError, match="whole number from 0"):
        check_seed(seed)


def test_devices_are_checked():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="no device called"):
        choose_device("quantum")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="No CUDA device"):
            choose_device("cuda")


def test_a_callback_that_answers_true_cancels():
    seen = []
    report(seen.append, "attack", 1, 4, loss=0.5)
    assert seen == [Progress("attack", 1, 4, {"loss": 0.5})] and seen[0].fraction == 0.25
    with pytest.raises(Cancelled, match="after 1 of 4"):
        report(lambda _: True, "attack", 1, 4)


def test_auto_lirpa_imports_without_touching_the_process():
    import logging
    import warnings

    filters, handlers = warnings.filters[:], logging.getLogger().handlers[:]
    lirpa = load_auto_lirpa()
    assert warnings.filters == filters and logging.getLogger().handlers == handlers
    assert hasattr(lirpa, "BoundedModule")
    assert package_versions()["auto_LiRPA"].startswith(".".join(map(str, lirpa_version())))


def test_auto_lirpa_leaves_the_recursion_limit_so_that_deep_json_is_an_error_and_no_crash():
    code = """
import json, sys
from fkd.core.lirpa_compat import load_auto_lirpa
before = sys.getrecursionlimit()
load_auto_lirpa()
assert sys.getrecursionlimit() == before
try:
    json.loads("[" * 300_000)
except RecursionError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "refused", done.stderr


def test_freed_memory_is_kept_where_glibc_allows_and_refused_quietly_elsewhere(monkeypatch):
    code = """
import resource, torch
from fkd.core.memory import keep_freed_memory
took = keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros(8_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(took, faults())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    took, faults = done.stdout.split()
    if took == "True":
        # 20 blocks of 32 MB are 156,000 pages when each is mapped afresh.
        assert int(faults) < 20_000
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
