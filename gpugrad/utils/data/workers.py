"""Worker processes that make batches ahead of the training loop.

Batch k is made by worker k modulo their number, and batches are handed out in order, so the result does not depend
on timing. Tasks go to each worker through a pipe; results come back through a queue that sends from a thread of the
worker, so that neither side ever waits for the other to read. Nothing runs in threads of this process.
"""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import random
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpugrad.devices import set_default_device
from gpugrad.namespace import set_num_threads
from gpugrad.random import manual_seed
from gpugrad.utils.data.fetch import Fetcher, stream


@dataclass(frozen=True)
class WorkerInfo:
    """Which worker this process is: ``id`` of ``num_workers``, its ``seed`` and its copy of ``dataset``."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker of a DataLoader, which one it is (an IterableDataset gives each its share by that); else None."""
    return _info


@dataclass(frozen=True)
class Job:
    """What a worker needs to know, sent to it when it starts."""

    dataset: Any
    collate: Callable[[Any], Any]
    iterable: bool
    batch_size: int | None
    drop_last: bool
    init: Callable[[int], None] | None


def _work(job: Job, worker: int, count: int, tasks: Any, results: Any) -> None:
    """The main function of a worker. Tasks: None (stop), (epoch, seed) to begin one, (epoch, k, positions).
    Results: (epoch, k, kind, pickled value), kind being "batch", "end" of the stream, or "error"."""
    global _info
    set_default_device("cpu")  # a device's context does not survive into another process
    set_num_threads(1)  # there are other workers, and the process that trains
    fetch = Fetcher(job.dataset, job.collate)
    batches: Iterator[Any] = iter(())
    first = True
    while (task := tasks.recv()) is not None:
        epoch, k, positions = task if len(task) == 3 else (task[0], -1, None)
        try:
            if k < 0:
                seed = task[1] + worker
                manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed % 2**32)
                _info = WorkerInfo(worker, count, seed, job.dataset)
                if first and job.init is not None:
                    job.init(worker)
                first = False
                if job.iterable:
                    batches = stream(job.dataset, job.collate, job.batch_size, job.drop_last)
                continue
            if job.iterable:
                value = next(batches, _END)
            elif job.batch_size is None and not isinstance(positions, (list, np.ndarray)):
                value = job.collate(job.dataset[positions])
            else:
                value = fetch(positions)
            kind, data = ("end", b"") if value is _END else ("batch", pickle.dumps(value))
        except Exception as error:
            kind, data = "error", _packed(error)
        results.put((epoch, k, kind, data))


_END = object()


def _packed(error: Exception) -> bytes:
    """Type, name and traceback of a worker's error; the type as its own pickle, since not all can be sent."""
    try:
        kind = pickle.dumps(type(error))
    except Exception:  # a class made inside a function: its name has to do
        kind = b""
    return pickle.dumps((kind, type(error).__name__, traceback.format_exc()))


def _unpacked(data: bytes, worker: int) -> Exception:
    """The worker's error as an exception of its type with its traceback as text, else as a RuntimeError."""
    kind, name, trace = pickle.loads(data)
    text = f"{name} in DataLoader worker {worker}:\n{trace}"
    try:
        return pickle.loads(kind)(text)
    except Exception:  # it cannot be imported here, or not be made from a text alone
        return RuntimeError(text)


class Workers:
    """The worker processes of a DataLoader."""

    def __init__(self, job: Job, count: int, ahead: int, timeout: float, context: Any) -> None:
        mp: Any = multiprocessing.get_context(context) if isinstance(context, str) or context is None else context
        self.timeout = timeout
        self.ahead = ahead
        self.iterable = job.iterable
        self.epoch = 0
        self.pipes, self.queues, self.processes = [], [], []
        for worker in range(count):
            reader, writer = mp.Pipe(duplex=False)
            results = mp.Queue()
            process = mp.Process(target=_work, args=(job, worker, count, reader, results), daemon=True)
            process.start()
            reader.close()
            self.pipes.append(writer)
            self.queues.append(results)
            self.processes.append(process)

    def run(self, positions: Iterator[Any], seed: int) -> Iterator[Any]:
        """The batches of one pass over ``positions`` (for a stream: endless), in order."""
        self.epoch += 1
        count = len(self.pipes)
        for worker in range(count):
            self._send(worker, (self.epoch, seed))
        # Worker k % count makes batch k, also when others' streams have ended: a stream that has ended is skipped.
        waiting: list[tuple[int, int]] = []
        open_workers = list(range(count))
        sent = turn = 0
        while True:
            while len(waiting) < self.ahead * count and open_workers:
                task = next(positions, _END)
                if task is _END:
                    break
                worker = open_workers[turn % len(open_workers)] if self.iterable else sent % count
                self._send(worker, (self.epoch, sent, task))
                waiting.append((sent, worker))
                sent += 1
                turn += 1
            if not waiting:
                return
            k, worker = waiting.pop(0)
            kind, data = self._receive(worker, k)
            if kind == "batch":
                yield pickle.loads(data)
            elif worker in open_workers:
                open_workers.remove(worker)

    def _send(self, worker: int, task: tuple[Any, ...]) -> None:
        try:
            self.pipes[worker].send(task)
        except BrokenPipeError:
            raise self._gone(worker) from None

    def _gone(self, worker: int) -> RuntimeError:
        process = self.processes[worker]
        process.join(timeout=1.0)
        return RuntimeError(
            f"DataLoader: worker {worker} (pid {process.pid}) died with its batch undone, exit code {process.exitcode}"
        )

    def _receive(self, worker: int, k: int) -> tuple[str, bytes]:
        """What ``worker`` made of task ``k``; left-overs of an abandoned pass are dropped."""
        deadline = time.monotonic() + self.timeout if self.timeout > 0 else None
        while True:
            left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            try:
                epoch, number, kind, data = self.queues[worker].get(timeout=max(left, 0.001))
            except queue.Empty:
                if not self.processes[worker].is_alive():
                    raise self._gone(worker) from None
                if deadline is not None and time.monotonic() >= deadline:
                    raise RuntimeError(
                        f"DataLoader: after {self.timeout} seconds worker {worker} has not "
                        "delivered its batch; raise timeout, or look at what the dataset does"
                    ) from None
                continue
            if epoch != self.epoch:
                continue
            if kind == "error":
                raise _unpacked(data, worker)
            if number != k:
                raise RuntimeError(f"DataLoader: worker {worker} delivered batch {number} where {k} was expected")
            return kind, data

    def stop(self) -> None:
        """End the processes."""
        for pipe in self.pipes:
            try:
                pipe.send(None)
            except OSError:
                continue  # it is gone already
        for process, results in zip(self.processes, self.queues, strict=True):
            results.cancel_join_thread()
            process.join(timeout=0.2)
            if process.is_alive():
                process.terminate()
                process.join()
            results.close()
        for pipe in self.pipes:
            pipe.close()
