"""A dear certificate that is stopped keeps what it finished, and goes on from there."""

import pandas as pd
import pytest

from fkd.bounds.tight import Tight
from fkd.core.errors import Cancelled
from fkd.core.paths import results_dir
from fkd.evaluation import (
    ResolvedPair,
    analyse,
    find_analysis,
    finished_examples,
    parse_analysis,
)
from tests.support.pairs import save_digits_model

COUNT = 7
#: Chunks of two examples.
CHUNKS = 4


@pytest.fixture
def config(own_folders):
    save_digits_model("big", "teacher", hidden=(24, 16), seed=0)
    save_digits_model("small", "student", hidden=(10,), seed=1)
    return parse_analysis(
        {
            "dataset": "digits",
            "teacher": "big",
            "student": "small",
            "epsilon": 0.08,
            "count": COUNT,
            "attack": {"steps": 1, "restarts": 1},
            "certificate": {
                "name": "exact",
                "seconds": 0.0,
                "domains": 6,
                "steps": 4,
                "hidden_steps": 0,
            },
        }
    )


@pytest.fixture
def bounded(monkeypatch):
    """First rows of the chunks that were bounded."""
    first, whole = [], Tight.bound_chunk

    def noted(self, task):
        first.append(task.start)
        return whole(self, task)

    monkeypatch.setattr(Tight, "bound_chunk", noted)
    return first


def _folder(config):
    return results_dir() / f"{ResolvedPair(config).key()}.partial"


def _stop_after(examples):
    def progress(step):
        return step.stage == "certificate" and step.done >= examples

    return progress


def _figures(analysis):
    return analysis.table.select_dtypes("number")


def test_what_was_finished_is_not_bounded_again(config, bounded):
    with pytest.raises(Cancelled, match="finished are kept") as stop:
        analyse(config, progress=_stop_after(4))
    assert len(stop.value.partial.gap_upper) == COUNT
    assert find_analysis(config) is None
    kept = {int(path.name.split("-")[0]) for path in _folder(config).glob("*.safetensors")}
    assert kept and kept <= set(bounded)
    finished = sum(min(2, COUNT - start) for start in kept)
    assert finished_examples(config) == finished
    bounded.clear()
    resumed = analyse(config)
    assert set(bounded) == set(range(0, COUNT, 2)) - kept
    assert resumed.metadata["examples_of_earlier_runs"] == finished
    assert not _folder(config).exists()
    assert finished_examples(config) == 0
    bounded.clear()
    anew = analyse(config, fresh=True)
    assert len(bounded) == CHUNKS
    assert anew.metadata["examples_of_earlier_runs"] == 0
    pd.testing.assert_frame_equal(_figures(resumed), _figures(anew))


def test_a_damaged_chunk_is_bounded_again(config, bounded):
    with pytest.raises(Cancelled):
        analyse(config, progress=_stop_after(4))
    kept = sorted(_folder(config).glob("*.safetensors"))
    kept[0].write_bytes(b"not a tensor")
    bounded.clear()
    analyse(config)
    assert int(kept[0].name.split("-")[0]) in bounded


def test_fresh_forgets_what_was_kept(config, bounded):
    with pytest.raises(Cancelled):
        analyse(config, progress=_stop_after(4))
    bounded.clear()
    analyse(config, fresh=True)
    assert len(bounded) == CHUNKS


def test_seconds_of_earlier_runs_count(config):
    with pytest.raises(Cancelled):
        analyse(config, progress=_stop_after(COUNT))
    assert len(list(_folder(config).glob("*.safetensors"))) == CHUNKS
    resumed = analyse(config)
    # Nothing was left to bound: what it cost is what the first run took.
    assert resumed.metadata["examples_of_earlier_runs"] == COUNT
    assert resumed.metadata["certificate_seconds"] > 0.01


def test_a_cheap_level_keeps_nothing(config):
    fast = config.model_copy(update={"certificate": parse_fast(config)})
    with pytest.raises(Cancelled):
        analyse(fast, progress=_stop_after(0))
    assert not _folder(fast).exists()


def parse_fast(config):
    changed = {**config.model_dump(mode="json"), "certificate": {"name": "fast"}}
    return parse_analysis(changed).certificate
