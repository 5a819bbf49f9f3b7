"""Drawing a program: it runs on the CPU while it is drawn, so that what is drawn next fits most of the time.

Numbers that two libraries compute from the same formula may differ in the last bit, and after ``floor`` by one. So a
tensor counts as *exact* while all that was done to it is exact for small multiples of a power of two; what jumps
(rounding, comparisons, sorting, derivatives at kinks) is drawn for exact tensors alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import gpugrad as gg
from gpugrad import layout
from tests.fuzz.programs import NAME, Runner

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "uint8", "int16", "int8")
#: how many dimensions, and how long
SIZES = (0, 1, 1, 2, 2, 2, 3, 3, 4)


class Builder:
    """The program so far. ``choose(n)`` draws a number below ``n``; ``narrow``: few dtypes and shapes, so that a device
    that compiles a kernel for each has few to compile."""

    def __init__(self, choose: Callable[[int], int], narrow: bool = False) -> None:
        self.choose = choose
        self.narrow = narrow
        self.runner = Runner(gg, "cpu")
        self.lines: list[str] = []
        self.count = 0
        self.exact: dict[str, bool] = {}

    # -- drawing -------------------------------------------------------------------
    def chance(self, percent: int) -> bool:
        """True so many times in a hundred; shrinks towards False."""
        return self.choose(100) >= 100 - percent

    def one(self, options: Sequence[Any]) -> Any:
        """One of the options."""
        return options[self.choose(len(options))]

    def shape(self) -> tuple[int, ...]:
        """A shape of few small sizes, some of them 0 and 1."""
        if self.narrow:
            return self.one([(2, 3), (3,), (2, 1), (3, 3), ()])
        return tuple(self.one(SIZES[1:] if self.choose(8) else SIZES) for _ in range(self.one((2, 1, 3, 2, 0, 4))))

    def dtype(self) -> str:
        """A dtype, float32 most of the time."""
        if self.narrow:
            return self.one(("float32", "float32", "float32", "int64", "bool"))
        k = self.choose(20)
        if k < 12:
            return "float32"
        return self.one(FLOATS if k < 16 else INTEGERS if k < 19 else ("bool",))

    def dim(self, x: Any) -> int:
        """A dimension of ``x``, counted from either end; seldom one that it has not."""
        n = x.ndim
        if not self.choose(60):
            return n + 1
        return self.choose(max(1, n)) - (n if self.choose(2) else 0)

    def dims(self, x: Any) -> int | tuple[int, ...]:
        """One or several dimensions."""
        if x.ndim < 2 or self.choose(3):
            return self.dim(x)
        first = self.choose(x.ndim)
        return tuple(sorted({first, self.choose(x.ndim)}))

    def number(self, dtype: str = "float32") -> str:
        """A number as a program has it."""
        if dtype == "bool":
            return self.one(("True", "False", "2"))
        whole = ("2", "-1", "0", "3", "1")
        return self.one(whole if dtype in INTEGERS else (*whole, "0.5", "-1.5", "2.25"))

    # -- variables -----------------------------------------------------------------
    def __getitem__(self, name: str) -> Any:
        return self.runner.names[name]

    def pick(self, fits: Callable[[Any], Any] | None = None, *, exact: bool = False) -> str | None:
        """A variable whose tensor ``fits``, late ones more often; None if there is none."""
        names = [
            n
            for n, is_exact in self.exact.items()
            if (is_exact or not exact) and (fits is None or fits(self.runner.names[n]))
        ]
        if not names:
            return None
        k = len(names)
        return names[-1 - min(self.choose(k), self.choose(k))]

    def floating(self, fits: Callable[[Any], Any] | None = None, *, exact: bool = False) -> str | None:
        """A floating variable."""
        return self.pick(lambda x: x.is_floating_point() and (fits is None or fits(x)), exact=exact)

    def partner(self, name: str, *, exact: bool = False, fits: Callable[[Any], Any] | None = None) -> str | None:
        """A variable that broadcasts with ``name``; now and then any."""
        shape = tuple(self[name].shape)
        if not self.choose(25):
            return self.pick(fits, exact=exact)
        return self.pick(lambda x: broadcasts(shape, tuple(x.shape)) and (fits is None or fits(x)), exact=exact)

    def values(self, name: str) -> np.ndarray:
        """The numbers of a variable, as float64."""
        return self[name].detach().double().numpy()

    def small(self, *names: str, limit: float = 64.0) -> bool:
        """Whether all their numbers are finite and not large, so that what is made of them stays so."""
        return all(np.abs(self.values(n)).max(initial=0) <= limit for n in names)  # NaN is not

    def tame(self, x: Any) -> bool:
        """:meth:`small` of a tensor."""
        values = x.detach().double().numpy()
        return bool(np.abs(values).max(initial=0) <= 16)

    def writable(self, x: Any) -> bool:
        """Whether no two elements of ``x`` share memory, or all do as ``expand`` leaves them (which is an error): what
        is written where windows overlap depends on the order."""
        return 0 in x.stride() or not layout.may_overlap_itself(x._array.shape, x._array.strides)

    # -- lines ---------------------------------------------------------------------
    def define(self, expression: str, *, exact: bool | None = None, results: int = 1) -> bool:
        """Append ``v.. = expression``. ``exact``: whether the result is, given that its operands are (None: neither
        changes that). False if it raised."""
        names = [f"v{self.count + k}" for k in range(results)]
        self.count += results
        operands = self._exact(expression)
        if not self.run(f"{', '.join(names)} = {expression}"):
            return False
        for n in names:
            if hasattr(self.runner.names.get(n), "detach"):
                self._note(n, operands and exact is not False)
        return True

    def change(self, line: str, name: str, *, exact: bool = True) -> bool:
        """Append a line that writes into the memory of ``name``."""
        exact = exact and self._exact(line)
        done = self.run(line)
        memory = self.runner.memory(self[name])
        for other in list(self.exact):
            if memory is not None and self.runner.memory(self[other]) == memory:
                self._note(other, self.exact[other] and exact)
        return done

    def run(self, line: str) -> bool:
        """Append a line and run it; False if it raised."""
        self.lines.append(line)
        return self.runner.step(line) is None

    def _exact(self, text: str) -> bool:
        return all(self.exact.get(n, True) for n in NAME.findall(text))

    def _note(self, name: str, exact: bool) -> None:
        x = self.runner.names[name]
        values = x.detach().double().numpy()
        finite = values[np.isfinite(values)]
        half = x.dtype in (gg.float16, gg.bfloat16)
        bits = 4 if half else 64
        sharp = bool((np.abs(finite) <= (64 if half else 4096)).all() and (finite * bits % 1 == 0).all())
        if half and x.dtype is gg.bfloat16:
            sharp = sharp and bool((np.abs(finite) * 4 < 256).all() and (finite * 4 % 1 == 0).all())
        if np.abs(finite).max(initial=0) > 1e6 or x.numel() > 4096:
            self.exact.pop(name, None)  # compared at the end, but nothing more is made of it
            return
        self.exact[name] = exact and sharp


def is_bool(x: Any) -> bool:
    """Whether a tensor is a mask."""
    return str(x.dtype).endswith("bool")


def broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes do."""
    return all(m == n or m == 1 or n == 1 for m, n in zip(a[::-1], b[::-1], strict=False))


def fits_into(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    """Whether a tensor of the one shape broadcasts to the other."""
    return len(small) <= len(large) and all(m == n or m == 1 for m, n in zip(small[::-1], large[::-1], strict=False))
