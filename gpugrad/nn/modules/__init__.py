"""The layers in PyTorch's arrangement, for programs that import from ``torch.nn.modules``: each file here names what
the file of that name has there. The classes live in ``gpugrad.nn``."""

import importlib
from typing import Any

from gpugrad import nn

_FILES = (
    "activation",
    "adaptive",
    "batchnorm",
    "channelshuffle",
    "container",
    "conv",
    "distance",
    "dropout",
    "flatten",
    "fold",
    "instancenorm",
    "lazy",
    "linear",
    "loss",
    "module",
    "normalization",
    "padding",
    "pixelshuffle",
    "pooling",
    "rnn",
    "sparse",
    "transformer",
    "upsampling",
    "utils",
)


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return importlib.import_module(f"gpugrad.nn.modules.{name}")
    return getattr(nn, name)
