"""Many requests, few batches: nothing is lost, mixed up or begun too late."""

import threading
import time
from concurrent.futures import CancelledError

import pytest

from atelier.service.batcher import Batcher, Closed, Full
from tests.service.conftest import wait_until


@pytest.fixture
def batches():
    return []


@pytest.fixture
def make(batches):
    """Makes a batcher whose work doubles numbers (and cannot double 13); all end with the test."""
    made = []

    def double(items):
        batches.append(list(items))
        make.open.wait(10)
        if 13 in items:
            raise ArithmeticError("thirteen")
        return enumerate([2 * item for item in items])

    def build(**options):
        batcher = Batcher({"double": double, "negate": lambda items: enumerate(-item for item in items)}, **options)
        made.append(batcher)
        return batcher

    make = build
    make.open = threading.Event()
    make.open.set()
    yield make
    make.open.set()
    for batcher in made:
        batcher.close(10)


def blocked(make, **options):
    """A batcher whose thread is held up by a first job."""
    make.open.clear()
    batcher = make(**options)
    first = batcher.submit("double", [0])
    wait_until(lambda: first.running())
    return batcher, first


def test_what_waits_together_is_computed_together_and_comes_back_to_its_own(make, batches):
    batcher, _ = blocked(make, window=0)
    jobs = [batcher.submit("double", [number, number + 100]) for number in range(5)]
    make.open.set()
    assert [job.result(5) for job in jobs] == [[2 * n, 2 * n + 200] for n in range(5)]
    assert len(batches) == 2 and sorted(batches[1]) == sorted([*range(5), *range(100, 105)])


def test_a_batch_has_a_largest_size_unless_one_job_is_larger(make, batches):
    batcher, _ = blocked(make, window=0, max_batch=4)
    jobs = [batcher.submit("double", list(range(count))) for count in (3, 2, 1, 9)]
    make.open.set()
    assert [len(job.result(5)) for job in jobs] == [3, 2, 1, 9]
    assert [len(batch) for batch in batches] == [1, 4, 2, 9]  # 3 and 1 go together, the 2 does not fit


def test_kinds_are_computed_apart_the_oldest_first(make, batches):
    batcher, _ = blocked(make, window=0)
    jobs = [batcher.submit(kind, [5]) for kind in ("negate", "double", "negate")]
    make.open.set()
    assert [job.result(5) for job in jobs] == [[-5], [10], [-5]]


def test_a_patient_job_is_overtaken_but_not_for_ever(make, batches):
    batcher, _ = blocked(make, window=0, max_batch=1)
    patient = batcher.submit("double", [1], patience=0.2)
    soon = batcher.submit("double", [2])
    time.sleep(0.25)
    late = batcher.submit("double", [3])
    make.open.set()
    assert [job.result(5) for job in (patient, soon, late)] == [[2], [4], [6]]
    assert batches == [[0], [2], [1], [3]]


def test_the_window_lets_others_in(make, batches):
    batcher = make(window=60, max_batch=2)
    one = batcher.submit("double", [1])
    time.sleep(0.05)
    other = batcher.submit("double", [2])
    assert (one.result(5), other.result(5)) == ([2], [4])  # a full batch waits no longer
    assert batches == [[1, 2]]


def test_a_full_queue_says_so_and_takes_more_later(make):
    batcher, _ = blocked(make, max_waiting=3)
    jobs = [batcher.submit("double", [1, 2]), batcher.submit("double", [3])]
    with pytest.raises(Full):
        batcher.submit("double", [4])
    make.open.set()
    assert [job.result(5) for job in jobs] == [[2, 4], [6]]
    assert batcher.submit("double", [4]).result(5) == [8]


def test_a_cancelled_job_is_never_begun_and_makes_room(make, batches):
    batcher, _ = blocked(make, max_waiting=1)
    gone = batcher.submit("double", [1])
    assert gone.cancel()
    kept = batcher.submit("double", [2])  # there would be no room for both
    make.open.set()
    assert kept.result(5) == [4] and [1] not in batches and not any(1 in batch for batch in batches)
    with pytest.raises(CancelledError):
        gone.result(5)


