"""Which ops are functions of ``gpugrad``, which are methods of Tensor, and which have an in-place form.

One list for all three, so that a new op is named once.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from gpugrad import arguments, dtypes, ops
from gpugrad.absent import REASONS
from gpugrad.autograd import is_grad_enabled
from gpugrad.ops import creation, elementwise, inplace
from gpugrad.ops.mapping import is_operand
from gpugrad.tensor import Tensor

#: module of gpugrad/ops -> names that are both functions and methods
BOTH = {
    "creation": "clone fill tril triu",
    "compound": "add addcdiv addcmul allclose div divide equal isclose lerp sub subtract true_divide",
    "elementwise": "abs absolute acos acosh arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 "
    "atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp clamp_max "
    "clamp_min clip copysign cos cosh eq erf erfc exp exp2 expm1 fix floor floor_divide fmod frac ge greater "
    "greater_equal gt hypot isfinite isinf isnan le less less_equal log log10 log1p log2 logaddexp logical_and "
    "logical_not logical_or logical_xor lt maximum minimum mul multiply ne neg negative not_equal pow reciprocal relu "
    "remainder round rsqrt sgn sigmoid sign sin sinh sqrt square tan tanh trunc",
    "special_functions": "digamma erfinv i0 igamma igammac lgamma logaddexp2 logit mvlgamma polygamma sinc xlogy",
    "numbers": "angle conj conj_physical deg2rad float_power fmax fmin frexp gcd heaviside isneginf isposinf isreal "
    "lcm ldexp nan_to_num nextafter positive rad2deg resolve_conj resolve_neg signbit",
    "movement": "adjoint broadcast_to expand flatten moveaxis movedim narrow narrow_copy permute ravel reshape select "
    "squeeze swapaxes swapdims t transpose unflatten unsqueeze",
    "strided": "as_strided",
    "diagonals": "diag diag_embed diagflat diagonal trace",
    "joining": "flip fliplr flipud repeat roll rot90 tile",
    "splitting": "chunk dsplit hsplit split split_with_sizes tensor_split unbind unsafe_chunk unsafe_split "
    "unsafe_split_with_sizes vsplit",
    "reductions": "all amax amin aminmax any argmax argmin count_nonzero logsumexp max min nansum prod sum",
    "scans": "cummax cummin cumprod cumsum diff logcumsumexp",
    "statistics": "corrcoef cov mean nanmean nanquantile quantile std var",
    "distances": "dist norm renorm",
    "sets": "bincount histc histogram unique unique_consecutive",
    "linear": "addbmm addmm addmv addr baddbmm bmm dot matmul mm mv outer",
    "products": "cross ger inner kron vdot",
    "indexing": "argwhere gather index_select masked_fill masked_select nonzero nonzero_static repeat_interleave "
    "take take_along_dim",
    "scattering": "index_add index_copy index_fill index_reduce masked_scatter put scatter scatter_add scatter_reduce",
    "subscript": "index_put",
    "placing": "as_strided_scatter diagonal_scatter select_scatter slice_scatter",
    "sorting": "argsort kthvalue median mode msort nanmedian sort topk",
    "sampling": "bernoulli multinomial",
    "fused": "log_softmax softmax",
}

FUNCTIONS = {
    "creation": "arange as_tensor empty empty_like eye from_numpy full full_like ones ones_like "
    "tensor zeros zeros_like",
    "elementwise": "where",
    "numbers": "imag is_conj is_neg real rsub",
    "movement": "broadcast_shapes broadcast_tensors",
    "diagonals": "block_diag tril_indices triu_indices",
    "joining": "atleast_1d atleast_2d atleast_3d cat column_stack concat concatenate dstack hstack meshgrid row_stack "
    "stack vstack",
    "scans": "cumulative_trapezoid gradient trapezoid trapz",
    "statistics": "std_mean var_mean",
    "sets": "histogramdd isin segment_reduce",
    "distances": "cdist cosine_similarity norm_except_dim pairwise_distance pdist",
    "contraction": "einsum tensordot",
    "ranges": "bartlett_window blackman_window hamming_window hann_window kaiser_window linspace logspace range",
    "memory": "asarray empty_permuted empty_strided frombuffer scalar_tensor",
    "copies": "alias_copy as_strided_copy detach_copy diagonal_copy expand_copy permute_copy select_copy slice_copy "
    "split_copy split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy unfold_copy unsqueeze_copy "
    "view_copy",
    "products": "cartesian_prod chain_matmul combinations unravel_index vander",
    "sorting": "bucketize searchsorted",
    "variates": "binomial poisson",
    "sampling": "normal rand rand_like randint randint_like randn randn_like randperm",
}

METHODS = {
    "movement": "sum_to_size",
    "strided": "unfold",
    "diagonals": "fill_diagonal_",
    "subscript": "index_put_",
    "memory": "new new_empty_strided",
    "placing": "as_strided_ resize_ resize_as_ set_ squeeze_ swapaxes_ swapdims_ t_ transpose_ unsqueeze_",
    "compound": "add_ div_ divide_ sub_ subtract_ true_divide_",
    "numbers": "conj_physical_ float_power_",
    "sampling": "bernoulli_ normal_ random_ uniform_",
    "variates": "cauchy_ exponential_ geometric_ log_normal_",
}

#: methods whose in-place form computes the result and writes it back (elementwise rows write directly)
WRITE_BACK = {
    "creation": "tril triu",
    "compound": "addcdiv addcmul lerp",
    "special_functions": "mvlgamma polygamma",
    "numbers": "ldexp nan_to_num",
    "scans": "cumprod cumsum",
    "distances": "renorm",
    "indexing": "masked_fill",
    "scattering": "index_add index_copy index_fill index_reduce masked_scatter put scatter scatter_add scatter_reduce",
    "linear": "addbmm addmm addmv addr baddbmm",
}

#: modules loaded on first use -> their functions that are also functions of the package ...
LATE = {
    "nn.functional.recurrent": "gru gru_cell lstm lstm_cell rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell",
    "linalg.classic": "cholesky cholesky_inverse cholesky_solve det frobenius_norm geqrf inverse logdet lu lu_solve "
    "lu_unpack matrix_exp matrix_power nuclear_norm orgqr ormqr pinverse qr slogdet svd triangular_solve",
    "linalg.lowrank": "pca_lowrank svd_lowrank",
    "special": "",
    "nn.functional": "celu celu_ hardshrink prelu rrelu rrelu_ selu selu_ threshold threshold_",
    "nn.functional.native": "constant_pad_nd grid_sampler grid_sampler_2d grid_sampler_3d native_batch_norm "
    "native_group_norm native_layer_norm",
    "nn.functional.plain": "adaptive_avg_pool1d adaptive_max_pool1d alpha_dropout alpha_dropout_ avg_pool1d "
    "batch_norm bilinear "
    "binary_cross_entropy_with_logits channel_shuffle conv1d conv2d conv3d conv_tbc conv_transpose1d "
    "conv_transpose2d conv_transpose3d convolution cosine_embedding_loss ctc_loss "
    "dropout dropout_ embedding feature_alpha_dropout feature_alpha_dropout_ feature_dropout "
    "feature_dropout_ group_norm hinge_embedding_loss instance_norm kl_div layer_norm margin_ranking_loss "
    "max_pool1d max_pool1d_with_indices max_pool2d max_pool3d native_channel_shuffle "
    "pixel_shuffle pixel_unshuffle poisson_nll_loss rms_norm triplet_margin_loss",
}

#: ... and those that are also methods
LATE_METHODS = {
    "linalg.classic": "cholesky cholesky_inverse cholesky_solve det geqrf inverse logdet lu lu_solve "
    "matrix_exp matrix_power orgqr ormqr pinverse qr slogdet svd triangular_solve",
    "special": "",
    "nn.functional": "hardshrink prelu",
}

#: in-place methods that are also functions of the package, without the underscore
IN_PLACE_FUNCTIONS = (
    "abs acos acosh addmv arccos arccosh arcsin arcsinh arctan arctanh as_strided asin asinh atan atanh ceil clamp "
    "clamp_max clamp_min clip conj_physical cos cosh deg2rad erf erfc exp exp2 expm1 fill fix floor frac gcd i0 "
    "index_put lcm ldexp log log10 log1p log2 logit nan_to_num neg negative rad2deg reciprocal relu resize_as round "
    "rsqrt sigmoid sin sinc sinh sqrt square tan tanh trunc xlogy zero"
)

#: functions that make views, several tensors or no tensor, and so have no ``out=``
WITHOUT_OUT = frozenset(
    (
        "adjoint allclose argwhere as_strided as_strided_scatter as_tensor asarray atleast_1d atleast_2d "
        "atleast_3d bartlett_window bincount binomial blackman_window block_diag broadcast_shapes "
        "broadcast_tensors broadcast_to cartesian_prod cdist chunk clone combinations conj corrcoef "
        "cosine_similarity count_nonzero cov cumulative_trapezoid diag_embed diagflat diagonal diagonal_scatter "
        "dist dsplit einsum empty_like empty_permuted empty_strided equal expand fill flatten flip fliplr flipud "
        "from_numpy frombuffer full_like gradient hamming_window hann_window histogramdd hsplit imag index_fill "
        "index_put is_conj is_neg isclose isfinite isinf isnan isreal kaiser_window masked_fill masked_scatter "
        "meshgrid moveaxis movedim narrow norm_except_dim ones_like pairwise_distance pdist permute poisson "
        "positive put rand_like randint_like randn_like ravel real relu repeat repeat_interleave reshape "
        "resolve_conj resolve_neg roll rot90 rsub scalar_tensor segment_reduce select select_scatter split "
        "split_with_sizes squeeze std_mean swapaxes swapdims t tensor tensor_split tile trace transpose trapezoid "
        "trapz tril_indices triu_indices unbind unflatten unique unique_consecutive unravel_index unsafe_chunk "
        "unsafe_split unsafe_split_with_sizes unsqueeze vander var_mean vsplit zeros_like"
    ).split()
)

#: functions whose ``out=`` must have the dtype of the result; the others convert to it
EXACT_OUT = frozenset(
    (
        "abs absolute addbmm addmm addmv alias_copy all amax amin aminmax any arange argmax argmin argsort "
        "as_strided_copy baddbmm bitwise_not bmm bucketize ceil conj_physical cross cummax cummin diag diagonal_copy "
        "dot empty expand_copy eye fix float_power floor frac frexp full gather heaviside histc histogram index_add "
        "index_copy index_reduce index_select isin isneginf isposinf kthvalue linspace log_softmax logcumsumexp "
        "logspace lu_solve lu_unpack masked_select matmul median mm mode msort multinomial mv nan_to_num nanmedian "
        "nanquantile narrow_copy neg negative nonzero norm ones ormqr permute_copy qr quantile randint randn rand "
        "randperm range renorm round scatter scatter_add scatter_reduce searchsorted select_copy sgn sign signbit "
        "slice_copy slice_scatter softmax sort split_copy split_with_sizes_copy squeeze_copy svd t_copy take "
        "take_along_dim tensordot topk transpose_copy triangular_solve tril triu trunc unbind_copy unfold_copy "
        "unsqueeze_copy vdot view_copy where zeros"
    ).split()
)

#: functions of two tensors that take no number in place of either
OF_TENSORS = frozenset(
    (
        "arctan2 atan2 fmax fmin gcd heaviside hypot igamma igammac isclose lcm logaddexp logaddexp2 logical_and "
        "logical_or logical_xor maximum minimum nextafter"
    ).split()
)

CASTS = {
    "float": dtypes.float32,
    "double": dtypes.float64,
    "half": dtypes.float16,
    "bfloat16": dtypes.bfloat16,
    "long": dtypes.int64,
    "int": dtypes.int32,
    "short": dtypes.int16,
    "char": dtypes.int8,
    "byte": dtypes.uint8,
    "bool": dtypes.bool_,
}

OPERATORS = {
    "add": elementwise.add,
    "sub": elementwise.sub,
    "mul": elementwise.mul,
    "truediv": elementwise.div,
    "floordiv": elementwise.floor_divide,
    "mod": elementwise.remainder,
    "pow": elementwise.pow,
    "and": elementwise.bitwise_and,
    "or": elementwise.bitwise_or,
    "xor": elementwise.bitwise_xor,
    "lshift": elementwise.bitwise_left_shift,
    "rshift": elementwise.bitwise_right_shift,
}


def functions() -> dict[str, Any]:
    """Name -> function, for the namespace of the package."""
    return {
        n: arguments.function(n, f, n not in WITHOUT_OUT, n in EXACT_OUT)
        for table in (BOTH, FUNCTIONS)
        for n, f in _each(table)
    } | {n + "_": getattr(Tensor, n + "_") for n in IN_PLACE_FUNCTIONS.split()}


_LATE = {name: module for module, names in LATE.items() for name in names.split()}


def late(name: str) -> Any:
    """The function ``name`` of the package that lives in a module loaded on first use; None if
    there is none."""
    module = _LATE.get(name)
    if module is None:
        return None
    found = getattr(importlib.import_module(f"gpugrad.{module}"), name)
    return arguments.function(name, found, not module.startswith("nn."), name in EXACT_OUT)


def _each(table: dict[str, str]) -> list[tuple[str, Any]]:
    found = [(name, getattr(getattr(ops, module), name)) for module, names in table.items() for name in names.split()]
    return [(name, arguments.of_tensors(name, f) if name in OF_TENSORS else f) for name, f in found]


class _Absent:
    """Says of a name that PyTorch's tensors have why it is not here. One for each name: with a ``__getattr__``, which
    would do for all of them, every look at an attribute of a tensor takes three times as long."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self.why = why

    def __get__(self, tensor: Any, kind: type) -> Any:
        text = f"{kind.__name__!r} object has no attribute {self.name!r}: {self.why}"
        raise AttributeError(text, name=self.name, obj=tensor)


