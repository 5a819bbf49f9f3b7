"""What a step of an optimizer is to a backend: elementwise statements, in order, over tensors of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad.backends.base import Elementwise

#: (where the value goes, NumPy's function, its operands)
Line = tuple[str, Any, str]
_LETTERS = "abcdefg"


class Recipe:
    """An elementwise computation as NumPy functions, each of which writes into memory that is there.

    ``lines`` give values to the result ``y`` and to the temporary ``t`` out of the inputs ``a``, ``b``, ...; ``y`` may
    lie where ``a`` is, so no line reads ``a`` after ``y`` was written. Lines of numbers alone give the temporaries
    ``k`` and ``l``. Called, it computes like any function of NumPy."""

    __slots__ = ("lines",)

    def __init__(self, *lines: Line) -> None:
        self.lines = tuple((target, function, tuple(operands.split())) for target, function, operands in lines)

    def __call__(self, *inputs: Any) -> Any:
        values: dict[str, Any] = dict(zip(_LETTERS, inputs, strict=False))
        for target, function, names in self.lines:
            operands = [values[n] for n in names]
            if all(isinstance(x, float) for x in operands):
                values[target] = float(function(*operands))  # a NumPy number would decide about the dtype
                continue
            there = values.get(target)
            values[target] = function(*operands, out=there if type(there) is np.ndarray else None)
        return values["y"]


class Update:
    """``statements``: for each the name that its value gets, the computation, and the names of its operands.

    ``arrays`` and ``numbers`` name what is handed over, in that order; a statement may write one of the arrays, and any
    other name it gives is a temporary. For example one step of gradient descent::

        Update("descent", "p g", "rate", ("p", axpy, "p g rate"))

    In ``places`` names are numbers (arrays first, then numbers, then temporaries): for each statement the place it
    writes, its computation, and the places it reads. What a statement writes it may read as its first operand alone."""

    __slots__ = ("name", "arrays", "numbers", "statements", "temporaries", "places", "written", "programs")

    def __init__(self, name: str, arrays: str, numbers: str, *statements: tuple[str, Elementwise, str]) -> None:
        self.name = name
        self.arrays = tuple(arrays.split())
        self.numbers = tuple(numbers.split())
        self.statements = statements
        names = [*self.arrays, *self.numbers]
        self.places: list[tuple[int, Elementwise, tuple[int, ...]]] = []
        for target, kernel, operands in statements:
            reads = tuple(map(names.index, operands.split()))
            if target not in names:
                names.append(target)
            self.places.append((names.index(target), kernel, reads))
        self.temporaries = len(names) - len(self.arrays) - len(self.numbers)
        #: the places of the arrays that are written
        self.written: Sequence[int] = sorted({i for i, _, _ in self.places if i < len(self.arrays)})
        self.programs: dict[Any, Any] = {}  # what backends made of it

    def __repr__(self) -> str:
        return f"<update {self.name}>"
