"""Programs on the CPU where there is no C compiler: chains of elementwise steps in blocks that fit the cache, by NumPy.

A run of steps that write arrays of one shape is done block of rows by block of rows, on the backend's threads, so that
what one step writes is still in the cache when the next reads it. Other steps run as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad.backends.cpu import _quiet
from gpugrad.backends.cpu_blocks import LARGE, row_blocks
from gpugrad.compiler.fusing import Group
from gpugrad.compiler.program import CAST, Buffer, Map, View

_DIRECT = (np.dtype(np.float32), np.dtype(np.float64))


def prepare(lowering: Any) -> list[Callable[[Any], None]]:
    """The actions of a run of ``lowering``."""
    actions: list[Callable[[Any], None]] = []
    for part in lowering.parts:
        for steps in _runs(part.steps) if isinstance(part, Group) else [[part]]:
            if len(steps) > 1:
                actions.append(_blocked(lowering, steps))
            else:
                actions += [lowering.step(s) for s in steps]
    return actions


def _runs(steps: Sequence[Any]) -> list[list[Any]]:
    """Neighbouring steps that can be done block by block together; the others one by one."""
    found: list[list[Any]] = []
    for s in steps:
        if _fits(s) and found and _fits(found[-1][-1]) and found[-1][-1].out.shape == s.out.shape:
            found[-1].append(s)
        else:
            found.append([s])
    return found


def _fits(s: Any) -> bool:
    """Whether NumPy computes a step row by row as it computes it whole."""
    if not isinstance(s, Map) or s.kernel.check is not None or s.out.size < LARGE or s.out.shape[0] < 8:
        return False
    if s.kernel is CAST:
        return s.inputs[0].dtype in _DIRECT and s.out.dtype in _DIRECT  # type: ignore[union-attr]
    typed = [x for x in s.inputs if isinstance(x, View)][1 if s.kernel.masked else 0 :]
    return s.compute in _DIRECT and s.out.dtype in (*_DIRECT, np.bool_) and all(x.dtype == s.compute for x in typed)


def _blocked(lowering: Any, steps: Sequence[Map]) -> Callable[[Any], None]:
    """``steps``, all over one shape, as one action."""
    backend = lowering.backend
    shape = steps[0].out.shape
    rows, count = row_blocks(shape)
    # What a fresh array becomes the memory of a buffer for is that buffer as a whole; the rest is written to in place.
    fresh: list[tuple[Buffer, tuple[int, ...], np.dtype]] = []
    for s in steps:
        if lowering._is_fresh(s.out):
            whole = s.out.dense and not s.out.offset and s.out.size * s.out.dtype.itemsize == s.out.buffer.nbytes
            flat = (s.out.buffer.nbytes // s.out.dtype.itemsize,)
            fresh.append((s.out.buffer, shape if whole else flat, s.out.dtype))
    targets = [lowering._reader(s.out) for s in steps]
    operands = [[lowering._operand(x) for x in s.inputs] for s in steps]

    def run(run: Any) -> None:
        for buffer, size, dtype in fresh:
            run.memory[buffer.number] = backend.empty(size, dtype)
        outs = [t(run) for t in targets]
        values = [[x(run) for x in inputs] for inputs in operands]

        def block(i: int) -> None:
            part = slice(i * rows, (i + 1) * rows)
            for step, out, inputs in zip(steps, outs, values, strict=True):
                np.copyto(out[part], step.kernel.numpy(*[_part(x, part, shape) for x in inputs]), "unsafe")

        backend._workers.share(lambda i: _quiet.run(block, i), count)

    return run


def _part(x: Any, part: slice, shape: Sequence[int]) -> Any:
    """The rows ``part`` of an operand, or all of one that is the same for each row."""
    if isinstance(x, np.ndarray):
        return x[part] if x.ndim == len(shape) and x.shape[0] == shape[0] else x
    return float(x)
