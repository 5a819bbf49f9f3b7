"""The operations: one table (``OPS``), a row per primitive. They know no device."""

from gpugrad.ops import (
    compound,
    creation,
    elementwise,
    fused,
    indexing,
    inplace,
    joining,
    linear,
    movement,
    reductions,
    sampling,
    sorting,
    window,
)
from gpugrad.ops.fused import gelu, leaky_relu, log_softmax, offered, silu, softmax, softplus
from gpugrad.ops.indexing import embedding, getitem, one_hot, setitem
from gpugrad.ops.joining import pad
from gpugrad.ops.movement import windows
from gpugrad.ops.table import OPS, Op, Sample
from gpugrad.ops.window import convolution, convolution_transpose, max_pool

__all__ = [
    "OPS",
    "Op",
    "Sample",
    "compound",
    "convolution",
    "convolution_transpose",
    "creation",
    "elementwise",
    "embedding",
    "fused",
    "gelu",
    "getitem",
    "indexing",
    "inplace",
    "joining",
    "leaky_relu",
    "linear",
    "log_softmax",
    "max_pool",
    "movement",
    "offered",
    "one_hot",
    "pad",
    "reductions",
    "sampling",
    "setitem",
    "silu",
    "softmax",
    "softplus",
    "sorting",
    "window",
    "windows",
]
