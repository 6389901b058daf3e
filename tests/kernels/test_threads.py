"""The pool: every chunk once, errors and interrupts after joining, nesting, threads and forks."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from nbad.kernels import threads


@pytest.fixture(autouse=True)
def two_threads():
    before = threads.get_threads()
    threads.set_threads(2)
    yield
    threads.set_threads(before)


def run_counted(n_chunks, count):
    threads.set_threads(count)
    runs = [0] * n_chunks

    def task(lo, hi):
        for i in range(lo, hi):
            runs[i] += 1

    assert threads.fan_out(task, n_chunks) is True
    return runs


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("n_chunks", [1, 2, 3, 64, 1001])
def test_every_chunk_runs_once(n_chunks, count):
    assert run_counted(n_chunks, count) == [1] * n_chunks


def test_no_chunks_is_a_success_without_a_call():
    assert threads.fan_out(pytest.fail, 0) is True


@pytest.mark.parametrize("count", [1, 2])
def test_status_zero_is_reported_and_the_other_chunks_run(count):
    threads.set_threads(count)
    seen = []

    def task(lo, hi):
        seen.extend(range(lo, hi))
        return 0 if lo <= 3 < hi else 1

    assert threads.fan_out(task, 40) is False
    assert sorted(seen) == list(range(40))
    assert threads.fan_out(lambda lo, hi: 0, 1) is False


def test_work_is_shared():
    names = set()

    def task(lo, hi):
        names.add(threading.get_ident())
        time.sleep(0.01)

    threads.fan_out(task, 20)
    assert len(names) == 2


@pytest.mark.parametrize("culprit", ["caller", "worker"])
def test_an_exception_is_raised_after_joining(culprit):
    caller = threading.get_ident()
    running = []
    raised = threading.Event()

    def task(lo, hi):
        running.append(lo)
        try:
            mine = threading.get_ident() == caller
            if mine == (culprit == "caller"):
                raised.set()
                raise ZeroDivisionError(culprit)
            raised.wait(5)
            time.sleep(0.05)
        finally:
            running.remove(lo)

    with pytest.raises(ZeroDivisionError, match=culprit):
        threads.fan_out(task, 100)
    assert running == []
    assert run_counted(10, 2) == [1] * 10


def test_an_interrupt_joins_all_pieces_first():
    running = []
    done = []

    def task(lo, hi):
        running.append(lo)
        time.sleep(0.05)
        running.remove(lo)
        done.append(lo)

    # A shell lets what it starts in the background ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.12, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            threads.fan_out(task, 2000)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    # The piece that the caller itself was in was cut short by the signal, none of the pool's was.
    assert len(running) <= 1
    assert len(done) < 100
    running.clear()
    assert run_counted(10, 2) == [1] * 10


def test_a_nested_fan_out_runs_all_chunks():
    runs = [0] * 60

    def inner_task(outer):
        def task(lo, hi):
            for i in range(lo, hi):
                runs[10 * outer + i] += 1

        return task

    def task(lo, hi):
        time.sleep(0.005)
        for i in range(lo, hi):
            threads.fan_out(inner_task(i), 10)

    threads.fan_out(task, 6)
    assert runs == [1] * 60


def test_several_callers_at_once():
    results = {}

    def call(k):
        runs = [0] * 50

        def task(lo, hi):
            for i in range(lo, hi):
                runs[i] += 1
            time.sleep(0.0005)

        for _ in range(5):
            threads.fan_out(task, 50)
        results[k] = runs

    callers = [threading.Thread(target=call, args=(k,)) for k in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(results[k] == [5] * 50 for k in range(6))


def test_arrays_of_a_finished_task_are_released():
    import weakref

    class Buffer:
        pass

    buffer = Buffer()
    alive = weakref.ref(buffer)

    def task(lo, hi, buffer=buffer):
        time.sleep(0.002)

    threads.fan_out(task, 8)
    del buffer, task
    for _ in range(100):
        if alive() is None:
            break
        time.sleep(0.01)
    assert alive() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_the_pool_works_in_a_forked_child():
    code = """
        import os, time
        from nbad.kernels import threads
        threads.set_threads(2)
        def task(lo, hi):
            time.sleep(0.001)
            for i in range(lo, hi): runs[i] += 1
        runs = [0] * 20
        threads.fan_out(task, 20)
        child = os.fork()
        runs = [0] * 20
        threads.fan_out(task, 20)
        if child == 0:
            os._exit(7 if runs == [1] * 20 else 8)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], timeout=60, check=True)


def test_interpreter_exit_is_silent():
    code = """
        import time
        from nbad.kernels import threads
        threads.set_threads(3)
        threads.fan_out(lambda lo, hi: time.sleep(0.001), 20)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], timeout=60, check=True, capture_output=True, text=True
    )
    assert done.stdout + done.stderr == ""


def test_the_number_of_threads_is_checked():
    threads.set_threads(None)
    assert threads.get_threads() >= 1
    with pytest.raises(ValueError, match="at least 1"):
        threads.set_threads(0)
    with pytest.raises(TypeError, match="integer"):
        threads.set_threads(1.5)
