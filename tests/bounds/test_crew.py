"""Chunks side by side: in order, reported from the caller's thread, stopped as one."""

import threading

import pytest
import torch

from fkd.bounds._crew import Crew
from fkd.core.errors import Cancelled


def _crew(work, tell=lambda done, **values: None, threads=3):
    return Crew(work, tell, threads=threads, is_cpu=True)


def test_results_come_in_order_of_rows():
    chunks, stopped = _crew(lambda rows, tell: list(range(rows.start, rows.stop))).run(10, 3)
    assert stopped is None
    assert [chunk.rows.start for chunk in chunks] == [0, 3, 6, 9]
    assert [row for chunk in chunks for part in chunk.parts for row in part] == list(range(10))


def test_reports_come_from_the_caller_and_add_up():
    seen = []

    def work(rows, tell):
        tell(1, example=rows.start)
        return rows

    def tell(done, **values):
        seen.append((done, values, threading.current_thread()))

    _crew(work, tell).run(6, 2)
    assert {thread for _, _, thread in seen} == {threading.current_thread()}
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1][0] == 6
    assert {values["example"] for _, values, _ in seen if values} == {0, 2, 4}


def test_asked_to_stop_it_keeps_what_is_finished():
    def tell(done, **values):
        if done >= 2:
            raise Cancelled("enough")

    chunks, stopped = _crew(lambda rows, tell: rows.start, tell, threads=1).run(40, 2)
    assert str(stopped) == "enough"
    finished = [chunk for chunk in chunks if chunk.parts]
    assert 1 <= len(finished) < 20
    assert all(chunk.parts == [chunk.rows.start] for chunk in finished)


def test_an_error_in_a_chunk_is_the_callers():
    def work(rows, tell):
        if rows.start == 2:
            raise ZeroDivisionError("bad chunk")
        return rows

    with pytest.raises(ZeroDivisionError, match="bad chunk"):
        _crew(work).run(8, 2)


def test_an_error_of_the_callback_ends_the_work():
    started = []

    def work(rows, tell):
        started.append(rows.start)
        return rows

    def tell(done, **values):
        raise ZeroDivisionError("bad callback")

    with pytest.raises(ZeroDivisionError, match="bad callback"):
        _crew(work, tell, threads=1).run(400, 2)
    assert len(started) < 200


def test_short_of_memory_a_chunk_is_cut():
    def work(rows, tell):
        if rows.stop - rows.start > 1:
            raise MemoryError
        return rows.start

    chunks, _ = _crew(work).run(4, 4)
    assert chunks[0].parts == [0, 1, 2, 3]


def test_threads_of_torch_are_one_inside_and_as_before_outside():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        chunks, _ = _crew(lambda rows, tell: torch.get_num_threads()).run(3, 1)
        assert [part for chunk in chunks for part in chunk.parts] == [1, 1, 1]
        assert torch.get_num_threads() == 2
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [2]
    finally:
        torch.set_num_threads(before)
