"""Lines that move elements about: views, indexing, joining, casts; and lines that write in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.builder import FLOATS, INTEGERS, Builder, broadcasts, fits_into, is_bool


def _split_shape(b: Builder, count: int) -> tuple[int, ...]:
    """A shape of so many elements."""
    options = [(count,), (1, count), (count, 1), (-1,)]
    for k in (2, 3, 4):
        if count and count % k == 0:
            options += [(k, count // k), (count // k, k), (k, -1)]
            if (count // k) % 2 == 0:
                options.append((2, k, count // k // 2))
    return b.one(options)


def view(b: Builder) -> None:
    """A view of a tensor (``reshape`` and the like: a view or a copy)."""
    x = b.pick()
    if x is None:
        return
    t = b[x]
    n = t.ndim
    kind = b.choose(16)
    if kind == 0:
        b.define(f"{x}.reshape({_split_shape(b, t.numel())})")
    elif kind == 1:
        b.define(f"{x}.view({_split_shape(b, t.numel())})")
    elif kind == 2 and n > 1:
        b.define(f"{x}.transpose({b.dim(t)}, {b.dim(t)})")
    elif kind == 3 and n > 1:
        order = list(range(n))
        first = b.choose(n)
        b.define(f"{x}.permute({tuple(order[first:] + order[:first][::-1])})")
    elif kind == 4:
        target = tuple(m if m != 1 else b.one((1, 2, 3)) for m in t.shape)
        lead = b.one(((), (2,), (1,)))
        b.define(f"{x}.expand({(*lead, *target)})")
    elif kind == 5:
        b.define(b.one((f"{x}.squeeze()", f"{x}.squeeze({b.dim(t)})", f"{x}.unsqueeze({b.choose(n + 1)})",
                        f"{x}.unsqueeze(-1)")))  # fmt: skip
    elif kind == 6 and n:
        d = b.choose(n)
        start = b.choose(max(1, t.shape[d]))
        b.define(f"{x}.narrow({d}, {start}, {b.choose(t.shape[d] - start + 1)})")
    elif kind == 7 and n:
        d = b.choose(n)
        b.define(f"{x}.select({d}, {b.choose(max(1, t.shape[d])) - b.choose(2) * t.shape[d]})")
    elif kind == 8 and n > 1:
        b.define(f"{x}.diagonal({b.choose(3) - 1})")
    elif kind == 9:
        b.define(b.one((f"{x}.flatten()", f"{x}.ravel()", f"{x}.view_as({x})", f"{x}.reshape(-1)", f"{x}[...]",
                        f"{x}.view({x}.shape)", f"{x}.expand_as({x})", f"T.atleast_2d({x})")))  # fmt: skip
    elif kind == 10 and n > 1:
        b.define(b.one((f"{x}.mT", f"{x}.swapaxes(0, -1)", f"{x}.movedim(0, -1)", f"T.flatten({x}, 0, 1)")))
    elif kind == 11 and n:
        d = b.choose(n)
        size = t.shape[d]
        if size >= 2:
            first = 1 + b.choose(size - 1)
            b.define(f"{x}.split([{first}, {size - first}], {d})", results=2)
    elif kind == 12 and n:
        d = b.choose(n)
        if t.shape[d] == 2:
            b.define(f"{x}.unbind({d})", results=2)
        elif t.shape[d] > 2:
            b.define(f"{x}.chunk(2, {d})", results=2)
    elif kind == 13 and n:
        d = b.choose(n)
        if t.shape[d] >= 2:
            b.define(f"{x}.unfold({d}, 2, {b.one((1, 2))})")
    elif kind == 14:
        if b.choose(2):
            b.define(f"{x}.detach()")
        elif b.define(f"{x}.data"):
            b.exact.pop(f"v{b.count - 1}")  # what is written through it goes unnoticed: lines_of_graphs.leave does so
    elif kind == 15 and t.is_contiguous() and t.numel() >= 2 and n:
        b.define(f"{x}.as_strided(({t.numel() // 2}, 2), (2, 1))")


def _basic(b: Builder, x: Any) -> str:
    """What stands in brackets: integers, slices, None and an ellipsis."""
    parts = []
    for size in x.shape:
        k = b.choose(8)
        if k < 3:
            parts.append(b.one((":", "1:", ":-1", "::2", ":2")))
        elif k < 5 and size:
            parts.append(str(b.choose(size) - b.choose(2) * size))
        elif k == 5:
            parts.append("None")
        elif k == 6:
            parts.append("...")
            break
        else:
            break
    return ", ".join(parts) or "..."


def _numbers(b: Builder, size: int, count: int) -> list[int]:
    return [b.choose(size) - b.choose(2) * size for _ in range(count)]


def _index(b: Builder, x: Any) -> str | None:
    """An index of any kind: basic, by tensors, by masks."""
    kind = b.choose(6)
    if kind < 2 or not x.ndim:
        return _basic(b, x)
    if kind == 2:
        mask = b.pick(lambda m: is_bool(m) and tuple(m.shape) == tuple(x.shape)[: m.ndim], exact=True)
        if mask:
            return mask
    if not all(x.shape):
        return "..."
    first = f"index({_numbers(b, x.shape[0], 2)})"
    if kind == 3:
        return first
    if kind == 4 and x.ndim > 1:
        return b.one((f":, index({_numbers(b, x.shape[1], 2)})", f"{first}, index({_numbers(b, x.shape[1], 2)})",
                      f"{first}, 0", f"0, index({_numbers(b, x.shape[1], 2)})", f"{first}, 1:",
                      f"index([{_numbers(b, x.shape[0], 1)}, [0]]), index({_numbers(b, x.shape[1], 2)})",
                      f"..., index({_numbers(b, x.shape[-1], 2)})", f"{first}, None, :1"))  # fmt: skip
    return f"{_numbers(b, x.shape[0], 2)}"


def indexing(b: Builder) -> None:
    """A part of a tensor, by brackets or by a function."""
    x = b.pick()
    if x is None:
        return
    t = b[x]
    if b.choose(3) or not t.ndim or not all(t.shape):
        b.define(f"{x}[{_index(b, t)}]")
        return
    d = b.choose(t.ndim)
    numbers = [n % t.shape[d] for n in _numbers(b, t.shape[d], 2)]
    kind = b.choose(7)
    if kind == 0:
        b.define(f"{x}.index_select({d}, index({numbers}))")
    elif kind == 1:
        shape = [1] * t.ndim
        nested: Any = numbers
        for _ in range(d):
            nested = [nested]
        nested = np.asarray(numbers).reshape([2 if i == d else 1 for i in range(len(shape))]).tolist()
        b.define(f"T.gather({x}, {d}, index({nested}))")
    elif kind == 2:
        b.define(f"T.take({x}, index({_numbers(b, t.numel(), 3)}))")
    elif kind == 3:
        mask = b.pick(lambda m: is_bool(m) and broadcasts(tuple(m.shape), tuple(t.shape)), exact=True)
        if mask:
            b.define(f"T.masked_select({x}, {mask})")
    elif kind == 4:
        b.define(f"{x}.flip({d})")
    elif kind == 5:
        b.define(f"{x}.roll({b.choose(3)}, {d})")
    else:
        b.define(f"{x}.repeat_interleave(2, {d})")


def joining(b: Builder) -> None:
    """Several tensors into one."""
    x = b.pick()
    if x is None:
        return
    shape = tuple(b[x].shape)
    y = b.pick(lambda t: tuple(t.shape) == shape) or x
    d = b.dim(b[x])
    b.define(b.one((f"T.cat([{x}, {y}], {d})", f"T.stack([{x}, {y}], {d})", f"T.cat([{x}, {y}, {x}], {d})",
                    f"T.hstack([{x}, {y}])", f"T.vstack([{x}, {y}])")))  # fmt: skip


def cast(b: Builder) -> None:
    """Another dtype."""
    x = b.pick(b.tame, exact=True)
    if x is None:
        return
    values = b.values(x)
    options = ["float32", "bool"] if b.narrow else [*FLOATS, "bool"]
    if (values >= 0).all() or b.narrow:
        options += ["int64"] if b.narrow else list(INTEGERS)
    else:
        options += ["int64", "int32"]
    dtype = b.one(options)
    if dtype == "uint8" and not (values >= 0).all():
        return
    b.define(b.one((f"{x}.to(T.{dtype})", f"{x}.type(T.{dtype})")))


# -- in place --------------------------------------------------------------------------


def _target(b: Builder, fits: Callable[[Any], Any] | None = None, exact: bool = False) -> str | None:
    """A variable to write to: seldom a leaf that wants a gradient, which may not be written to."""
    leaves = not b.choose(12)

    def good(x: Any) -> bool:
        return (
            (leaves or not (x.is_leaf and x.requires_grad))
            and b.tame(x)
            and b.writable(x)
            and (fits is None or fits(x))
        )

    return b.pick(good, exact=exact)


IN_PLACE = ("exp_", "tanh_", "sigmoid_", "sin_", "neg_", "square_", "zero_", "relu_", "abs_")


def unary_in_place(b: Builder) -> None:
    """An elementwise function in place."""
    x = _target(b, lambda t: t.is_floating_point() and (np.abs(t.detach().double().numpy()) <= 4).all())
    if x is None:
        return
    name = b.one(IN_PLACE if b.exact[x] else IN_PLACE[:7])
    exact = name in ("neg_", "square_", "zero_", "relu_", "abs_")
    b.change(b.one((f"{x}.{name}()", f"v{b.count} = {x}.{name}()")), x, exact=exact)
    _named(b, x)


def _named(b: Builder, x: str) -> None:
    """Take note of the name that the last line may have given to the tensor it changed."""
    name = f"v{b.count}"
    if name in b.runner.names:
        b.count += 1
        if x in b.exact:
            b.exact[name] = b.exact[x]


def binary_in_place(b: Builder) -> None:
    """Arithmetic in place, with a tensor (maybe one that shares the memory) or a number."""
    x = _target(b)
    if x is None:
        return
    t = b[x]
    shape = tuple(t.shape)
    if b.choose(3) == 0:
        y: str | None = b.number(str(t.dtype).rpartition(".")[2])
    elif not b.choose(20):
        y = b.pick(b.tame)
    else:
        y = b.pick(lambda u: fits_into(tuple(u.shape), shape) and b.tame(u) and
                   u.dtype.category <= t.dtype.category)  # fmt: skip
    if y is None or _overlap(b, x, y):
        return
    if is_bool(t) and (not y.startswith("v") or not is_bool(b[y])):
        return
    signs = ("+", "*") if is_bool(t) or (y.startswith("v") and is_bool(b[y])) else ("+", "-", "*")
    sign = b.one(signs)
    name = {"+": "add_", "-": "sub_", "*": "mul_"}[sign]
    if b.choose(3):
        b.change(f"{x}.{name}({y})", x)
    else:
        b.change(f"{x} {sign}= {y}", x)


def _overlap(b: Builder, x: str, y: str) -> bool:
    """Whether two different tensors share memory: PyTorch refuses to write the one from the other where they overlap in
    part, and does as it comes where they lie crosswise."""
    if not y.startswith("v") or x == y:
        return False
    a, c = b[x], b[y]
    if b.runner.memory(a) is None or b.runner.memory(a) != b.runner.memory(c):
        return False
    return True


def assign(b: Builder) -> None:
    """Assignment to a part of a tensor."""
    x = _target(b)
    if x is None:
        return
    t = b[x]
    where = _index(b, t)
    plain = t.detach()
    try:
        part = eval(f"x[{where}]", {**b.runner.names, "x": plain})
    except Exception:  # of the index: the line is run all the same, and raises
        part = plain
    shape = tuple(part.shape)
    dtype = str(t.dtype).rpartition(".")[2]
    y = b.number(dtype)
    if b.choose(2):
        y = b.pick(lambda u: fits_into(tuple(u.shape), shape) and u.dtype == t.dtype) or y
    if _overlap(b, x, y) or x == y or _repeats(where) or (dtype in ("bool", *INTEGERS) and not y.startswith("v")):
        return
    form = b.choose(4)
    if form == 0 and "index" in (where or "") and y.startswith("v") and ":" not in where and "." not in where:
        b.change(f"{x}.index_put_(({where},), {y}, accumulate=True)", x)
    elif form == 1 and y.startswith("v") and dtype in FLOATS and t.numel():
        b.change(f"{x}[{where}] {b.one(('+', '*'))}= {y}", x)
    else:
        b.change(f"{x}[{where}] = {y}", x)


def _repeats(where: str | None) -> bool:
    """Whether an index may name an element twice: which of two values stays is open."""
    return where is not None and ("index" in where or where.startswith("["))


def fill(b: Builder) -> None:
    """Constants, copies and masks in place."""
    x = _target(b)
    if x is None:
        return
    t = b[x]
    shape = tuple(t.shape)
    dtype = str(t.dtype).rpartition(".")[2]
    kind = b.choose(7)
    if kind == 0:
        b.change(f"{x}.zero_()", x)
    elif kind == 1 and t.is_floating_point():
        b.change(f"{x}.fill_({b.number(dtype)})", x)
    elif kind == 2:
        y = b.pick(lambda u: fits_into(tuple(u.shape), shape) and (u.dtype == t.dtype or t.is_floating_point()))
        if y and not _overlap(b, x, y) and x != y:
            b.change(f"{x}.copy_({y})", x)
    elif kind == 3 and t.is_floating_point():
        mask = b.pick(lambda m: is_bool(m) and fits_into(tuple(m.shape), shape), exact=True)
        if mask and not _overlap(b, x, mask):
            b.change(f"{x}.masked_fill_({mask}, {b.number()})", x)
    elif kind == 4 and t.is_floating_point() and b.exact[x]:
        b.change(f"{x}.clamp_(-1, 1.5)", x)
    elif kind == 5 and t.is_floating_point():
        y = b.pick(lambda u: u.dtype == t.dtype and tuple(u.shape) == shape and b.tame(u))
        if y and not _overlap(b, x, y) and x != y:
            b.change(b.one((f"{x}.addcmul_({y}, {y})", f"{x}.lerp_({y}, 0.5)")), x)
    elif kind == 6 and t.ndim and all(shape):
        d = b.choose(t.ndim)
        part = tuple(2 if i == d else n for i, n in enumerate(shape))
        y = b.pick(lambda u: u.dtype == t.dtype and tuple(u.shape) == part and b.tame(u))
        if y and not _overlap(b, x, y):
            numbers = [n % shape[d] for n in _numbers(b, shape[d], 2)]
            b.change(f"{x}.index_add_({d}, index({numbers}), {y})", x)


KINDS: dict[Callable[[Builder], None], int] = {
    view: 14, indexing: 8, joining: 3, cast: 3, unary_in_place: 4, binary_in_place: 7, assign: 6, fill: 5,
}  # fmt: skip
