"""Which ops are functions of ``gpugrad``, which are methods of Tensor, and which have an in-place form.

One list for all three, so that a new op is named once.
"""

from __future__ import annotations

import importlib
from typing import Any

from gpugrad import arguments, dtypes, ops
from gpugrad.ops import creation, elementwise, inplace
from gpugrad.tensor import Tensor, is_operand

#: module of gpugrad/ops -> names that are both functions and methods
BOTH = {
    "creation": "clone tril triu",
    "compound": "add addcdiv addcmul allclose div divide equal isclose lerp sub subtract true_divide",
    "elementwise": "abs absolute acos acosh arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 "
    "atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp clamp_max "
    "clamp_min clip copysign cos cosh eq erf erfc exp exp2 expm1 fix floor floor_divide fmod frac ge greater "
    "greater_equal gt hypot isfinite isinf isnan le less less_equal log log10 log1p log2 logaddexp logical_and "
    "logical_not logical_or logical_xor lt maximum minimum mul multiply ne neg negative not_equal pow reciprocal relu "
    "remainder round rsqrt sgn sigmoid sign sin sinh sqrt square tan tanh trunc",
    "movement": "as_strided broadcast_to diagonal expand flatten movedim narrow permute ravel reshape select squeeze t "
    "transpose unflatten unsqueeze",
    "joining": "chunk flip fliplr flipud repeat roll split tile unbind",
    "reductions": "all amax amin aminmax any argmax argmin count_nonzero cumprod cumsum logsumexp max mean min norm "
    "prod std sum var",
    "linear": "addmm baddbmm bmm dot matmul mm mv outer",
    "indexing": "argwhere gather index_add index_copy index_fill index_select masked_fill masked_select nonzero "
    "scatter scatter_add scatter_reduce take take_along_dim",
    "sorting": "argsort kthvalue median msort sort topk",
    "sampling": "bernoulli multinomial",
    "fused": "log_softmax softmax",
}

FUNCTIONS = {
    "creation": "arange as_tensor empty empty_like eye from_numpy full full_like linspace logspace ones ones_like "
    "tensor zeros zeros_like",
    "elementwise": "where",
    "movement": "broadcast_tensors",
    "joining": "cat concat concatenate hstack meshgrid stack vstack",
    "reductions": "std_mean var_mean",
    "linear": "einsum tensordot",
    "sorting": "searchsorted",
    "sampling": "normal rand rand_like randint randint_like randn randn_like randperm",
}

METHODS = {
    "movement": "unfold",
    "compound": "add_ div_ sub_",
    "sampling": "bernoulli_ exponential_ normal_ random_ uniform_",
}

#: methods whose in-place form computes the result and writes it back (elementwise rows write directly)
WRITE_BACK = {
    "creation": "tril triu",
    "compound": "addcdiv addcmul lerp",
    "reductions": "cumprod cumsum",
    "indexing": "index_add index_copy index_fill masked_fill scatter scatter_add scatter_reduce",
}

#: modules loaded on first use -> their functions that are also functions of the package ...
LATE = {
    "linalg": "",
    "special": "",
    "nn.functional": "",
}

#: ... and those that are also methods
LATE_METHODS = {
    "linalg": "",
    "special": "",
    "nn.functional": "",
}

#: functions that make views, several tensors or no tensor, and so have no ``out=``
WITHOUT_OUT = frozenset(
    (
        "allclose argwhere as_strided as_tensor broadcast_tensors broadcast_to chunk clone count_nonzero diagonal einsum "
        "empty_like equal expand flatten flip fliplr flipud from_numpy full_like index_fill isclose isfinite isinf isnan "
        "masked_fill meshgrid movedim narrow ones_like permute rand_like randint_like randn_like ravel relu repeat "
        "reshape roll select split squeeze std_mean t tensor tile transpose unbind unflatten unsqueeze var_mean zeros_like"
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
        n: arguments.function(n, f, n not in WITHOUT_OUT) for table in (BOTH, FUNCTIONS) for n, f in _each(table)
    }


_LATE = {name: module for module, names in LATE.items() for name in names.split()}


def late(name: str) -> Any:
    """The function ``name`` of the package that lives in a module loaded on first use; None if
    there is none."""
    module = _LATE.get(name)
    if module is None:
        return None
    found = getattr(importlib.import_module(f"gpugrad.{module}"), name)
    return arguments.function(name, found, module != "nn.functional")


def late_names() -> list[str]:
    """The names :func:`late` knows."""
    return list(_LATE)


def _each(table: dict[str, str]) -> list[tuple[str, Any]]:
    return [(name, getattr(getattr(ops, module), name)) for module, names in table.items() for name in names.split()]


def attach() -> None:
    """Give Tensor its methods and operators."""
    for name, function in _each(BOTH) + _each(METHODS):
        setattr(Tensor, name, arguments.method(name, function))
        direct = getattr(function, "inplace", None)
        if direct is not None:
            setattr(Tensor, name + "_", _in_place(name, direct))
    for name, function in _each(WRITE_BACK):
        setattr(Tensor, name + "_", _write_back(name, function))
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
    for name in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(Tensor, f"__{name}__", _operator(getattr(elementwise, name))[0])
    for name in ("neg", "abs"):
        setattr(Tensor, f"__{name}__", getattr(elementwise, name))


def _operator(function: Any) -> tuple[Any, Any, Any]:
    def forward(self: Tensor, other: Any) -> Any:
        return function(self, other) if is_operand(other) else NotImplemented

    def reflected(self: Tensor, other: Any) -> Any:
        return function(other, self) if is_operand(other) else NotImplemented

    def augmented(self: Tensor, other: Any) -> Any:
        return function.inplace(self, other) if is_operand(other) else NotImplemented

    return forward, reflected, augmented


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
        result = function(self, *args, **options)
        return inplace.write(name + "_", self, creation.cast(result, self.dtype))

    return _named(method, name + "_", f"In place: ``{name}``, stored in this tensor.")


def _late_method(module: str, name: str) -> Any:
    def method(self: Tensor, *args: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(f"gpugrad.{module}"), name)(self, *args, **options)

    return _named(method, name, f":func:`gpugrad.{module}.{name}` of this tensor.")


def _cast(name: str, dtype: dtypes.DType) -> Any:
    def method(self: Tensor) -> Tensor:
        return creation.cast(self, dtype)

    return _named(method, name, f"Converted to {dtype.name}.")
