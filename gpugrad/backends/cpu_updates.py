"""Steps of optimizers on the CPU: all statements of an update on one block of a tensor after the other.

NumPy writes into the arrays themselves and into scratch memory that each thread keeps; small tensors are put side by
side, so that they cost a few copies each and not a pass per line. Everything is elementwise: how the work is cut
changes no bit of the result.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpugrad.backends.update import Recipe, Update

#: most elements of a block. Two threads hand the interpreter to each other around every NumPy call, which costs more
#: than leaving the core's own cache: AdamW on 10M elements takes 17 ms in blocks of 25,000, 11 of 66,000, 8 of 200,000
MOST = 1 << 18
#: tensors below this many elements are put side by side, up to ``TOGETHER``
SMALL, TOGETHER = 1 << 12, 1 << 15
#: an update of at most this many lines takes less time than to put its tensors side by side: plain gradient descent of
#: six small tensors takes half
FEW = 3
#: from how many elements on a step is shared out among threads
SHARED = 1 << 17

Columns = Sequence[Sequence[np.ndarray]]
Task = Callable[[], None]


class _Scratch(threading.local):
    """Rows of memory that a thread uses again for every block."""

    def __init__(self) -> None:
        self.rows: dict[tuple[np.dtype, int], np.ndarray] = {}
        self.shaped: dict[tuple[np.dtype, int, tuple[int, ...]], list[np.ndarray]] = {}

    def get(self, count: int, size: int, dtype: np.dtype) -> np.ndarray:
        if size > MOST:  # of a tensor that is not contiguous: not worth keeping
            return np.empty((count, size), dtype)
        found = self.rows.get((dtype, count))
        if found is None or found.shape[1] < size:
            found = self.rows[dtype, count] = np.empty((count, max(size, SMALL)), dtype)
        return found[:, :size]

    def like(self, count: int, array: np.ndarray) -> list[np.ndarray]:
        """Rows for an array of fewer than ``SMALL`` elements, in its shape: kept, as to cut them takes as long as to
        compute with them."""
        key = array.dtype, count, array.shape
        found = self.shaped.get(key)
        if found is None:
            if len(self.shaped) >= 256:
                self.shaped.clear()
            found = [row.reshape(array.shape) for row in self.get(count, array.size, array.dtype)]
            self.shaped[key] = found
        return found


_scratch = _Scratch()


class Program:
    """An update as a list of NumPy calls for numbers of which those in ``ones`` are 1: what is multiplied by these
    stays as it is (unless that were the statement's result).

    ``lines``: (function, places of its operands or None for a second, place of its result) in a list of values: arrays,
    numbers, numbers computed from these (``folded``), ``rows`` of scratch memory."""

    __slots__ = ("lines", "folded", "rows")

    def __init__(self, update: Update, ones: tuple[bool, ...]) -> None:
        arrays, given = len(update.arrays), len(update.arrays) + len(update.numbers)
        folded: list[tuple[Any, ...]] = []
        lines: list[tuple[Any, ...]] = []
        one = {arrays + i for i, is_one in enumerate(ones) if is_one}
        same: dict[int, Any] = {}  # temporaries that are another value times 1
        for target, kernel, reads in update.places:
            function = kernel.numpy
            recipe = function if isinstance(function, Recipe) else Recipe(("y", function, "a b"[: 2 * len(reads) - 1]))
            taken = [same[i] if i in same else _shifted(i, given) for i in reads]
            if function is np.multiply and reads[1] in one and target >= given:
                same[target] = taken[0]
                continue
            where: dict[str, Any] = dict(zip("abcdefg", taken, strict=False))
            for i, (letter, ufunc, operands) in enumerate(recipe.lines, 1):
                places = [where[n] for n in operands]
                if letter in "kl":
                    folded.append((ufunc, *places))
                    where[letter] = ("number", len(folded) - 1)
                elif ufunc is np.multiply and places[1] in one and i < len(recipe.lines):
                    where[letter] = places[0]
                else:
                    out = _shifted(target, given) if letter == "y" else ("row", letter)
                    lines.append((ufunc, places[0], places[1] if len(places) > 1 else None, out))
                    where[letter] = out
        named = dict.fromkeys(p for line in lines for p in line[1:] if isinstance(p, tuple) and p[0] == "row")
        self.rows = len(named)
        settle: dict[Any, Any] = {("number", i): given + i for i in range(len(folded))}
        settle |= {name: given + len(folded) + i for i, name in enumerate(named)}
        self.folded = [(f, settle.get(x, x), settle.get(y, y)) for f, x, y in folded]
        self.lines = [(f, settle.get(x, x), settle.get(y, y), settle.get(o, o)) for f, x, y, o in lines]


def _shifted(place: int, given: int) -> Any:
    """The place of an array or a number as it is; a temporary of the update is a row of scratch memory."""
    return place if place < given else ("row", place)


def prepare(update: Update, numbers: Sequence[float], dtype: np.dtype) -> tuple[Program, list[np.ndarray]]:
    """The program for these numbers, and all numbers it takes as arrays without dimensions, which NumPy reads faster
    than Python's (0.28 us a call of 16 elements against 0.52)."""
    ones = tuple([x == 1.0 for x in numbers])
    program = update.programs.get(ones)
    if program is None:
        program = update.programs[ones] = Program(update, ones)
    values = list(numbers)
    first = len(update.arrays)
    for function, x, y in program.folded:
        values.append(float(function(values[x - first], values[y - first])))
    row = np.array(values, np.float64).astype(dtype)
    return program, [row[i, ...] for i in range(len(values))]


def tasks(update: Update, columns: Columns, numbers: Sequence[float]) -> tuple[list[Task], int]:
    """The work of one step in pieces that may be done at once, and how many elements it has. ``columns``: for each of
    the update's arrays those of all tensors, of one dtype."""
    small: list[tuple[np.ndarray, ...]] = []
    large: list[tuple[np.ndarray, ...]] = []
    total = 0
    for arrays in zip(*columns, strict=True):
        size = arrays[0].size
        total += size
        (small if size < SMALL else large).append(arrays)
    program, scalars = prepare(update, numbers, columns[0][0].dtype)
    most = max(min(MOST, -(-total // 2)), SHARED // 2)
    work: list[Task] = [partial(_one, program, part, scalars) for arrays in large for part in _blocks(arrays, most)]
    if small and len(program.lines) <= FEW:
        work.append(partial(_in_turn, program, small, scalars))
    elif len(small) < 4:
        work += [partial(_one, program, arrays, scalars) for arrays in small]
    else:
        work += [partial(_together, update, program, batch, scalars) for batch in _batches(small)]
    return work, total


def _blocks(arrays: tuple[np.ndarray, ...], most: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Blocks of nearly equal size; tensors that are not contiguous stay whole."""
    size = arrays[0].size
    if size <= most or not all(a.flags.c_contiguous for a in arrays):
        yield arrays
        return
    flat = [a.reshape(-1) for a in arrays]
    step = -(-size // -(-size // most))
    for start in range(0, size, step):
        yield tuple(a[start : start + step] for a in flat)


def _batches(small: list[tuple[np.ndarray, ...]]) -> Iterator[list[tuple[np.ndarray, ...]]]:
    batch: list[tuple[np.ndarray, ...]] = []
    size = 0
    for arrays in small:
        if size + arrays[0].size > TOGETHER:
            yield batch
            batch, size = [], 0
        batch.append(arrays)
        size += arrays[0].size
    yield batch


def _one(program: Program, arrays: tuple[np.ndarray, ...], scalars: list[np.ndarray]) -> None:
    first = arrays[0]
    rows = _scratch.get(program.rows, first.size, first.dtype)
    if first.ndim == 1:
        _evaluate(program, [*arrays, *scalars, *rows])
    else:
        _evaluate(program, [*arrays, *scalars, *[row.reshape(first.shape) for row in rows]])


def _in_turn(program: Program, batch: list[tuple[np.ndarray, ...]], scalars: list[np.ndarray]) -> None:
    """A short update of small tensors: all lines for the first one, then for the next."""
    count = program.rows
    for arrays in batch:
        _evaluate(program, [*arrays, *scalars, *_scratch.like(count, arrays[0])])


def _together(update: Update, program: Program, batch: list[tuple[np.ndarray, ...]], scalars: list[np.ndarray]) -> None:
    count = len(update.arrays)
    size = sum([arrays[0].size for arrays in batch])
    rows = list(_scratch.get(count + program.rows, size, batch[0][0].dtype))
    columns = list(zip(*batch, strict=True))
    for row, column in zip(rows, columns, strict=False):
        np.concatenate(column, axis=None, out=row)
    _evaluate(program, [*rows[:count], *scalars, *rows[count:]])
    for i in update.written:
        row, start = rows[i], 0
        for a in columns[i]:
            stop = start + a.size
            a[...] = row[start:stop] if a.ndim == 1 else row[start:stop].reshape(a.shape)
            start = stop


def _evaluate(program: Program, values: list[np.ndarray]) -> None:
    for function, x, y, out in program.lines:
        if y is None:
            function(values[x], out=values[out])
        else:
            function(values[x], values[y], out=values[out])


class UpdateOps:
    """What the CPU backend offers for optimizers; ``gpugrad/ops/updates.py`` says what each takes and returns."""

    _share: Callable[[Callable[[int], None], int], None]

    def fused_update(self, update: Update, columns: Columns, numbers: Sequence[Any]) -> None:
        work, total = tasks(update, columns, [float(x) for x in numbers])  # an array is here already
        self._do(work, total)

    def fused_total_norm(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        pieces = [part for a in arrays for part in _pieces(a)]
        squares = np.empty(len(pieces))

        def square(i: int) -> None:
            piece = pieces[i]
            scratch = _scratch.get(1, piece.size, piece.dtype)[0]
            np.multiply(piece, piece, scratch.reshape(piece.shape))
            squares[i] = np.add.reduce(scratch)

        self._do([partial(square, i) for i in range(len(pieces))], sum(a.size for a in arrays))
        total = float(squares.sum())  # of the pieces in float64, in their order
        return np.asarray(math.sqrt(total) if total >= 0 else total, arrays[0].dtype)

    def fused_scale(self, arrays: Sequence[np.ndarray], factor: np.ndarray) -> None:
        if factor == 1:
            return
        pieces = [part for a in arrays for part in _pieces(a)]
        self._do([partial(np.multiply, p, factor, p) for p in pieces], sum(a.size for a in arrays))

    def _do(self, work: Sequence[Task], total: int) -> None:
        if total >= SHARED and len(work) > 1:
            self._share(lambda i: work[i](), len(work))
            return

        def everything(_: int) -> None:
            for task in work:
                task()

        self._share(everything, 1)


def _pieces(array: np.ndarray) -> list[np.ndarray]:
    return [part for (part,) in _blocks((array,), MOST)]