def test_a_job_that_fails_spoils_no_other(make):
    batcher, _ = blocked(make)
    jobs = [batcher.submit("double", [number]) for number in (12, 13, 14)]
    make.open.set()
    assert (jobs[0].result(5), jobs[2].result(5)) == ([24], [28])
    with pytest.raises(ArithmeticError):
        jobs[1].result(5)
    assert batcher.submit("double", [1]).result(5) == [2]  # and the thread lives on


def test_a_job_has_its_results_before_the_rest_of_its_batch():
    rest = threading.Event()

    def last_first(items):
        yield len(items) - 1, items[-1]
        rest.wait(10)
        yield from enumerate(items[:-1])

    seen = []
    batcher = Batcher({"work": last_first}, window=5, max_batch=3, watch=lambda *told: seen.append(told[:2]))
    one, other = batcher.submit("work", [1, 2]), batcher.submit("work", [3])
    assert other.result(5) == [3] and not one.done() and not seen
    rest.set()
    assert one.result(5) == [1, 2] and seen == [("work", [1, 2, 3])]
    batcher.close(10)


def test_work_that_leaves_a_result_out_fails_the_job_that_misses_it():
    batcher = Batcher({"work": lambda items: ((place, item) for place, item in enumerate(items) if item)}, window=0)
    with pytest.raises(RuntimeError, match="1 of 3 results are missing"):
        batcher.submit("work", [1, 0, 2]).result(5)
    assert batcher.submit("work", [1, 2]).result(5) == [1, 2]
    batcher.close(10)


def test_a_job_of_nothing_is_done_at_once(make):
    batcher, _ = blocked(make)
    assert batcher.submit("double", []).result(0) == []


def test_closing_finishes_what_was_accepted_and_takes_nothing_more(make):
    batcher, first = blocked(make)
    jobs = [batcher.submit("double", [number]) for number in range(20, 40)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    wait_until(lambda: not batcher.ready)
    with pytest.raises(Closed):
        batcher.submit("double", [1])
    make.open.set()
    closing.join(5)
    assert not closing.is_alive()
    assert [job.result(0) for job in jobs] == [[2 * number] for number in range(20, 40)] and first.result(0) == [0]


def test_jobs_wait_until_it_is_prepared(make):
    prepared = threading.Event()
    batcher = make(prepare=lambda: prepared.wait(10))
    job = batcher.submit("double", [1])
    time.sleep(0.05)
    assert not batcher.ready and not job.done()
    prepared.set()
    assert job.result(5) == [2] and batcher.ready


def test_what_cannot_be_prepared_refuses_everything_and_says_why(make):
    begun = threading.Event()

    def fail():
        begun.wait(10)
        raise OSError("no weights")

    batcher = make(prepare=fail)
    job = batcher.submit("double", [1])
    begun.set()
    with pytest.raises(Closed):
        job.result(5)
    assert batcher.failure == "OSError: no weights" and not batcher.ready
    with pytest.raises(Closed):
        batcher.submit("double", [1])


def test_many_threads_all_get_their_own(make):
    batcher = make(window=0.001, max_waiting=10_000)
    wrong = []

    def ask(start):
        for number in range(start, start + 50):
            if batcher.submit("double", [number]).result(10) != [2 * number] and number != 13:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(1000 * index,)) for index in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not wrong


def test_two_threads_compute_two_batches_at_once_and_both_end():
    meeting, before = threading.Barrier(2), set(threading.enumerate())

    def meet(items):
        meeting.wait(10)  # breaks if the other batch has to wait for this one
        return enumerate(items)

    prepared = []
    batcher = Batcher({"meet": meet}, prepare=lambda: prepared.append(1), threads=2, max_batch=1, window=0.001)
    futures = [batcher.submit("meet", [number]) for number in range(6)]
    assert [future.result(10) for future in futures] == [[number] for number in range(6)]
    assert prepared == [1]
    batcher.close(10)
    assert not set(threading.enumerate()) - before
