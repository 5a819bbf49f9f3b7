"""A contestant in a process of its own, so that no peer's threads, memory pools or crash touch another's figures.

The parent asks over a pipe and only ever lets one contestant work at a time. This module imports nothing heavy: the
parent sets the environment (threads) before any child imports NumPy.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import time
import traceback
from itertools import repeat
from multiprocessing.connection import Connection
from typing import Any

# Steps before anything is timed. All contestants take the same number, as a training step's numbers depend on it; they
# also compile, fill pools and, for tinygrad, capture (its JIT replays from the third call on).
WARM_STEPS = 4
# Below this, one wait at the end of a sample, as a wait would be a good part of the step; above, one per step.
WAIT_EACH_ABOVE = 2e-4
# After a sample, a contestant answers when its threads sleep: those of OpenBLAS wait actively for a tenth of a second
# after a product, and would halve the speed of whoever comes next. In seconds: what is looked at, and the longest wait.
LOOK, LONGEST_REST = 0.005, 2.0


class Failed(Exception):
    """The contestant raised, died or took too long. ``absent``: it has no such workload or device, no error."""

    def __init__(self, reason: str, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent


class Server:
    """What the child does for each question."""

    def __init__(self, name: str, device: str, threads: int) -> None:
        with contextlib.suppress(ImportError):  # reported by load; first of all, as in a program that uses it
            importlib.import_module(name.partition(".")[0])
        from benchmarks import peers

        self.peer = peers.load(name, device, threads)
        self.run: Any = None
        self.seconds = 0.0

    def about(self) -> dict[str, Any]:
        return self.peer.about()

    def build(self, name: str, tiny: bool) -> list[Any]:
        """Prepares the workload and takes the warm-up steps; returns what is compared after them."""
        from benchmarks import workloads

        (workload,) = workloads.chosen([name])
        self.run = None
        self.run = self.peer.build(workload.kind, workload.arguments(tiny))
        result = None
        for _ in range(WARM_STEPS):
            result = self.run.step()
            self.peer.wait(result)
        return workload.compared(self.run.numbers(result), tiny)

    def calibrate(self) -> float:
        """Seconds of one step, roughly. What exists now leaves the cycle collector's sight: a framework's imports would
        otherwise weigh on every collection that a step's own garbage sets off. The collector itself stays on."""
        gc.collect()
        gc.freeze()
        self.seconds = self._timed(1)
        if self.seconds < 1e-2:
            self.seconds = self._timed(3)
        if self.seconds < 1e-3:
            self.seconds = self._timed(100)
        rest()
        return self.seconds

    def sample(self, steps: int) -> float:
        """Seconds per step, over ``steps`` of them; one step beforehand (unless it is a long one) fills the caches."""
        if self.seconds < 0.1:
            self.peer.wait(self.run.step())
        seconds = self._timed(steps)
        rest()
        return seconds

    def _timed(self, steps: int) -> float:
        step, wait = self.run.step, self.peer.wait
        if self.seconds > WAIT_EACH_ABOVE or steps == 1:
            start = time.perf_counter()
            for _ in repeat(None, steps):
                wait(step())
            return (time.perf_counter() - start) / steps
        start = time.perf_counter()
        for _ in repeat(None, steps):
            result = step()
        wait(result)
        return (time.perf_counter() - start) / steps

    def drop(self) -> None:
        """Forget the workload and its memory."""
        self.run = None
        gc.unfreeze()
        gc.collect()


def rest() -> None:
    """Return when this process has stopped computing, three looks in a row."""
    end = time.perf_counter() + LONGEST_REST
    quiet = 0
    while quiet < 3 and time.perf_counter() < end:
        used = time.process_time()
        time.sleep(LOOK)
        quiet = quiet + 1 if time.process_time() - used < LOOK / 10 else 0


def _serve(pipe: Connection, name: str, device: str, threads: int) -> None:
    from benchmarks.peers import Unavailable

    server = None
    try:
        while True:
            method, arguments = pipe.recv()
            try:
                if server is None:
                    server = Server(name, device, threads)
                pipe.send(("value", getattr(server, method)(*arguments)))
            except (Unavailable, NotImplementedError) as error:
                pipe.send(("absent", str(error)))
            except Exception as error:
                traceback.print_exc()
                pipe.send(
                    ("failed", f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
                )
    except (EOFError, KeyboardInterrupt):  # the parent is gone, or goes
        return


class Contestant:
    """The parent's end. A process that died is started again at the next question."""

    def __init__(self, name: str, device: str, threads: int, patience: float) -> None:
        base, _, elsewhere = name.partition("@")
        self.name = name
        self.patience = patience
        self._arguments = (base, elsewhere or device, threads)
        self._process: Any = None

    def ask(self, method: str, *arguments: Any) -> Any:
        """The answer of the child's method. Raises Failed."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, child = context.Pipe()
            self._process = context.Process(target=_serve, args=(child, *self._arguments), daemon=True)
            self._process.start()
            child.close()
        try:
            self._pipe.send((method, arguments))
            if not self._pipe.poll(self.patience):
                self.close()
                raise Failed(f"no answer to {method} within {self.patience:.0f} s")
            kind, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise Failed(f"its process died during {method}") from error
        if kind != "value":
            raise Failed(value, absent=kind == "absent")
        return value

    def close(self) -> None:
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process = None
