"""Linear maps, look-ups and distances."""

from __future__ import annotations

from gpugrad import ops
from gpugrad.arguments import store
from gpugrad.autograd import no_grad
from gpugrad.nn.functional.shapes import is_integer
from gpugrad.ops import creation
from gpugrad.ops.elementwise import where
from gpugrad.ops.linear import linear as affine
from gpugrad.ops.linear import unlisted_matmul
from gpugrad.tensor import Tensor


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``: ``[*, in]``, ``[out, in]`` (or ``[in]``), ``[out]`` give ``[*, out]``.

    Raises RuntimeError where the shapes do not fit."""
    if not input._array.ndim or input._array.shape[-1] != weight._array.shape[-1]:
        raise RuntimeError(
            f"linear: input of shape {tuple(input.shape)} does not fit weight of shape "
            f"{tuple(weight.shape)}: the last dimensions must be equal"
        )
    return affine(input, weight, bias)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``y_k = x1 @ weight[k] @ x2 + bias_k``: ``[*, in1]``, ``[*, in2]``, ``[out, in1, in2]``, ``[out]``
    give ``[*, out]``. Raises RuntimeError where the shapes do not fit."""
    if input1.shape[:-1] != input2.shape[:-1]:
        raise RuntimeError(
            f"bilinear: inputs of shape {tuple(input1.shape)} and {tuple(input2.shape)} must be equal in all "
            "dimensions but the last"
        )
    out, in1, in2 = weight.shape
    if input1.shape[-1] != in1 or input2.shape[-1] != in2:
        raise RuntimeError(
            f"bilinear: inputs of {input1.shape[-1]} and {input2.shape[-1]} features do not fit "
            f"weight of shape {tuple(weight.shape)}"
        )
    return _bilinear(input1, input2, weight, bias)


@creation.rounded_once
def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out, in1, in2 = weight.shape
    left = unlisted_matmul(input1.reshape(-1, in1), weight.permute(1, 0, 2).reshape(in1, out * in2))
    result = (left.reshape(-1, out, in2) * input2.reshape(-1, 1, in2)).sum(-1, dtype=left.dtype)
    result = result.reshape(*input1.shape[:-1], out)
    return result if bias is None else result + bias


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of ``weight`` ``[n, d]`` at the integers ``input`` ``[*]``: ``[*, d]``.

    ``padding_idx``: a row that gets no gradient. ``max_norm``: rows used are first scaled down in
    place to this norm. ``scale_grad_by_freq``: gradients divided by how often the row is used.
    Raises IndexError for an index outside [0, n), NotImplementedError for sparse gradients."""
    if sparse:
        raise NotImplementedError("embedding: sparse gradients do not exist here; use sparse=False")
    if not is_integer(input):
        raise RuntimeError(f"embedding: indices must be integers, not {input.dtype}; convert with .long()")
    n = weight.shape[0]
    if padding_idx is not None:
        if not -n <= padding_idx < n:
            raise AssertionError(f"embedding: padding_idx {padding_idx} must be within num_embeddings {n}")
        padding_idx %= n
    index = input.reshape(-1)
    if max_norm is not None:
        with no_grad():
            rows = weight.index_select(0, index, "embedding")
            norm = rows.norm(norm_type, dim=1, keepdim=True)
            weight.index_copy_(0, index, where(norm > max_norm, rows * (max_norm / (norm + 1e-7)), rows))
    rows = weight.index_select(0, index, "embedding")
    if scale_grad_by_freq:
        ones = creation.ones(index.shape, dtype=weight.dtype, device=weight.device)
        counts = creation.zeros((n,), dtype=weight.dtype, device=weight.device).index_add_(0, index, ones)
        scale = (1.0 / counts.index_select(0, index)).unsqueeze(1)
        rows = rows * scale + rows.detach() * (1.0 - scale)  # the value of rows, the gradient times scale
    if padding_idx is not None:
        rows = where((index == padding_idx).unsqueeze(1), rows.detach(), rows)
    return rows.reshape(*input.shape, weight.shape[1])


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 ``[*, num_classes]`` with a 1 at each class of ``tensor`` ``[*]`` (int64). Without
    ``num_classes`` it is the largest class plus 1. Raises RuntimeError for classes out of range."""
    if not is_integer(tensor):
        raise RuntimeError(f"one_hot: classes must be integers, not {tensor.dtype}; convert with .long()")
    if tensor.numel() and tensor.min().item() < 0:
        raise RuntimeError(f"one_hot: classes count from 0, but the smallest here is {int(tensor.min().item())}")
    if num_classes >= 0 and tensor.numel() and int(tensor.max().item()) >= num_classes:
        raise RuntimeError(
            f"one_hot: class {int(tensor.max().item())} does not fit num_classes={num_classes}; raise it"
        )
    return ops.one_hot(tensor, num_classes)


@creation.rounded_once
def _normalize(input: Tensor, p: float, dim: int, eps: float) -> Tensor:
    return input / input.norm(p, dim=dim, keepdim=True).clamp(min=eps)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """x divided by its p-norm along ``dim`` (at least ``eps``), written into ``out`` if that is given."""
    result = _normalize(input, p, dim, eps)
    return result if out is None else store("normalize", result, out)