def attach() -> None:
    """Give Tensor its methods and operators."""
    for name, why in REASONS.items():
        if "." not in name and not hasattr(Tensor, name):
            setattr(Tensor, name, _Absent(name, why))
    for name, function in _each(BOTH) + _each(METHODS):
        setattr(Tensor, name, arguments.method(name, function))
        direct = getattr(function, "inplace", None)
        if direct is not None:
            setattr(Tensor, name + "_", _in_place(name, direct))
    for name, function in _each(WRITE_BACK):
        setattr(Tensor, name + "_", _write_back(name, arguments.method(name, function)))
    for name in ("real", "imag"):
        setattr(Tensor, name, property(getattr(ops.numbers, name)))
    for module, names in LATE_METHODS.items():
        for name in names.split():
            setattr(Tensor, name, _late_method(module, name))
    for name, dtype in CASTS.items():
        setattr(Tensor, name, _cast(name, dtype))
    for name, function in OPERATORS.items():
        forward, reflected, augmented = _operator(function)
        setattr(Tensor, f"__{name}__", forward)
        setattr(Tensor, f"__r{name}__", reflected)
        setattr(Tensor, f"__i{name}__", augmented)
    for name in ("lt", "le", "gt", "ge"):
        setattr(Tensor, f"__{name}__", _operator(getattr(elementwise, name))[0])
    for name in ("eq", "ne"):
        setattr(Tensor, f"__{name}__", _equality(getattr(elementwise, name)))
    for name in ("neg", "abs"):
        setattr(Tensor, f"__{name}__", getattr(elementwise, name))


