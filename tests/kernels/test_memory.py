"""The pool of blocks: alignment, reuse, lifetime of views, bounds, threads and forks."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from nbad.kernels import memory

MIB = 1 << 20


@pytest.fixture(autouse=True)
def empty_pool():
    limit = memory._POOL.limit
    gc.collect()
    memory.clear()
    yield
    memory.set_limit(limit)
    memory.clear()


@pytest.mark.parametrize("shape", [(), 0, 7, (0, 3), (3, 5), (1000, 1000), (3, 0, 200), [2, 3]])
@pytest.mark.parametrize("dtype", [np.float32, "complex128", "bool", ">f8", "int16"])
def test_it_is_an_ordinary_array(shape, dtype):
    array = memory.empty(shape, dtype)
    assert type(array) is np.ndarray
    assert array.shape == np.empty(shape).shape
    assert array.dtype == np.dtype(dtype)
    assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
    assert array.nbytes < memory.SMALLEST_BLOCK or array.ctypes.data % 64 == 0
    array[...] = 1
    assert (array == 1).all()


def test_a_dead_block_is_reused():
    first = memory.empty(MIB // 8 * 6, np.float64)
    address = first.ctypes.data
    before = memory.allocated()
    del first
    second = memory.empty((6, MIB // 4), np.int32)
    after = memory.allocated()
    assert second.ctypes.data == address
    assert (after.fresh, after.reused) == (before.fresh, before.reused + 1)
    assert after.live == before.live


def test_views_keep_the_block():
    array = memory.empty((1024, 1024), np.float64)
    array[...] = 3.0
    views = [array[5:, ::2], array.T, array.reshape(-1)[10:20], array.view(np.int64), memoryview(array)]
    live = memory.allocated().live
    del array
    while views:
        assert memory.allocated().live == live
        other = memory.empty((1024, 1024), np.float64)
        other[...] = 4.0
        assert (np.asarray(views[-1]).view(np.float64) == 3.0).all()
        del other
        views.pop()
    assert memory.allocated().live < live


def test_copies_are_independent():
    array = memory.empty(MIB, np.float64)
    array[...] = np.arange(MIB)
    others = [copy.copy(array), copy.deepcopy(array), pickle.loads(pickle.dumps(array)), array.copy()]
    array[...] = 0.0
    for other in others:
        assert type(other) is np.ndarray
        assert (other == np.arange(MIB)).all()


def test_small_arrays_do_not_touch_the_pool():
    before = memory.allocated()
    array = memory.empty(1000, np.float64)
    assert memory.allocated() == before
    assert array.flags.owndata and not memory.is_recycled(array)


def test_memory_that_others_see_is_told():
    array = memory.empty(4 * MIB, np.uint8)
    assert memory.is_recycled(array) and memory.is_alone(array)
    view = array[1:]
    assert memory.is_recycled(view) and not memory.is_alone(view)
    assert not memory.is_recycled(np.empty(4 * MIB, np.uint8)[1:])


@pytest.mark.parametrize("make", [np.empty, memory.empty])
def test_a_view_of_an_array_that_nobody_holds_is_alone(make):
    view = make((2, 3 * MIB), np.uint8).reshape(3, -1).T
    assert memory.is_alone(view)
    other = view[:1]
    assert not memory.is_alone(view) and not memory.is_alone(other)


def test_memory_of_others_is_not_alone():
    raw = bytearray(100)
    assert not memory.is_alone(np.frombuffer(raw, np.uint8))
    held = np.empty(100)
    assert not memory.is_alone(held[:50])


def test_a_large_block_is_not_spent_on_a_small_array():
    large = memory.empty(64 * MIB, np.uint8)
    address = large.ctypes.data
    del large
    small = memory.empty(6 * MIB, np.uint8)
    assert small.ctypes.data != address
    assert memory.allocated().idle >= 64 * MIB


def test_a_slightly_larger_block_is_reused():
    larger = memory.empty(26 * MIB, np.uint8)
    address = larger.ctypes.data
    del larger
    before = memory.allocated().reused
    assert memory.empty(25 * MIB, np.uint8).ctypes.data == address
    assert memory.allocated().reused == before + 1


@pytest.mark.parametrize("nbytes", [MIB, MIB + 1, 3 * MIB - 1, 48 * MIB, 600 * MIB + 12345])
def test_a_block_is_at_most_an_eighth_too_large(nbytes):
    size = memory._size_class(nbytes)
    assert nbytes <= size <= nbytes * 9 // 8 + 4096


def test_idle_memory_is_bounded_and_the_oldest_goes_first():
    memory.set_limit(10 * MIB)
    arrays = [memory.empty(k * MIB, np.uint8) for k in (2, 3, 4, 5)]
    addresses = [array.ctypes.data for array in arrays]
    while arrays:
        arrays.pop(0)
    assert 0 < memory.allocated().idle <= 10 * MIB
    newest = memory.empty(5 * MIB, np.uint8)
    assert newest.ctypes.data == addresses[-1]
    memory.clear()
    assert memory.allocated().idle == 0
    memory.set_limit(0)
    del newest
    assert memory.allocated().idle == 0


def test_refusals():
    with pytest.raises(TypeError, match="Python objects"):
        memory.empty(3, object)
    with pytest.raises(ValueError, match="negative"):
        memory.set_limit(-1)
    with pytest.raises(ValueError, match="negative"):
        memory.empty(-1, float)


def test_cycles_and_finalizers_may_ask_for_memory():
    class Node:
        def __init__(self):
            self.loop = self
            self.data = memory.empty(2 * MIB, np.uint8)

        def __del__(self):
            memory.empty(2 * MIB, np.uint8)

    live = memory.allocated().live
    for _ in range(20):
        Node()
    gc.collect()
    assert memory.allocated().live == live


def test_threads_share_the_pool():
    live = memory.allocated().live
    wrong = []

    def work(k):
        for i in range(60):
            array = memory.empty((1 + i % 3) * MIB, np.uint8)
            array[:: MIB // 4] = k
            other = memory.empty(MIB, np.uint8)
            other[:: MIB // 4] = 255
            if (array[:: MIB // 4] != k).any():
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert memory.allocated().live == live


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_can_allocate_while_the_lock_was_held():
    code = """
        import os
        import numpy as np
        from nbad.kernels import memory
        kept = memory.empty(1 << 21, np.uint8)
        kept[:] = 5
        memory._POOL.lock.acquire()
        child = os.fork()
        if child == 0:
            other = memory.empty(1 << 21, np.uint8)
            other[:] = 6
            os._exit(7 if (kept == 5).all() and memory.allocated().fresh == 2 else 8)
        memory._POOL.lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], timeout=60, check=True)


