"""Lazy modules: input sizes are taken from the first input instead of being given.

Their parameters are :class:`UninitializedParameter` until then; afterwards the module is an ordinary one, of the
class it stands for.
"""

from __future__ import annotations

from typing import Any

from gpugrad import dtypes
from gpugrad.autograd import no_grad
from gpugrad.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from gpugrad.nn.linear import Linear
from gpugrad.nn.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from gpugrad.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from gpugrad.ops import creation
from gpugrad.tensor import Tensor


class LazyModuleMixin:
    """First base of a lazy module: ``class LazyThing(LazyModuleMixin, Thing)`` with ``cls_to_become = Thing`` and an
    ``initialize_parameters(*inputs)`` that materialises what is uninitialised."""

    cls_to_become: type[Any] | None = None

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_forward_pre_hook(_infer, with_kwargs=True)

    def initialize_parameters(self: Any, *args: Any, **kwargs: Any) -> None:
        """Give the uninitialised parameters shapes and values, from the inputs of the first call."""
        raise NotImplementedError(f"{type(self).__name__} defines no initialize_parameters()")

    def has_uninitialized_params(self: Any) -> bool:
        """Whether a parameter or buffer of this module (its children aside) has no shape yet."""
        return any(is_lazy(t) for table in (self._parameters, self._buffers) for t in table.values())

    def _apply(self: Any, fn: Any, recurse: bool = True) -> Any:
        """Buffers are replaced when a module is moved; those without a shape have to stay so."""
        waiting = [name for name, b in self._buffers.items() if is_lazy(b)]
        super()._apply(fn, recurse)  # type: ignore[misc]
        for name in waiting:
            moved = self._buffers[name]
            self._buffers[name] = UninitializedBuffer(device=moved.device, dtype=moved.dtype)
        return self

    def _save_to_state_dict(self: Any, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[misc]
        for name, value in self._own_state().items():
            if is_lazy(value):
                destination[prefix + name] = value

    def _load_from_state_dict(self: Any, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, value in self._own_state().items():
            given = state_dict.get(prefix + name)
            if is_lazy(value) and isinstance(given, Tensor) and not is_lazy(given):
                value.materialize(given.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[misc]


def _infer(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The forward pre-hook that runs once."""
    module.initialize_parameters(*args, **kwargs)
    if module.has_uninitialized_params():
        raise RuntimeError(f"{type(module).__name__}.initialize_parameters left parameters without a shape")
    hooks = module._forward_pre_hooks
    for key in [k for k, hook in hooks.items() if hook.call is _infer]:
        del hooks[key]
    if module.cls_to_become is not None:
        module.__class__ = module.cls_to_become


class LazyLinear(LazyModuleMixin, Linear):
    """:class:`Linear` with ``in_features`` taken from the first input."""

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__(0, 0, False, device, dtype)
        self.out_features = out_features
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw initial values anew, once there are shapes."""
        if not self.has_uninitialized_params() and self.in_features != 0:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Shapes from the last dimension of ``input``, initial values as of :class:`Linear`."""
        if self.has_uninitialized_params():
            with no_grad():
                self.in_features = input.shape[-1]
                self.weight.materialize((self.out_features, self.in_features))
                if self.bias is not None:
                    self.bias.materialize((self.out_features,))
                self.reset_parameters()
        if self.in_features == 0:
            self.in_features = self.weight.shape[-1]


class _LazyConv(LazyModuleMixin):
    """Gives a convolution its ``in_channels``; the constructor arguments are those of the class but the first."""

    n: int
    transposed: bool

    def __init__(self: Any, out_channels: int, kernel_size: Any, stride: Any, padding: Any, **options: Any) -> None:
        bias, groups = options.pop("bias"), options.pop("groups")
        super().__init__(0, 0, kernel_size, stride, padding, bias=False, **options)
        place = {"device": options["device"], "dtype": options["dtype"]}
        self.out_channels = out_channels
        self.groups = groups
        if groups < 1 or out_channels % groups:
            raise ValueError(
                f"{type(self).__name__}: out_channels={out_channels} cannot be split evenly into groups={groups}"
            )
        self.weight = UninitializedParameter(**place)
        if bias:
            self.bias = UninitializedParameter(**place)

    def reset_parameters(self: Any) -> None:
        """Draw initial values anew, once there are shapes."""
        if not self.has_uninitialized_params() and self.in_channels != 0:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self: Any, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Shapes from the channels of ``input``, initial values as of the class."""
        if self.has_uninitialized_params():
            if input.dim() not in (self.n + 1, self.n + 2):
                raise RuntimeError(
                    f"{type(self).__name__}: input of shape {tuple(input.shape)} must have {self.n + 1} dimensions, or "
                    f"{self.n + 2} with a batch in front"
                )
            channels = input.shape[-self.n - 1]
            if channels % self.groups:
                raise ValueError(
                    f"{type(self).__name__}: in_channels={channels} cannot be split evenly into groups={self.groups}"
                )
            self.in_channels = channels
            out = self.out_channels
            shape = (channels, out // self.groups) if self.transposed else (out, channels // self.groups)
            with no_grad():
                self.weight.materialize((*shape, *self.kernel_size))
                if self.bias is not None:
                    self.bias.materialize((out,))
                self.reset_parameters()
        elif self.in_channels == 0:
            per_group = self.weight.shape[0 if self.transposed else 1]
            self.in_channels = per_group if self.transposed else per_group * self.groups


class _LazyForward(_LazyConv):
    def __init__(
        self,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        options = {"dilation": dilation, "groups": groups, "bias": bias, "padding_mode": padding_mode}
        super().__init__(out_channels, kernel_size, stride, padding, **options, device=device, dtype=dtype)


class _LazyTranspose(_LazyConv):
    def __init__(
        self,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        options = {"dilation": dilation, "groups": groups, "bias": bias, "padding_mode": padding_mode}
        options["output_padding"] = output_padding
        super().__init__(out_channels, kernel_size, stride, padding, **options, device=device, dtype=dtype)


class LazyConv1d(_LazyForward, Conv1d):  # type: ignore[misc]
    """:class:`Conv1d` with ``in_channels`` taken from the first input."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyForward, Conv2d):  # type: ignore[misc]
    """:class:`Conv2d` with ``in_channels`` taken from the first input."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyForward, Conv3d):  # type: ignore[misc]
    """:class:`Conv3d` with ``in_channels`` taken from the first input."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(_LazyTranspose, ConvTranspose1d):  # type: ignore[misc]
    """:class:`ConvTranspose1d` with ``in_channels`` taken from the first input."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyTranspose, ConvTranspose2d):  # type: ignore[misc]
    """:class:`ConvTranspose2d` with ``in_channels`` taken from the first input."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyTranspose, ConvTranspose3d):  # type: ignore[misc]
    """:class:`ConvTranspose3d` with ``in_channels`` taken from the first input."""

    cls_to_become = ConvTranspose3d


class _LazyNorm(LazyModuleMixin):
    """Gives a batch or instance norm its ``num_features``."""

    def __init__(
        self: Any,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(0, eps, momentum, False, False, device, dtype)
        place = {"device": device, "dtype": dtype}
        self.affine = affine
        self.track_running_stats = track_running_stats
        if affine:
            self.weight = UninitializedParameter(**place)
            if bias:
                self.bias = UninitializedParameter(**place)
        if track_running_stats:
            self.running_mean = UninitializedBuffer(**place)
            self.running_var = UninitializedBuffer(**place)
            self.num_batches_tracked = creation.tensor(0, dtype=dtypes.int64, device=device)

    def reset_parameters(self: Any) -> None:
        """Initial values anew, once there are shapes."""
        if not self.has_uninitialized_params() and self.num_features != 0:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self: Any, input: Tensor) -> None:
        """Shapes from dimension 1 of ``input``, initial values as of the class. Raises ValueError if it has none."""
        if self.has_uninitialized_params():
            if input.dim() < 2:
                raise ValueError(
                    f"{type(self).__name__}: input of shape {tuple(input.shape)} must be [n, channels, ...]"
                )
            self.num_features = input.shape[1]
            for table in (self._parameters, self._buffers):
                for value in table.values():
                    if is_lazy(value):
                        value.materialize((self.num_features,))
            self.reset_parameters()
        elif self.num_features == 0 and self.weight is not None:
            self.num_features = self.weight.shape[0]


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """:class:`BatchNorm1d` with ``num_features`` taken from the first input."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """:class:`BatchNorm2d` with ``num_features`` taken from the first input."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """:class:`BatchNorm3d` with ``num_features`` taken from the first input."""

    cls_to_become = BatchNorm3d


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """:class:`InstanceNorm1d` with ``num_features`` taken from the first input."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """:class:`InstanceNorm2d` with ``num_features`` taken from the first input."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """:class:`InstanceNorm3d` with ``num_features`` taken from the first input."""

    cls_to_become = InstanceNorm3d
