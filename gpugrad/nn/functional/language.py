"""What language models do between their matrix products: rotations by position, gated units."""

from __future__ import annotations

from gpugrad import dtypes
from gpugrad.nn.functional.activation import silu
from gpugrad.ops.joining import cat, stack
from gpugrad.tensor import Tensor


def rotary_embedding(input: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Rotates pairs of features (Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021):
    ``(x, y)`` becomes ``(x cos - y sin, x sin + y cos)``, so that products of two rotated vectors depend on the
    difference of their positions alone.

    ``input``: ``[..., length, width]``; ``cos`` and ``sin``: ``[length, r]``, or anything that broadcasts to
    ``[..., length, r]``, with ``2 r <= width``; see :class:`gpugrad.nn.RotaryEmbedding`, which makes them. Pairs are
    feature i with feature i + r of the first 2 r, or if ``interleaved`` the features 2 i and 2 i + 1; features from
    2 r on stay as they are. Computed in float32 for half types; the result has the dtype of ``input``.

    Raises RuntimeError where the shapes do not fit, TypeError unless ``input`` is floating."""
    if not input.is_floating_point():
        raise TypeError(f"rotary_embedding: input must be floating, not {input.dtype.name}; convert it with .float()")
    if input.dim() < 2 or tuple(cos.shape) != tuple(sin.shape) or cos.dim() < 1 or 2 * cos.shape[-1] > input.shape[-1]:
        raise RuntimeError(
            f"rotary_embedding: input [..., length, width] of shape {tuple(input.shape)} does not fit cos and sin of "
            f"shapes {tuple(cos.shape)} and {tuple(sin.shape)}, which must be equal and at most half as wide"
        )
    half, width = cos.shape[-1], input.shape[-1]
    x = input.to(dtypes.float32) if input.dtype.itemsize < 4 else input
    turning = x if 2 * half == width else x[..., : 2 * half]
    if interleaved:
        a, b = turning[..., 0::2], turning[..., 1::2]
        turned = stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    else:
        a, b = turning[..., :half], turning[..., half:]
        turned = cat([a * cos - b * sin, a * sin + b * cos], -1)
    if turned.dim() != input.dim() or turned.shape[-2] != input.shape[-2]:
        raise RuntimeError(
            f"rotary_embedding: cos and sin of shape {tuple(cos.shape)} do not broadcast to the input's "
            f"{tuple(input.shape)}"
        )
    if 2 * half != width:
        turned = cat([turned, x[..., 2 * half :]], -1)
    return turned.to(input.dtype)


def swiglu(gate: Tensor, value: Tensor) -> Tensor:
    """``silu(gate) * value``, elementwise (Shazeer, "GLU variants improve transformer", 2020)."""
    return silu(gate) * value
