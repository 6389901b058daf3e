"""Own the pool of Python threads on which large kernel steps are split.

No numba threading layer is used: a task is a Python callable that runs ``nogil`` code on a range of chunks,
and the calling thread always takes part. Nothing here knows what a chunk means; a task writes only to places
that its chunk numbers name, so a result does not depend on the number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter

__all__ = ["fan_out", "get_threads", "set_threads"]

Task = Callable[[int, int], "int | None"]

LONGEST_PIECE = 0.02
"""Seconds that one handed-out piece should take at most, so that an interrupt is seen soon."""

SHORTEST_PIECE = 50e-6
"""Seconds below which a piece is not split further: handing it out would cost more than it saves."""


class _Job:
    """One fan-out: hands out pieces of ``range(n_chunks)`` and knows who is still running one.

    ``lock`` guards every member. A worker enters before its first piece and leaves after its last; the caller
    closes the job and waits for the workers that had entered. A worker that comes later finds it closed.
    """

    def __init__(self, task: Task, n_chunks: int, threads: int) -> None:
        self.task: Task | None = task
        self.n_chunks = n_chunks
        self.next = 0
        self.share = 1 if threads == 1 else 2 * threads
        self.slice = max(1, n_chunks // 64)
        self.tail = 1
        self.closed = False
        self.failed = False
        self.error: BaseException | None = None
        self.running = 0
        self.lock = threading.Lock()
        self.idle = threading.Lock()

    def take(self) -> tuple[int, int]:
        """Return the next range of chunks; it is empty when there are none left."""
        with self.lock:
            lo = self.next
            if self.closed or lo >= self.n_chunks:
                return lo, lo
            left = self.n_chunks - lo
            hi = lo + min(left, self.slice, max(left // self.share, self.tail))
            self.next = hi
            return lo, hi

    def work(self) -> None:
        """Run pieces until none is left, and adapt their length to the time they take."""
        task = self.task
        if task is None:
            return
        while True:
            lo, hi = self.take()
            if lo == hi:
                return
            started = perf_counter()
            status = task(lo, hi)
            each = (perf_counter() - started) / (hi - lo) + 1e-9
            self.slice = max(1, int(LONGEST_PIECE / each))
            self.tail = max(1, int(SHORTEST_PIECE / each))
            if status is not None and status == 0:
                self.failed = True

    def help(self) -> None:
        """Take part as a pool thread."""
        with self.lock:
            if self.closed:
                return
            if self.running == 0:
                self.idle.acquire()
            self.running += 1
        try:
            self.work()
        except BaseException as error:
            with self.lock:
                self.closed = True
                if self.error is None:
                    self.error = error
        finally:
            with self.lock:
                self.running -= 1
                if self.running == 0:
                    self.idle.release()

    def join(self) -> None:
        """Hand out nothing more and wait for the workers that run a piece, also through interrupts."""
        interrupt: BaseException | None = None
        while True:
            try:
                with self.lock:
                    self.closed = True
                    if self.running == 0:
                        break
                self.idle.acquire()  # held while any worker runs; none can enter a closed job
            except KeyboardInterrupt as error:
                interrupt = error
        self.task = None
        if interrupt is not None:
            raise interrupt


class _Pool:
    """The worker threads of this process; they live until the process ends."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.workers = 0
        self.lock = threading.Lock()

    def submit(self, job: _Job, helpers: int) -> None:
        """Offer ``job`` to ``helpers`` threads, started here when there are too few of them."""
        if self.workers < helpers:
            with self.lock:
                while self.workers < helpers:
                    threading.Thread(target=_serve, args=(self.jobs,), name="nbad", daemon=True).start()
                    self.workers += 1
        for _ in range(helpers):
            self.jobs.put(job)


class _Local(threading.local):
    """Whether this thread belongs to the pool."""

    worker = False


def _serve(jobs: SimpleQueue[_Job]) -> None:
    """Serve jobs for ever, as the body of one pool thread."""
    _LOCAL.worker = True
    while True:
        job = jobs.get()
        job.help()
        del job  # an idle thread must not keep the arrays of the last job alive


def _usable_cpus() -> int:
    """Return the number of processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    if affinity is not None:
        return max(1, len(affinity(0)))
    return max(1, os.cpu_count() or 1)


class _State:
    """The pool, made at the first fan-out, and the number of threads that was asked for."""

    def __init__(self) -> None:
        self.pool: _Pool | None = None
        self.threads = 0
        self.watching_forks = False
        self.lock = threading.Lock()

    def ready(self) -> _Pool:
        """Return the pool of this process."""
        pool = self.pool
        if pool is not None:
            return pool
        with self.lock:
            if self.pool is None:
                if not self.watching_forks and hasattr(os, "register_at_fork"):
                    os.register_at_fork(after_in_child=self.forget)
                    self.watching_forks = True
                self.pool = _Pool()
            return self.pool

    def forget(self) -> None:
        """Drop a pool whose threads did not survive a fork."""
        self.pool = None
        self.lock = threading.Lock()


_LOCAL = _Local()
_STATE = _State()


def set_threads(n: int | None) -> None:
    """Set how many threads large steps are split over.

    Parameters
    ----------
    n : int or None
        Number of threads, the calling one included; None for the number of usable processors.

    Raises
    ------
    ValueError
        If `n` is less than 1.
    TypeError
        If `n` is not an integer.
    """
    if n is None:
        _STATE.threads = 0
        return
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"the number of threads must be an integer, not {type(n).__name__}")
    count = n.__index__()
    if count < 1:
        raise ValueError(f"the number of threads must be at least 1, not {count}")
    _STATE.threads = count


def get_threads() -> int:
    """Return how many threads large steps are split over, the calling one included.

    Returns
    -------
    int
        The number that was set, else the number of processors this process may use.
    """
    if _STATE.threads == 0:
        _STATE.threads = _usable_cpus()
    return _STATE.threads


def fan_out(task: Task, n_chunks: int) -> bool:
    """Run a task on all chunks, split over the calling thread and the pool.

    Parameters
    ----------
    task : callable
        ``task(lo, hi)`` runs the chunks ``lo, ..., hi - 1`` and returns 0 where one failed, else 1 or None.
        It must release the GIL to gain from several threads, and write only where its chunk numbers say.
    n_chunks : int
        Number of chunks. How they are grouped is not fixed; that each runs exactly once is.

    Returns
    -------
    bool
        Whether no call of `task` returned 0.

    Notes
    -----
    An exception in a task stops the handing out of chunks; it is raised here when every running piece has
    ended. So is KeyboardInterrupt: no piece runs any more when the caller sees it. A call from a pool thread
    runs all its chunks in that thread.
    """
    if n_chunks <= 0:
        return True
    if n_chunks == 1:
        status = task(0, 1)
        return status is None or status != 0
    threads = 1 if _LOCAL.worker else get_threads()
    job = _Job(task, n_chunks, threads)
    if threads == 1:
        job.work()
        return not job.failed
    try:
        _STATE.ready().submit(job, min(threads, n_chunks) - 1)
        job.work()
    finally:
        try:
            job.join()
        except KeyboardInterrupt:
            job.join()  # if the interrupt came before the first join could catch it
            raise
    if job.error is not None:
        raise job.error
    return not job.failed