def _operator(function: Any) -> tuple[Any, Any, Any]:
    def forward(self: Tensor, other: Any) -> Any:
        return function(self, other) if is_operand(other) else NotImplemented

    forward = getattr(function, "operator", forward)

    def reflected(self: Tensor, other: Any) -> Any:
        return function(other, self) if is_operand(other) else NotImplemented

    def augmented(self: Tensor, other: Any) -> Any:
        return function.inplace(self, other) if is_operand(other) else NotImplemented

    return forward, reflected, augmented


def _equality(function: Any) -> Any:
    def forward(self: Tensor, other: Any) -> Any:
        if isinstance(other, np.ndarray):  # left to NumPy it would be one bool
            other = creation.from_numpy(other)
        return function(self, other) if is_operand(other) else NotImplemented

    return forward


def _named(method: Any, name: str, text: str) -> Any:
    method.__name__ = method.__qualname__ = name
    method.__doc__ = text
    return method


def _in_place(name: str, function: Any) -> Any:
    def method(self: Tensor, *others: Any, **options: Any) -> Tensor:
        return function(self, *others, **options)

    return _named(method, name + "_", f"In place: ``{name}``, stored in this tensor.")


def _write_back(name: str, function: Any) -> Any:
    def method(self: Tensor, *args: Any, **options: Any) -> Tensor:
        # What the derivative saves of this tensor has to outlive the write.
        wanted = is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in (self, *args))
        result = function(self.clone() if wanted else self, *args, **options)
        if result.shape != self.shape:
            raise RuntimeError(
                f"{name}_: a result of shape {tuple(result.shape)} does not fit the tensor of shape "
                f"{tuple(self.shape)} it is stored in; call {name}() out of place"
            )
        if not arguments.can_cast(result.dtype, self.dtype):
            raise RuntimeError(f"{name}_: a {result.dtype.name} result cannot be stored in a {self.dtype.name} tensor")
        return inplace.write(name + "_", self, creation.cast(result, self.dtype))

    return _named(method, name + "_", f"In place: ``{name}``, stored in this tensor.")


def _late_method(module: str, name: str) -> Any:
    def method(self: Tensor, *args: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(f"gpugrad.{module}"), name)(self, *args, **options)

    return _named(method, name, f":func:`gpugrad.{module}.{name}` of this tensor.")


def _cast(name: str, dtype: dtypes.DType) -> Any:
    def method(self: Tensor, memory_format: Any = None) -> Tensor:
        return creation.cast(self, dtype)

    return _named(method, name, f"Converted to {dtype.name}.")
