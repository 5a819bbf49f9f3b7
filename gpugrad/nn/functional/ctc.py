"""Connectionist temporal classification (Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.nn.functional.conv import pad
from gpugrad.nn.functional.shapes import check_reduction, is_half, is_integer, reduced
from gpugrad.ops import creation
from gpugrad.ops.elementwise import logaddexp, where
from gpugrad.tensor import Tensor

# The logarithm of "impossible". A finite number: logaddexp of two infinities has no derivative.
_NEVER = -1e30


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Negative log-probability that ``log_probs`` ``[time, n, classes]`` (or ``[time, classes]``) spell
    ``targets``: integers ``[n, longest]``, or all of them one after the other ``[sum of target_lengths]``.

    The lengths (tensors, or tuples of ints) are per sample; classes equal to ``blank`` and repetitions are left
    out in spelling. ``reduction='mean'`` divides each loss by its target's length, then averages.
    ``zero_infinity``: a target that cannot be spelt counts 0 instead of infinity. The gradient is that with
    respect to the scores under a log_softmax, as PyTorch has it. Forward costs one step per time (Graves' alpha
    recursion). Raises RuntimeError, ValueError."""
    op = "ctc_loss"
    check_reduction(reduction, op)
    if not log_probs.is_floating_point():
        raise RuntimeError(f"{op}: log_probs must be floating, not {log_probs.dtype}")
    if not is_integer(targets):
        raise RuntimeError(f"{op}: targets must be integers, not {targets.dtype}; convert with .long()")
    if log_probs.dim() not in (2, 3):
        raise RuntimeError(f"{op}: expected [time, n, classes] or [time, classes], got {tuple(log_probs.shape)}")
    alone = log_probs.dim() == 2
    scores = log_probs.unsqueeze(1) if alone else log_probs
    scores = scores.float() if is_half(scores) else scores
    time, n, classes = scores.shape
    if not 0 <= blank < classes:
        raise RuntimeError(f"{op}: blank={blank} is not one of the {classes} classes")
    steps = _lengths(op, "input_lengths", input_lengths, n, time)
    spelt = _lengths(op, "target_lengths", target_lengths, n, None)
    labels = _padded_targets(op, targets, spelt, n, alone, blank)
    loss = _forward(scores, labels, steps, spelt, blank, zero_infinity)
    if alone:
        loss = loss.squeeze(0)
    if reduction == "mean":
        divisor = creation.tensor(np.maximum(spelt, 1), device=loss.device).to(dtype=loss.dtype)
        loss = (loss / (divisor.squeeze(0) if alone else divisor)).mean()
    else:
        loss = reduced(loss, reduction, op)
    return loss.to(dtype=log_probs.dtype)


def _lengths(op: str, name: str, value: Any, n: int, most: int | None) -> np.ndarray:
    """Lengths as an int64 ndarray of ``n``: what is computed has a shape that depends on them."""
    if isinstance(value, Tensor):
        if not is_integer(value):
            raise RuntimeError(f"{op}: {name} must hold integers, not {value.dtype}")
        lengths = value.detach().cpu().numpy()
    else:
        lengths = np.asarray(tuple(value) if isinstance(value, Sequence) else value)
    lengths = lengths.reshape(-1).astype(np.int64)
    if lengths.size != n:
        raise RuntimeError(f"{op}: {name} holds {lengths.size} lengths for {n} samples")
    if n and lengths.min() < 0:
        raise RuntimeError(f"{op}: {name} must not be negative, got {int(lengths.min())}")
    if n and most is not None and lengths.max() > most:
        raise RuntimeError(f"{op}: {name} has the value {int(lengths.max())}, more than the {most} times there are")
    return lengths


