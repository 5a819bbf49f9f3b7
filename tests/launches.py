"""What the suite may ask of OpenCL besides passing: the launch shapes of GPUs on a device that is none, and a record of
launches for ``tools/check_oclgrind.py``.

``GPUGRAD_TEST_SHAPES=gpu``   the device ``opencl`` takes the launch shapes that GPUs get, whatever it is
``GPUGRAD_TEST_LAUNCHES=DIR`` each process writes to DIR two small launches of each kernel, with the
                              contents of their buffers
"""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np

import gpugrad as gg
from gpugrad.backends import opencl

#: the most bytes and items of a launch that is worth its time under a checker a thousand times slower
MOST_BYTES, MOST_ITEMS = 5 << 18, 1 << 17


def take_gpu_shapes() -> None:
    """The device ``opencl`` with the launch shapes of a GPU."""

    def make(index: int) -> opencl.OpenCLBackend:
        backend = opencl.open(index, cpu_shapes=False)
        # Most of such a run's time is PoCL compiling: 12 s with this, 22 s without for tests/test_kernel_rows.py.
        backend._options.append("-cl-opt-disable")
        return backend

    gg.register_backend("opencl", make, opencl.enumerate_devices)


class Recorder:
    """Notes launches of all OpenCL devices from :meth:`start` on."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.sources: dict[str, tuple[str, list[str]]] = {}  # digest: text, compiler's options
        self.programs: dict[int, tuple[object, str]] = {}
        self.kernels: dict[int, tuple[object, tuple[str, str, int]]] = {}  # kernel: digest, name, items of a group
        self.sizes: dict[int, int] = {}  # of buffers, as asked for; the pool's are larger
        self.best: dict[tuple[str, str, int, bool], tuple[int, int, list]] = {}

    def start(self) -> None:
        cls = opencl.OpenCLBackend
        allocate, compile_, get_kernel, launch = cls._allocate, cls._compile, cls._get_kernel, cls._launch
        replay, one_by_one = cls.replay, super(cls, cls).replay
        recorder = self

        def _allocate(backend, nbytes):
            buffer = allocate(backend, nbytes)
            recorder.sizes[buffer.int_ptr] = nbytes
            return buffer

        def _compile(backend, source, fuse, double):
            program = compile_(backend, source, fuse, double)
            options = [*(["-cl-mad-enable"] if fuse else []), *([] if double else ["-cl-single-precision-constant"])]
            digest = hashlib.sha256(" ".join([*options, source]).encode()).hexdigest()[:24]
            recorder.sources[digest] = source, options
            recorder.programs[id(program)] = program, digest
            return program

        def _get_kernel(backend, program, name, local):
            kernel = get_kernel(backend, program, name, local)
            recorder.kernels[id(kernel)] = kernel, (recorder.programs[id(program)][1], name, local)
            return kernel

        def _launch(backend, kernel, groups, *args):
            recorder.note(backend, recorder.kernels[id(kernel)][1], groups, args)
            launch(backend, kernel, groups, *args)

        def _replay(backend, launches):
            noting, plain = one_by_one(backend, launches), replay(backend, launches)

            def queue():
                wanted = any(recorder.wants(recorder.kernels[id(k)][1], groups, args) for k, groups, args in launches)
                (noting if wanted else plain)()

            return queue

        cls._allocate, cls._compile, cls._get_kernel, cls._launch = _allocate, _compile, _get_kernel, _launch
        cls.replay = _replay

    def wants(self, kernel, groups, args) -> tuple[int, bool] | None:
        """What a launch costs and whether that is too much, if it is the cheapest so far of one group, or the cheapest
        of several, or the first."""
        items = groups * kernel[2]
        nbytes = sum(self.sizes[a.int_ptr] for a in args if type(a) is not bytes)
        large = nbytes > MOST_BYTES or items > MOST_ITEMS
        cost = items + abs(nbytes - 1024) // 8  # an element or two would show little
        found = self.best.get((*kernel, groups > 1))
        if found is not None and (large or (found[2] and found[0] <= cost)):
            return None
        return cost, large

    def note(self, backend, kernel, groups, args) -> None:
        """Keep a launch that is wanted; of one too large only that it was seen."""
        wanted = self.wants(kernel, groups, args)
        if wanted is None:
            return
        cost, large = wanted
        kept, held = [], {}
        for arg in () if large else args:
            if type(arg) is bytes:
                kept.append(arg)
                continue
            if id(arg) not in held:
                data = np.empty(self.sizes[arg.int_ptr], np.uint8)
                backend._cl.enqueue_copy(backend._queue, data, arg, is_blocking=True)
                held[id(arg)] = data
            kept.append(held[id(arg)])  # one object for one buffer
        self.best[(*kernel, groups > 1)] = cost, groups, kept

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"launches-{os.getpid()}.pickle", "wb") as file:
            pickle.dump((self.sources, self.best), file)


_recorder: Recorder | None = None


def configure() -> None:
    """Do what the environment asks for."""
    global _recorder
    if os.environ.get("GPUGRAD_TEST_SHAPES") == "gpu":
        take_gpu_shapes()
    folder = os.environ.get("GPUGRAD_TEST_LAUNCHES")
    if folder and _recorder is None:
        _recorder = Recorder(folder)
        _recorder.start()


def finish() -> None:
    """Write what was recorded."""
    if _recorder is not None:
        _recorder.save()
