"""Open domains in slots: best first, nothing lost but what is said to be."""

import torch

from fkd.bounds._branching import Branching
from fkd.bounds._pool import Pool
from tests.support.tiny_pairs import TinyPair, build_case, certify


def _pool(values, memory=10**6):
    values = torch.tensor(values, dtype=torch.float64)
    rows = {"row": torch.arange(len(values), dtype=torch.int64)[:, None]}
    pool = Pool(rows, memory)
    pool.put(rows, values)
    return pool


def test_the_best_come_first():
    pool = _pool([0.2, 0.9, -1.0, 0.5])
    rows, values = pool.take(2)
    assert values.tolist() == [0.9, 0.5]
    assert rows["row"][:, 0].tolist() == [1, 3]
    assert len(pool) == 2 and pool.best() == 0.2


def test_what_is_given_up_is_the_least_and_is_told():
    pool = _pool([0.2, 0.9, -1.0, 0.5])
    assert pool.drop_lowest(2) == 0.2
    assert sorted(pool.take(9)[1].tolist()) == [0.5, 0.9]
    assert pool.drop_lowest(3) == -torch.inf
    assert pool.drop_lowest(-2) == -torch.inf


def test_it_grows_to_its_memory_and_not_beyond():
    # 8 bytes a row.
    pool = _pool([0.0] * 64, memory=100 * 8)
    assert pool.capacity == 100
    rows = {"row": torch.arange(36, dtype=torch.int64)[:, None]}
    pool.put(rows, torch.ones(36, dtype=torch.float64))
    assert pool.room == 0 and len(pool.values) == 100
    assert pool.take(36)[0]["row"][:, 0].sort().values.tolist() == list(range(36))


def test_a_search_short_of_memory_goes_on_and_stays_sound(monkeypatch):
    pair = TinyPair(3, (6, 6), (6, 6), 3, 2.0, "independent", False, (0.2, 0.3), 0)
    case = build_case(pair)
    arguments = (case.teacher, case.student, case.region, case.labels)
    roomy = certify("exact", *arguments, domains=200)
    # Room for the first slots only.
    monkeypatch.setattr(Branching, "_memory", 1)
    short = certify("exact", *arguments, domains=200)
    tight = certify("tight", *arguments, domains=0)
    assert (short.gap >= roomy.gap - 0.05).all()
    assert (short.gap <= tight.gap + 1e-9).all()
    for row in range(2):
        for result in (short, roomy):
            points = result.points[row].double().flatten(1)
            gap = [
                torch.softmax(net.logits(points), 1)[:, case.labels[row]]
                for net in (case.dense_teacher, case.dense_student)
            ]
            assert ((gap[0] - gap[1]).abs() <= short.gap[row] + 1e-9).all()
    assert (short.gap < tight.gap - 1e-3).any()


def test_a_full_pool_of_infinite_values_still_gives_room():
    rows = {"x": torch.zeros(100, 1000)}
    pool = Pool(rows, 100 * 4000)
    pool.put(rows, torch.full((100,), torch.inf, dtype=torch.float64))
    taken, values = pool.take(10)
    assert (values == torch.inf).all()
    assert pool.drop_lowest(20) == torch.inf
    assert pool.room == 30
    pool.put({"x": taken["x"]}, values)
    assert len(pool) == 80
