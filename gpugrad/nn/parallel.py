"""Data parallelism: there is one device, so the wrappers call what they wrap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpugrad.nn.module import Module


class DataParallel(Module):
    """Calls ``module``, on the device its parameters are on: a batch is never split. The arguments on devices are kept
    and unused, so that programs and checkpoints (whose names begin with ``module.``) work unchanged."""

    def __init__(
        self,
        module: Module,
        device_ids: Sequence[Any] | None = None,
        output_device: Any = None,
        dim: int = 0,
    ) -> None:
        super().__init__()
        self.module = module
        self.device_ids = list(device_ids or [])
        self.output_device = output_device
        self.dim = dim

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


def data_parallel(
    module: Module,
    inputs: Any,
    device_ids: Sequence[Any] | None = None,
    output_device: Any = None,
    dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:
    """``module(*inputs, **module_kwargs)``; see :class:`DataParallel`."""
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    return module(*arguments, **(module_kwargs or {}))


class DistributedDataParallel(Module):
    """Raises NotImplementedError: there is no distributed training."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("DistributedDataParallel: there is one process, one device; use the module itself")
