"""Running a program: its lines one after the other, in one library, on one device."""

from __future__ import annotations

import functools
import re
import warnings
from typing import Any, NamedTuple

import numpy as np

import gpugrad as gg

#: a name of a tensor in a program
NAME = re.compile(r"\bv\d+\b")


class Seen(NamedTuple):
    """What one can see of a tensor when the program has ended."""

    dtype: str
    shape: tuple[int, ...]
    values: np.ndarray
    requires_grad: bool
    is_leaf: bool
    grad: Seen | None


class Outcome(NamedTuple):
    """``errors``: for each line the exception it raised, or None. ``tensors``: each name that is one. ``shared``: the
    pairs of names whose tensors share memory."""

    errors: list[Exception | None]
    tensors: dict[str, Seen]
    shared: set[tuple[str, str]]


class Unreadable(Exception):
    """PyTorch will not show a tensor: a part of one that was split, after the whole was changed."""


class Runner:
    """A library on a device, with what the lines of a program may use besides it:

    ``make(seed, shape, dtype, grad)``   a leaf of numbers that are quarters, so that sums and products are exact
    ``index(numbers)``                   an int64 tensor
    ``weigh(x, ...)``                    a number that depends on all elements of all the tensors
    ``gradients(x, inputs, ...)``        copies of the gradients of ``weigh(x)`` (which of them share memory is each
                                         library's own)
    """

    def __init__(self, library: Any, device: str) -> None:
        self.library = library
        self.device = device
        self.is_torch = library is not gg
        self.names: dict[str, Any] = {
            "T": library, "F": library.nn.functional, "make": self._make, "index": self._index, "weigh": self._weigh,
            "gradients": self._gradients,
        }  # fmt: skip

    def step(self, line: str) -> Exception | None:
        """Run one line; the exception it raised."""
        before = set(self.names)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                exec(_compiled(line), self.names)
            except Exception as error:  # whatever it is, it is the outcome
                return error
        for name in NAME.findall(line.split("=")[0]):
            if name in self.names and name not in before:
                self._settle(name)
        return None

    def outcome(self, lines: list[str]) -> Outcome:
        """Run a whole program."""
        errors = [self.step(line) for line in lines]
        if not self.is_torch:  # what the device saw only while it worked is raised when something is read
            gg.synchronize(self.device)
        tensors = {name: x for name, x in self.names.items() if NAME.fullmatch(name) and hasattr(x, "detach")}
        names = sorted(tensors, key=lambda n: int(n[1:]))
        shared = {
            (a, b)
            for i, a in enumerate(names)
            for b in names[i + 1 :]
            if self.memory(tensors[a]) is not None and self.memory(tensors[a]) == self.memory(tensors[b])
        }
        return Outcome(errors, {name: self._see(tensors[name]) for name in names}, shared)

    def memory(self, x: Any) -> Any:
        """Equal for tensors that share memory; None for those that have none."""
        if x.numel() == 0:
            return None
        if self.is_torch:
            return x.untyped_storage().data_ptr()
        return id(x._backend.extent(x._array)[0])

    def _settle(self, name: str) -> None:
        """Results in memory of their own are put in C order, as PyTorch lets some keep the order of their inputs: what
        ``reshape`` and ``view`` do later should not depend on it."""
        x = self.names[name]
        if not hasattr(x, "is_contiguous") or x.is_contiguous():
            return
        mine = self.memory(x)
        others = (y for other, y in self.names.items() if other != name and NAME.fullmatch(other))
        if all(not hasattr(y, "detach") or self.memory(y) != mine for y in others):
            self.names[name] = x.contiguous()

    def _see(self, x: Any, deep: bool = True) -> Seen:
        if self.is_torch:
            try:
                y = x.detach().resolve_neg()
                x.is_leaf  # noqa: B018  # asks for the node of a view, which may be refused
            except RuntimeError as error:
                raise Unreadable from error
            y = y.float() if str(y.dtype) == "torch.bfloat16" else y
            values = y.numpy(force=True).copy()
        else:
            values = x.detach().cpu().numpy()
            values = values.astype(np.float32) if values.dtype.name == "bfloat16" else values.copy()
        grad = None
        if deep and x.is_leaf and x.grad is not None:
            grad = self._see(x.grad, False)
        dtype = str(x.dtype).rpartition(".")[2]
        return Seen(dtype, tuple(x.shape), values, x.requires_grad, x.is_leaf, grad)

    def _tensor(self, values: np.ndarray, dtype: str) -> Any:
        kind = getattr(self.library, dtype)
        return self.library.tensor(values.tolist(), dtype=kind, device=self.device).reshape(values.shape)

    def _make(self, seed: int, shape: tuple[int, ...], dtype: str = "float32", grad: bool = False) -> Any:
        rng = np.random.default_rng(seed)
        numbers = rng.integers(-8, 9, shape)
        if dtype == "bool":
            values = numbers > 0
        elif dtype == "uint8":
            values = np.abs(numbers)
        elif "int" in dtype:
            values = numbers
        else:
            values = numbers / 4
        x = self._tensor(np.asarray(values), dtype)
        return x.detach().requires_grad_() if grad else x.detach()

    def _index(self, numbers: Any) -> Any:
        return self._tensor(np.asarray(numbers, np.int64), "int64")

    def _weigh(self, *tensors: Any) -> Any:
        total = None
        for k, x in enumerate(tensors):
            dtype = "float64" if str(x.dtype).endswith("float64") else "float32"
            weights = (np.arange(x.numel()) * 7 + k) % 9 - 3.5
            part = (x.to(getattr(self.library, dtype)) * self._tensor(weights.reshape(tuple(x.shape)), dtype)).sum()
            total = part if total is None else total + part.to(total.dtype)
        return total

    def _gradients(self, x: Any, inputs: list[Any], **options: Any) -> list[Any]:
        found = self.library.autograd.grad(self._weigh(x), inputs, allow_unused=True, **options)
        return [None if g is None else g.clone() for g in found]


@functools.lru_cache(4096)
def _compiled(line: str) -> Any:
    return compile(line, "<program>", "exec")