def _padded_targets(op: str, targets: Tensor, spelt: np.ndarray, n: int, alone: bool, blank: int) -> Tensor:
    """``[n, longest]``, places after a target's end holding ``blank``."""
    longest = int(spelt.max()) if n else 0
    place = np.arange(longest)
    if targets.dim() == 1 and not alone:
        if targets.shape[0] != spelt.sum():
            raise RuntimeError(
                f"{op}: 1-d targets have {targets.shape[0]} elements, target_lengths add up to {int(spelt.sum())}"
            )
        flat = np.concatenate([[0], np.cumsum(spelt)[:-1]])[:, None] + place
    elif targets.dim() == (1 if alone else 2) and (alone or targets.shape[0] == n):
        width = targets.shape[-1]
        if longest > width:
            raise RuntimeError(
                f"{op}: target_lengths has the value {longest}, targets {tuple(targets.shape)} are shorter"
            )
        flat = np.arange(n)[:, None] * width + place
    else:
        raise RuntimeError(
            f"{op}: targets of shape {tuple(targets.shape)} must be [n, longest] for n={n} samples, or 1-d with all "
            "targets one after the other"
        )
    inside = place < spelt[:, None]
    if not inside.any():
        return creation.full((n, longest), blank, dtype=dtypes.int64, device=targets.device)
    index = creation.tensor(np.where(inside, flat, 0).reshape(-1), device=targets.device)
    labels = targets.to(dtype=dtypes.int64).reshape(-1).index_select(0, index).reshape(n, longest)
    return where(creation.tensor(inside, device=targets.device), labels, blank)


def _forward(
    scores: Tensor, labels: Tensor, steps: np.ndarray, spelt: np.ndarray, blank: int, zero_infinity: bool
) -> Tensor:
    """-log of the sum over all spellings, ``[n]``: states are blank, first label, blank, second, ..., blank."""
    time, n, _ = scores.shape
    longest = labels.shape[1]
    device, dtype = scores.device, scores.dtype
    states = 2 * longest + 1
    blanks = creation.full((n, longest + 1), blank, dtype=dtypes.int64, device=device)
    labels = labels.to(device)
    between = pad(labels, (0, 1), value=blank)
    symbols = creation.zeros((n, longest + 1, 2), dtype=dtypes.int64, device=device)
    symbols = where(creation.arange(2, device=device) == 0, blanks.unsqueeze(-1), between.unsqueeze(-1) + symbols)
    symbols = symbols.reshape(n, -1)[:, :states]
    emitted = scores.gather(2, symbols.unsqueeze(0).expand(time, n, states), op="ctc_loss")
    # From a label one may step over the blank to the next label, unless it is the same one.
    skip = (symbols != blank).logical_and(symbols != pad(symbols, (2, 0), value=blank)[:, :states])
    alpha = where(creation.arange(states, device=device) == 0, 0.0, _NEVER).to(dtype=dtype).expand(n, states)
    running = creation.tensor(np.arange(time)[:, None, None] < steps[:, None], device=device)
    for t, emission in enumerate(emitted.unbind(0)):
        ways = logaddexp(alpha, pad(alpha, (1, -1), value=_NEVER))
        if states > 2:
            ways = logaddexp(ways, where(skip, pad(alpha, (2, -2), value=_NEVER), _NEVER))
        alpha = where(running[t], (ways + emission).clamp(min=_NEVER), alpha)
    ends = creation.tensor(np.stack([2 * spelt, np.maximum(2 * spelt - 1, 0)], 1), device=device)
    last, label = alpha.gather(1, ends).unbind(1)
    total = where(creation.tensor(spelt > 0, device=device), logaddexp(last, label), last)
    # Worth 0, with the gradient exp(log_probs): the other half of that of log_softmax.
    mass = where(running, scores.exp(), 0.0).sum((0, 2))
    never = total <= 0.5 * _NEVER
    # Where the loss is infinite the gradient is NaN, so that nobody trains on without noticing.
    factor = 1.0 if zero_infinity else where(never, float("nan"), 1.0)
    loss = -total + (mass - mass.detach()) * factor
    return where(never, 0.0 if zero_infinity else float("inf"), loss)
