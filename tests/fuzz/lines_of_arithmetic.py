"""Lines that compute: leaves, elementwise functions, reductions, products, sorting, modules' functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.builder import Builder, broadcasts, fits_into, is_bool

EXACT = ("neg", "clone", "contiguous", "positive", "square", "detach", "conj")
KINKS = (
    "abs", "sign", "relu", "floor", "ceil", "trunc", "frac", "round",
    "F.hardtanh", "F.relu6", "F.leaky_relu",
)  # fmt: skip
SMOOTH = (
    "exp", "tanh", "sigmoid", "sin", "cos", "atan", "expm1", "erf", "asinh", "sinh", "cosh", "exp2", "erfc",
    "F.silu", "F.gelu", "F.softplus", "F.logsigmoid", "F.mish", "F.tanhshrink", "F.softsign",
)  # fmt: skip
POSITIVE = ("sqrt", "rsqrt", "log", "log2", "log10", "log1p", "reciprocal", "lgamma", "digamma")
PREDICATES = ("isnan", "isfinite", "isinf", "logical_not", "signbit")


def leaf(b: Builder) -> None:
    """A new tensor of quarters, maybe one that wants a gradient."""
    dtype = b.dtype()
    grad = ", grad=True" if "float" in dtype and b.chance(55) else ""
    given = f", {dtype!r}" if dtype != "float32" else ""
    b.define(f"make({b.choose(50)}, {b.shape()}{given}{grad})")


def factory(b: Builder) -> None:
    """A tensor of constants."""
    x = b.pick()
    text = b.one((
        f"T.zeros_like({x})", f"T.ones_like({x})", f"T.full_like({x}, {b.number()})", f"{x}.new_zeros(2, 3)",
        f"{x}.new_full((3,), {b.number()})", f"T.zeros_like({x}, dtype=T.float32)",
    ))  # fmt: skip
    if "full" in text and not b[x].is_floating_point():  # a number that does not fit is an error in one of two ways
        return
    b.define(text)


def _call(name: str, x: str) -> str:
    return f"{name}({x})" if name.startswith("F.") else f"{x}.{name}()"


def unary(b: Builder) -> None:
    """An elementwise function of one tensor: of each kind those it is defined for, of numbers that stay small."""
    kind = b.choose(5)
    if kind == 0:
        x, names = b.pick(b.tame), EXACT
        if x and is_bool(b[x]):
            names = ("clone", "contiguous", "detach")
    elif kind == 1:
        x, names = b.floating(b.tame, exact=True), KINKS
    elif kind == 2:
        x, names = b.pick(exact=True), PREDICATES
    elif kind == 3:
        x, names = b.floating(lambda t: _between(t, 0.125, 64)), POSITIVE
    else:
        x = b.floating(lambda t: _between(t, -8, 8)) if b.choose(4) else b.pick(b.tame)
        names = SMOOTH if x and b[x].is_floating_point() else SMOOTH[:10]
    if x:
        name = b.one(names)
        b.define(_call(name, x), exact=kind < 3 and not name.startswith("F."))


def _between(x: Any, low: float, high: float) -> bool:
    v = x.detach().double().numpy()
    return bool((v >= low).all() and (v <= high).all())


def _number(text: str) -> bool:
    return not text.startswith("v")


def binary(b: Builder) -> None:
    """An elementwise function of two tensors, or of a tensor and a number."""
    x = b.pick(b.tame)
    if x is None:
        return
    y = b.number(str(b[x].dtype).rpartition(".")[2]) if b.choose(3) == 0 else b.partner(x, fits=b.tame)
    if y is None:
        return
    kind = b.choose(10)
    masks = is_bool(b[x]) or (y in ("True", "False") if _number(y) else is_bool(b[y]))  # which cannot be subtracted
    floats = b[x].is_floating_point() and (_number(y) or b[y].is_floating_point())
    if kind < 6:
        sign = b.one(("+", "*") if masks else ("+", "-", "*"))
        left, right = (x, y) if b.choose(4) else (y, x)
        b.define(f"{left} {sign} {right}")
    elif kind == 6 and not _number(y) and not (is_bool(b[x]) and is_bool(b[y])):
        b.define(f"T.{'add' if masks else b.one(('add', 'sub'))}({x}, {y}, alpha={b.one((2, -1, 3))})")
    elif kind == 7 and not _number(y) and _apart_from_zero(b, y):
        b.define(f"{x} / {y}", exact=False)
    elif kind == 7 and floats and y not in ("0", "True", "False"):
        b.define(f"{x} / {y}", exact=y in ("2", "-1", "0.5", "1"))
    elif kind == 8 and floats:
        b.define(f"{x} ** {b.one(('2', '3', '1', '0'))}")
    elif kind == 9 and not _number(y) and floats and _apart_from_zero(b, x) and _apart_from_zero(b, y):
        b.define(f"T.{b.one(('atan2', 'hypot', 'logaddexp'))}({x}, {y})", exact=False)


def _apart_from_zero(b: Builder, name: str) -> bool:
    return bool((np.abs(b.values(name)) >= 0.125).all())


def jumpy(b: Builder) -> None:
    """What jumps: comparisons, extrema, division to integers; of exact tensors."""
    x = b.pick(b.tame, exact=True)
    if x is None:
        return
    y = b.partner(x, exact=True, fits=b.tame)
    if y is None:
        return
    kind = b.choose(6)
    if kind < 2:
        b.define(f"{x} {b.one(('<', '<=', '>', '>=', '==', '!='))} {y if b.choose(3) else b.number()}")
    elif kind == 2:
        b.define(f"T.{b.one(('maximum', 'minimum'))}({x}, {y})")
    elif kind == 3:
        if not (is_bool(b[x]) or is_bool(b[y])) and _apart_from_zero(b, y):
            # + 0: the sign of a remainder that is zero is each library's own
            b.define(f"T.{b.one(('remainder', 'fmod'))}({x}.detach(), {y}.detach()) + 0")
    elif kind == 4:
        b.define(f"T.logical_{b.one(('and', 'or', 'xor'))}({x}, {y})")
    else:
        z = b.pick(lambda t: is_bool(t) and broadcasts(tuple(t.shape), tuple(b[x].shape)), exact=True)
        if z:
            b.define(f"T.where({z}, {x}, {y if b.choose(3) else b.number()})")


def several(b: Builder) -> None:
    """Elementwise functions of three tensors, or with limits."""
    x = b.floating(b.tame)
    if x is None:
        return
    kind = b.choose(5)
    same = str(b[x].dtype)
    y = b.partner(x, fits=lambda t: str(t.dtype) == same and b.tame(t))
    z = b.partner(x, fits=lambda t: str(t.dtype) == same and b.tame(t))
    if y is None or z is None:
        return
    if kind == 0 and b.exact[x]:
        low, high = b.one((("-1", "1"), ("None", "0.5"), ("-0.25", "None"), ("0", "0")))
        b.define(f"{x}.clamp({low}, {high})")
    elif kind == 1:
        b.define(f"T.lerp({x}, {y}, {b.one(('0.5', '0.25', '2.0'))})")
    elif kind == 2:
        b.define(f"T.addcmul({x}, {y}, {z}, value={b.one((1, 2, -1))})")
    elif kind == 3 and _apart_from_zero(b, z):
        b.define(f"T.addcdiv({x}, {y}, {z}, value=0.5)", exact=False)
    elif kind == 4:
        mask = b.pick(lambda t: is_bool(t) and fits_into(tuple(t.shape), tuple(b[x].shape)), exact=True)
        if mask:
            b.define(f"{x}.masked_fill({mask}, {b.number()})")


def reduction(b: Builder) -> None:
    """A reduction over all, one or several dimensions."""
    x = b.pick(b.tame)
    if x is None:
        return
    keep = b.one(("", ", keepdim=True"))
    kind = b.choose(10)
    t = b[x]
    dims = b.dims(t)
    if kind < 3:
        b.define(f"{x}.sum()" if kind == 0 else f"{x}.sum({dims}{keep})")
    elif kind == 3 and t.is_floating_point():
        b.define(f"{x}.mean()" if b.choose(2) else f"{x}.mean({dims}{keep})", exact=False)
    elif kind == 4 and b.exact[x]:
        b.define(f"{x}.{b.one(('amax', 'amin'))}({dims}{keep})")
    elif kind == 5 and b.exact[x]:
        dim = b.dim(t)
        name = b.one(("max", "min"))
        if _distinct(t):
            b.define(f"{x}.{name}({dim}{keep})", results=2)
    elif kind == 6 and b.exact[x] and not is_bool(t):
        if _distinct(t):
            b.define(f"{x}.{b.one(('argmax', 'argmin'))}({b.dim(t)}{keep})")
    elif kind == 7 and b.exact[x]:
        b.define(f"{x}.{b.one(('any', 'all'))}({b.dim(t)}{keep})")
    elif kind == 8 and t.is_floating_point() and b.small(x, limit=8) and _spread(t):
        text = b.one((f"{x}.var({b.dim(t)})", f"{x}.std()", f"{x}.logsumexp({b.dim(t)}{keep})", f"{x}.norm()",
                      f"T.linalg.vector_norm({x}, 2, {b.dim(t)})", f"{x}.var(unbiased=False)"))  # fmt: skip
        b.define(text, exact=False)
    elif kind == 9 and t.is_floating_point() and b.small(x, limit=2) and _apart_from_zero(b, x):
        b.define(f"{x}.prod({b.dim(t)}{keep})", exact=False)


def _distinct(x: Any) -> bool:
    v = x.detach().double().numpy().reshape(-1)
    return len(np.unique(v)) == len(v)


def _spread(x: Any) -> bool:
    """Whether no norm or variance of a part is near zero, where derivatives are infinite."""
    return _distinct(x) and x.numel() > 1 and all(n > 1 for n in x.shape)


def order(b: Builder) -> None:
    """Scans and sorting."""
    x = b.pick(b.tame, exact=True)
    if x is None:
        return
    dim = b.dim(b[x])
    kind = b.choose(5)
    if kind == 0:
        b.define(f"{x}.cumsum({dim})")
    elif kind == 1 and b.small(x, limit=2):
        b.define(f"{x}.cumprod({dim})", exact=False)
    elif b[x].numel() and _distinct(b[x]) and not is_bool(b[x]):
        if kind == 2:
            b.define(f"{x}.sort({dim}{b.one(('', ', descending=True'))})", results=2)
        elif kind == 3:
            b.define(f"{x}.topk({b.one((1, 2))}, {dim})", results=2)
        else:
            b.define(f"{x}.{b.one(('cummax', 'cummin'))}({dim})", results=2)


def product(b: Builder) -> None:
    """Products of matrices and vectors."""
    x = b.floating(b.tame)
    if x is None:
        return
    t = b[x]
    same = str(t.dtype)

    def meets(y: Any) -> bool:
        if str(y.dtype) != same or not y.ndim or not t.ndim or not b.tame(y):
            return False
        inner = y.shape[-2] if y.ndim > 1 else y.shape[0]
        return t.shape[-1] == inner and broadcasts(tuple(t.shape[:-2]), tuple(y.shape[:-2]))

    y = b.floating(meets) if b.choose(15) else b.floating(lambda y: str(y.dtype) == same)
    if y is None:
        y = x
        form = f"{x} @ {x}.mT" if t.ndim > 1 else f"{x} @ {x}"
        if t.ndim:
            b.define(form, exact=False)
        return
    kind = b.choose(4)
    u = b[y]
    if kind == 1 and t.ndim == u.ndim == 2:
        b.define(f"T.einsum('ij,jk->{b.one(('ik', 'ki', 'i', ''))}', {x}, {y})", exact=False)
    elif kind == 2 and t.ndim == u.ndim == 1:
        b.define(f"T.outer({x}, {y})", exact=False)
    elif kind == 3 and t.ndim and u.ndim == 2:
        b.define(f"F.linear({x}, {y}.mT)", exact=False)
    else:
        b.define(f"{x} @ {y}", exact=False)


def function(b: Builder) -> None:
    """A function of modules: softmax, norms, losses, padding, pooling."""
    x = b.floating(lambda t: t.ndim > 0 and b.tame(t))
    if x is None:
        return
    t = b[x]
    kind = b.choose(7)
    if kind < 2:
        b.define(f"F.{b.one(('softmax', 'log_softmax'))}({x}, {b.dim(t)})", exact=False)
    elif kind == 2 and t.shape[-1] > 1:
        b.define(f"F.layer_norm({x}, ({t.shape[-1]},))", exact=False)
    elif kind == 3:
        y = b.partner(x, fits=lambda u: u.dtype == t.dtype and u.shape == t.shape)
        if y:
            how = b.one(("", ", reduction='sum'", ", reduction='none'"))
            b.define(f"F.mse_loss({x}, {y}{how})", exact=False)
    elif kind == 4:
        b.define(f"F.pad({x}, ({b.choose(2)}, {b.choose(3)}), value={b.number()})")
    elif kind == 5 and t.ndim == 3 and t.shape[-1] > 1 and b.exact[x] and _distinct(t):
        b.define(f"F.max_pool1d({x}, 2, 1)")
    elif kind == 6 and t.ndim == 2 and all(t.shape):
        classes = "index([" + ", ".join(str(b.choose(t.shape[1])) for _ in range(t.shape[0])) + "])"
        b.define(f"F.cross_entropy({x}, {classes})", exact=False)


KINDS: dict[Callable[[Builder], None], int] = {
    leaf: 3, factory: 2, unary: 8, binary: 10, jumpy: 5, several: 4, reduction: 7, order: 3, product: 4, function: 4,
}  # fmt: skip