def test_interpreter_exit_is_silent():
    code = """
        import numpy as np
        from nbad.kernels import memory
        class Keeper: pass
        keeper = Keeper(); keeper.self = keeper; keeper.data = memory.empty(1 << 22, np.uint8)
        kept = memory.empty(1 << 22, np.uint8)
        np.kept = memory.empty(1 << 22, np.uint8)[3:]
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], timeout=60, check=True, capture_output=True, text=True
    )
    assert done.stdout + done.stderr == ""


class Interrupted:
    """A lock at which Ctrl-C falls right after it was taken."""

    def __init__(self, lock):
        self.lock = lock
        self.release = lock.release
        self._is_owned = lock._is_owned

    def acquire(self, **options):
        self.lock.acquire(**options)
        raise KeyboardInterrupt


@pytest.mark.parametrize("use", [lambda: memory.empty(1 << 21, np.uint8), memory._POOL.settle])
def test_an_interrupt_right_after_the_lock_was_taken_does_not_lock_the_pool_for_ever(use, monkeypatch):
    pool, lock = memory._POOL, memory._POOL.lock
    with monkeypatch.context() as patch:
        patch.setattr(pool, "lock", Interrupted(lock))
        pool.returned.append(np.empty(1 << 20, np.uint8))
        pool.live_bytes += 1 << 20
        with pytest.raises(KeyboardInterrupt):
            use()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(lock.acquire(timeout=5)))
    thread.start()
    thread.join()
    assert taken == [True]
    pool.renew_lock()


def test_a_lock_that_did_not_come_free_is_not_given_back(monkeypatch):
    monkeypatch.setattr(memory, "PATIENCE", 0.01)
    held, done = threading.Event(), threading.Event()

    def hold():
        with memory._POOL.lock:
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    try:
        assert memory.empty(1 << 21, np.uint8).size == 1 << 21
    finally:
        done.set()
        thread.join()


def test_a_limit_of_another_thread_was_lost_while_idle_memory_was_dropped():
    limit = memory._POOL.limit
    threads = [threading.Thread(target=lambda: [memory.clear() for _ in range(300)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory._POOL.limit == limit
