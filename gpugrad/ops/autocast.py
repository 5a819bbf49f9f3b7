"""Automatic mixed precision: which functions cast their inputs, to what, and the wrapper that does it.

A function with a name in the lists below is wrapped by :func:`listed`; the wrapper costs one look at a flag of the
thread while autocast is off. Products are wrapped where they are defined, as they are inside much else; the other
functions where users reach them, so that what is composed of them is not changed by it. Inside a listed function
nothing is cast again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from gpugrad import dtypes
from gpugrad.autograd.modes import mode
from gpugrad.ops import table

LOWER, FLOAT32, PROMOTE, PLAIN, REFUSED = "lower", "float32", "promote", "plain", "refused"
#: in float32 but for the last step, a product: the result is of the lower precision
LOWERED = "lowered"

_CONVOLUTIONS = "conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution "
_LOSSES = (
    "binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy hinge_embedding_loss huber_loss kl_div "
    "l1_loss margin_ranking_loss mse_loss multi_margin_loss multilabel_margin_loss nll_loss poisson_nll_loss "
    "smooth_l1_loss soft_margin_loss triplet_margin_loss "
)
_FACTORIZATIONS = (
    "cholesky cholesky_inverse cholesky_solve geqrf inverse linalg_cholesky linalg_cholesky_ex linalg_cond linalg_eig "
    "linalg_eigh linalg_eigvals linalg_eigvalsh linalg_householder_product linalg_inv linalg_inv_ex linalg_lstsq "
    "linalg_matrix_rank linalg_qr linalg_solve linalg_svd linalg_svdvals linalg_tensorinv "
    "linalg_tensorsolve lu lu_solve orgqr ormqr pinverse qr svd triangular_solve "
)

#: what CPUs do: PyTorch's list for them. PLAIN: products that are not in it, and are composed of one that is.
_CPU = {
    LOWER: "addbmm addmm baddbmm bmm linalg_vecdot linalg_matmul linear lstm matmul mm prelu "
    "scaled_dot_product_attention " + _CONVOLUTIONS,
    FLOAT32: "adaptive_avg_pool3d adaptive_max_pool3d avg_pool3d binary_cross_entropy cdist ctc_loss "
    "fractional_max_pool2d fractional_max_pool2d_with_indices fractional_max_pool3d "
    "fractional_max_pool3d_with_indices grid_sample grid_sampler grid_sampler_2d grid_sampler_3d max_pool3d "
    "max_unpool1d max_unpool2d max_unpool3d nanquantile prod quantile reflection_pad replication_pad trace "
    + _LOSSES
    + _FACTORIZATIONS,
    PROMOTE: "index_copy",
    LOWERED: "linalg_pinv",
    PLAIN: "addmv addr dot mv vdot",
}

#: what every other device does: PyTorch's list for CUDA, and the functions it composes of those on the list
_ACCELERATOR = {
    LOWER: "addbmm addmm addmv addr baddbmm bmm chain_matmul einsum gru gru_cell linalg_matmul linalg_multi_dot "
    "linalg_vecdot linear lstm lstm_cell matmul mm mv prelu rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell "
    "scaled_dot_product_attention " + _CONVOLUTIONS,
    FLOAT32: "__pow__ __rpow__ acos arccos arcsin asin cdist cosh cosine_similarity cumprod cumsum dist erfinv exp "
    "expm1 frobenius_norm gaussian_nll_loss group_norm gumbel_softmax interpolate layer_norm linalg_matrix_norm "
    "linalg_norm linalg_vector_norm local_response_norm log log10 log1p log2 log_softmax logsumexp lp_pool1d "
    "lp_pool2d lp_pool3d multilabel_soft_margin_loss native_layer_norm norm nuclear_norm pairwise_distance pdist "
    "pow prod reciprocal renorm rms_norm rsqrt sinh softmax softmin softplus sum tan "
    "triplet_margin_with_distance_loss upsample upsample_bilinear upsample_nearest " + _LOSSES + _FACTORIZATIONS,
    PROMOTE: "addcdiv addcmul arctan2 atan2 bilinear cross dot grid_sample grid_sampler grid_sampler_2d "
    "grid_sampler_3d index_put scatter_add tensordot vdot",
    REFUSED: "binary_cross_entropy",
    LOWERED: "linalg_pinv",
}


def _by_name(policies: dict[str, str]) -> dict[str, str]:
    return {name: policy for policy, names in policies.items() for name in names.split()}


#: device type -> name -> policy; other types have the list of None
LISTS: dict[str | None, dict[str, str]] = {"cpu": _by_name(_CPU), None: _by_name(_ACCELERATOR)}
NAMES = frozenset(name for names in LISTS.values() for name in names)


class _State(threading.local):
    """What autocast is set to in this thread; ``mode.autocast`` says whether listed functions look here now."""

    def __init__(self) -> None:
        self.enabled: set[str] = set()  # device types
        self.dtypes: dict[str, dtypes.DType] = {}
        self.depth = 0  # of contexts, one in another
        self.keeps_casts = True
        self.casts: dict[tuple[int, dtypes.DType, bool], tuple[Any, int, Any]] = {}


state = _State()


def dtype_for(device_type: str) -> dtypes.DType:
    """What functions of the lower precision compute in on this type of device."""
    return state.dtypes.get(device_type) or (dtypes.bfloat16 if device_type == "cpu" else dtypes.float16)


def listed(name: str, function: Callable[..., Any] | None = None) -> Any:
    """``function`` (or, as a decorator, the decorated one), cast as the lists say for ``name`` while autocast is on."""
    if function is None:
        return lambda found: listed(name, found)
    plain = function

    def call(*args: Any, **named: Any) -> Any:
        if mode.autocast:
            return _cast_and_call(name, plain, args, named)
        return plain(*args, **named)

    call.__name__ = call.__qualname__ = getattr(plain, "__name__", name)
    call.__doc__ = plain.__doc__
    call.__module__ = plain.__module__
    call.__wrapped__ = getattr(plain, "__wrapped__", plain)  # type: ignore[attr-defined]
    for attribute in ("op", "inplace"):
        if hasattr(plain, attribute):
            setattr(call, attribute, getattr(plain, attribute))
    return call


def _cast_and_call(name: str, function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    kind = _device_type((*args, *named.values()))
    policy = LISTS.get(kind, LISTS[None]).get(name) if kind is not None else None
    if kind is None or policy is None:
        return function(*args, **named)
    if policy == REFUSED:
        raise RuntimeError(
            f"{name}: its logarithms overflow in {dtype_for(kind).name}, so it is refused under autocast; leave out "
            "the sigmoid and use binary_cross_entropy_with_logits, or call it inside autocast(..., enabled=False)"
        )
    keep = named.get("out") is not None or policy == PLAIN or policy == FLOAT32 and named.get("dtype") is not None
    keep = keep or (name == "max_pool3d" and bool(named.get("return_indices")))  # another function, which is not listed
    if not keep:
        dtype = dtype_for(kind) if policy == LOWER else dtypes.float32
        if policy in (FLOAT32, LOWER, LOWERED) or _mixed((*args, *named.values()), kind):
            args = tuple(_cast(x, kind, dtype) for x in args)
            named = {k: _cast(x, kind, dtype) for k, x in named.items()}
    mode.autocast = False
    try:
        result = function(*args, **named)
        return _cast(result, kind, dtype_for(kind)) if policy == LOWERED and not keep else result
    finally:
        mode.autocast = True


def _device_type(values: Iterable[Any]) -> str | None:
    """The type of device of the first tensor that is on one with autocast."""
    for x in values:
        if isinstance(x, table.Tensor):
            if x._backend.name in state.enabled:
                return x._backend.name
        elif isinstance(x, (list, tuple)):
            found = _device_type(x)
            if found is not None:
                return found
    return None


def _eligible(x: Any, kind: str) -> bool:
    """Whether tensor ``x`` takes part: floating, and not float64, which is never lowered."""
    return x._backend.name == kind and x.dtype.is_floating_point and x.dtype is not dtypes.float64


def _mixed(values: Iterable[Any], kind: str) -> bool:
    """Whether the tensors that take part have several dtypes."""
    return len(set(_dtypes(values, kind))) > 1


def _dtypes(values: Iterable[Any], kind: str) -> list[dtypes.DType]:
    found = []
    for x in values:
        if isinstance(x, table.Tensor):
            found += [x.dtype] if _eligible(x, kind) else []
        elif isinstance(x, (list, tuple)):
            found += _dtypes(x, kind)
    return found


def _cast(x: Any, kind: str, dtype: dtypes.DType) -> Any:
    """``x``, or the tensors in it if it is a list or a tuple, in ``dtype``."""
    if isinstance(x, table.Tensor):
        if x.dtype is dtype or not _eligible(x, kind):
            return x
        keep = state.keeps_casts and dtype is not dtypes.float32 and x.dtype is dtypes.float32
        return _kept_cast(x, dtype) if keep and x._requires_grad and x._node is None else _cast_to(x, dtype)
    if type(x) is list or type(x) is tuple:
        return type(x)(_cast(y, kind, dtype) for y in x)
    return x


def _kept_cast(x: Any, dtype: dtypes.DType) -> Any:
    """The parameter ``x`` in ``dtype``: cast once for all its uses inside the outermost context, unless it was changed
    since. With and without recording these are two, as only one of them leads back to ``x``."""
    key = (id(x), dtype, mode.enabled)
    found = state.casts.get(key)
    if found is None or found[1] != x._version:
        found = state.casts[key] = (x, x._version, _cast_to(x, dtype))
    return found[2]


def _cast_to(x: Any, dtype: dtypes.DType) -> Any:
    from gpugrad.ops.creation import cast  # which is made of rows, as all that is listed

    return cast(x, dtype)


def refresh() -> None:
    """Set the flag that listed functions look at."""
    mode.autocast = bool(state.enabled)
