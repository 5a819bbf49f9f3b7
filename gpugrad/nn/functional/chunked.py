"""A linear layer over many classes and its cross-entropy, done for some rows at a time.

A language model's logits, ``[positions, words]``, are by far its largest tensor, and the loss needs of each row one
number. Here they are made for as many rows as fit into ``CHUNK`` elements, used and dropped, forward and backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from gpugrad import autograd, dtypes
from gpugrad.autograd import Function
from gpugrad.autograd.modes import mode
from gpugrad.nn.functional.linear import linear
from gpugrad.nn.functional.loss import cross_entropy
from gpugrad.nn.functional.shapes import check_reduction
from gpugrad.ops import autocast
from gpugrad.ops.elementwise import where
from gpugrad.ops.fused import through_plain
from gpugrad.ops.joining import cat
from gpugrad.tensor import Tensor

_cast_cross_entropy = autocast.listed("cross_entropy", cross_entropy)
#: logits at a time: 64 MiB in float32, and the same again for their gradient; but at least the rows that products need:
#: 128 rows of 16,384 classes at a time take 1.17 of the time of all at once, 256 rows 1.03, 512 rows 1.02
CHUNK = 1 << 24
LEAST = 256


class _Options(NamedTuple):
    """What the loss of a row depends on besides the tensors, and how many rows are done at a time."""

    reduction: str
    ignore_index: int
    label_smoothing: float
    rows: int

    def of_logits(self, logits: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        if logits.dtype.itemsize < 4:  # the loss in float32: a sum of a few hundred rows is too much for half types
            logits = logits.to(dtypes.float32)
        return cross_entropy(
            logits,
            target,
            weight if weight is None else weight.to(logits.dtype),
            ignore_index=self.ignore_index,
            reduction=reduction,
            label_smoothing=self.label_smoothing,
        )


def _plain(
    x: Tensor, w: Tensor, b: Tensor | None, *, target: Tensor, weight: Tensor | None, options: _Options
) -> Tensor:
    return options.of_logits(linear(x, w, b), target, weight, options.reduction)


def _share(x: Tensor, target: Tensor, weight: Tensor | None, options: _Options) -> Any:
    """What the mean divides by: the number of rows, or the weights of those that count, as a tensor."""
    if target.dim() == 2:
        return target.shape[0]
    dtype = x.dtype if x.dtype.itemsize >= 4 else dtypes.float32
    used = target != options.ignore_index
    if weight is None:
        return used.sum().to(dtype)
    own = weight.to(dtype).index_select(0, where(used, target, 0).reshape(-1), "linear_cross_entropy")
    return where(used, own, 0.0).sum()


def _parts(rows: int, size: int) -> Iterator[slice]:
    """Parts of nearly equal size, of at most ``size`` rows."""
    count = -(-rows // size)
    step = -(-rows // count)
    return (slice(i, min(i + step, rows)) for i in range(0, rows, step))


def _gradients(
    leaves: tuple[Tensor | None, ...],
    target: Tensor,
    weight: Tensor | None,
    needed: Any,
    gradient: Any,
    options: _Options,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """The losses of the parts, and the gradients of x, w and b where ``needed``. ``gradient``: that of all rows,
    ``[]``, or that of each, ``[rows]``; what the parts add to w and b is summed in float32 or wider."""
    x, *rest = leaves
    assert x is not None
    losses: list[Tensor] = []
    for_x: list[Tensor] = []
    sums: list[Tensor | None] = [None, None]
    each = gradient.dim() == 1
    for part in _parts(x.shape[0], options.rows):
        own: list[Any] = [x[part].detach(), *(None if t is None else t.detach() for t in rest)]
        wanted = [t.requires_grad_() for t, n in zip(own, needed, strict=True) if n and t is not None]
        with autograd.enable_grad():
            loss = options.of_logits(linear(*own), target[part], weight, "none" if each else "sum")
        losses.append(loss.detach())
        found = iter(autograd.grad([loss], wanted, [gradient[part] if each else gradient.to(loss.dtype)]))
        if needed[0]:
            for_x.append(next(found))
        for i, n in enumerate(needed[1:]):
            if n:
                more, total = next(found), sums[i]
                if total is None:
                    sums[i] = more.to(dtypes.float32) if more.dtype.itemsize < 4 else more
                else:
                    total.add_(more)
        del loss
    made = [cat(for_x) if needed[0] else None, *sums]
    return losses, [None if g is None or t is None else g.to(t.dtype) for g, t in zip(made, leaves, strict=True)]


class _LinearCrossEntropy(Function):
    """Where the loss is one number, the gradients are made with it, so that each part of the logits is made once; where
    it is one for each row, the logits are made again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, target: Tensor, weight: Tensor | None, options: _Options
    ) -> Tensor:
        ctx.target, ctx.weight, ctx.options = target, weight, options
        ctx.save_for_backward(x, w, b)
        ctx.needed = needed = ctx.needs_input_grad[:3]
        single = options.reduction != "none"
        share = _share(x, target, weight, options) if options.reduction == "mean" else None
        if single and any(needed):
            unit = x.new_ones((), dtype=x.dtype if x.dtype.itemsize >= 4 else dtypes.float32)
            unit = unit if share is None else unit / share
            losses, ctx.gradients = _gradients((x, w, b), target, weight, needed, unit, options)
        else:
            losses = [
                options.of_logits(linear(x[part], w, b), target[part], weight, "sum" if single else "none")
                for part in _parts(x.shape[0], options.rows)
            ]
        if not single:
            return cat(losses)
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return total if share is None else total / share

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        leaves = ctx.saved_tensors
        if mode.enabled:
            options = {"target": ctx.target, "weight": ctx.weight, "options": ctx.options}
            return *through_plain(_plain, g, leaves, ctx.needed, **options), None, None, None
        if ctx.options.reduction == "none":
            found = _gradients(leaves, ctx.target, ctx.weight, ctx.needed, g, ctx.options)[1]
        else:
            found = [None if d is None else (d * g).to(d.dtype) for d in ctx.gradients]
        return *found, None, None, None


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """``cross_entropy(linear(input, linear_weight, linear_bias), target)``: ``[n, f]``, ``[c, f]`` and ``[n]``
    (classes) or ``[n, c]`` (probabilities); with further dimensions ``[c, *, f]`` (bias ``[c, *]``) and ``[n, *]``.

    Without further dimensions, where there are more than ``CHUNK`` (16.8 million) logits in more than 256 rows, or
    with ``options.batch_chunk_size`` rows where that is given, they are made for some rows at a time and never held
    all at once, nor are their probabilities, forward or backward. What differs from the plain definition is in which
    order the gradients of weight and bias are summed up. Half types: logits of that type, loss in float32. Second
    derivatives go through the plain definition.

    Raises as :func:`linear` and :func:`cross_entropy` do."""
    if input.dim() not in (1, 2) or linear_weight.dim() < 2 or (input.dim() == 1 and linear_weight.dim() > 2):
        raise RuntimeError(
            f"linear_cross_entropy: expected input [n, f] and linear_weight [c, *, f], or [f] and [c, f], got shapes "
            f"{tuple(input.shape)} and {tuple(linear_weight.shape)}"
        )
    ignore = -100 if ignore_index is None else ignore_index
    check_reduction(reduction, "linear_cross_entropy")
    rows = _rows_at_a_time(input, linear_weight, target, linear_bias, weight, options)
    if rows:
        chosen = _Options(reduction, ignore, label_smoothing, rows)
        # Under autocast the product is of the lower precision, and the loss in float32.
        narrow = not (mode.autocast and input._backend.name in autocast.state.enabled)
        loss = _chunked(input, linear_weight, linear_bias, lambda: (target, weight, chosen))
        return loss.to(input.dtype) if narrow else loss
    sizes = linear_weight.shape[:-1]
    if len(sizes) == 1:
        logits = linear(input, linear_weight, linear_bias)
    else:
        bias = None if linear_bias is None else linear_bias.reshape(-1)
        logits = linear(input, linear_weight.flatten(0, -2), bias).unflatten(-1, sizes)
    return _cast_cross_entropy(
        logits, target, weight=weight, ignore_index=ignore, reduction=reduction, label_smoothing=label_smoothing
    )


@autocast.listed("linear")
def _chunked(x: Tensor, w: Tensor, b: Tensor | None, others: Any) -> Tensor:
    return _LinearCrossEntropy.apply(x, w, b, *others())


def _rows_at_a_time(
    input: Tensor, w: Tensor, target: Tensor, b: Tensor | None, weight: Tensor | None, options: Any
) -> int:
    """How many rows are done at a time, 0 for all of them: also where shapes do not fit, for the plain definition to
    say so, and where targets or class weights want gradients."""
    if input.dim() != 2 or w.dim() != 2 or input.shape[1] != w.shape[1] or not input.is_floating_point():
        return 0
    n, classes = input.shape[0], w.shape[0]
    fits = tuple(target.shape) in ((n,), (n, classes)) and (target.dim() == 2) == target.is_floating_point()
    if not fits or any(t is not None and t.requires_grad for t in (target, weight)):
        return 0
    if any(t is not None and t._backend is not input._backend for t in (w, b, target, weight)):
        return 0
    rows = getattr(options, "batch_chunk_size", None) or max(CHUNK // max(classes, 1), LEAST)
    return rows if 0 < rows < n and classes else 0
