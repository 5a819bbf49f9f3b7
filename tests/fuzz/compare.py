"""What two runs of a program may not differ in."""

from __future__ import annotations

import re

import numpy as np

from tests.fuzz.programs import NAME, Outcome, Seen

#: relative tolerance by the least exact dtype in the program
TOLERANCE = {"bfloat16": 6e-2, "float16": 1e-2, "float32": 2e-4}
#: of a value that was saved for backward and changed since
CHANGED = re.compile(r"modified by an inplace operation|saved for backward and then changed in place")


def tolerance(lines: list[str]) -> float:
    """How far apart numbers of this program may lie."""
    text = "\n".join(lines)
    return next((t for dtype, t in TOLERANCE.items() if dtype in text), TOLERANCE["float32"])


def difference(lines: list[str], left: Outcome, right: Outcome, names: tuple[str, str]) -> str | None:
    """The first difference in one sentence; None if there is none."""
    one, two = names
    for line, a, b in zip(lines, left.errors, right.errors, strict=True):
        if (a is None) != (b is None):
            who, error = (one, a) if a is not None else (two, b)
            return f"only {who} raises at `{line}`: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    of_gradients = _of_gradients(lines)
    missing = left.tensors.keys() ^ right.tensors.keys()
    if missing - of_gradients:  # a gradient that is 0 need not exist
        return f"other tensors: {sorted(missing)}"
    limit = tolerance(lines)
    # How far a walk came before it raised depends on the order in which it visits nodes.
    whole = not any(e is not None and "backward" in line for line, e in zip(lines, left.errors, strict=True))
    loose = of_gradients if two.startswith("PyTorch") else set()
    for name, a in left.tensors.items():
        if name in missing:
            continue
        found = _tensor(a, right.tensors[name], limit, whole, name in loose)
        if found:
            return f"{name}: {found} ({one} and {two})"
    if missing:
        return None
    if left.shared != right.shared:
        return (
            f"sharing memory: {sorted(left.shared - right.shared)} only in {one}, "
            f"{sorted(right.shared - left.shared)} only in {two}"
        )
    return None


def _of_gradients(lines: list[str]) -> set[str]:
    """Names of gradients and of what is made of them: whether a derivative that is constant has a graph is each
    library's own."""
    found: set[str] = set()
    for line in lines:
        left, _, right = line.partition("=")
        names = set(NAME.findall(line))
        if "gradients(" in line:
            found |= set(NAME.findall(left))
        elif names & found:
            found |= names if "_(" in line or "]" in left else set(NAME.findall(left))
    return found


def _tensor(a: Seen, b: Seen, limit: float, whole: bool, loose: bool) -> str | None:
    if a.dtype != b.dtype:
        return f"dtype {a.dtype} and {b.dtype}"
    if a.shape != b.shape:
        return f"shape {a.shape} and {b.shape}"
    if not _close(a.values, b.values, limit):
        return f"values {_short(a.values)} and {_short(b.values)}"
    if a.requires_grad != b.requires_grad and not loose:
        return f"requires_grad {a.requires_grad} and {b.requires_grad}"
    if a.is_leaf != b.is_leaf and not loose:
        return f"is_leaf {a.is_leaf} and {b.is_leaf}"
    if not whole or loose:
        return None
    if (a.grad is None) != (b.grad is None):
        return f"grad {_of(a.grad)} and {_of(b.grad)}"
    if a.grad is not None and b.grad is not None:
        found = _tensor(a.grad, b.grad, limit, whole, loose)
        return found and f"grad: {found}"
    return None


def _close(a: np.ndarray, b: np.ndarray, limit: float) -> bool:
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(np.where(finite, 0, a), np.where(finite, 0, b), equal_nan=True):
        return False
    a, b = a[finite], b[finite]
    scale = max(1.0, np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    return bool((np.abs(a - b) <= limit * scale).all())


def _short(values: np.ndarray) -> str:
    return np.array2string(values, threshold=24, precision=6).replace("\n", "")


def _of(x: Seen | None) -> str:
    return "None" if x is None else _short(x.values)
