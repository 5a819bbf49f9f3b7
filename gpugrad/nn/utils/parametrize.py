"""Parametrizations: a parameter computed by modules from other parameters whenever it is read.

``register_parametrization(layer, "weight", Symmetric())`` moves the weight to
``layer.parametrizations.weight.original`` and makes ``layer.weight`` a property: ``Symmetric()(original)``.
The layer gets a class of its own for that, derived from the one it had.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from gpugrad.autograd import no_grad
from gpugrad.nn.containers import ModuleDict, ModuleList
from gpugrad.nn.module import Module
from gpugrad.nn.parameter import Parameter
from gpugrad.tensor import Tensor

_M = TypeVar("_M", bound=Module)

_cached_depth = 0
_cache: dict[tuple[int, str], Any] = {}


@contextmanager
def cached() -> Iterator[None]:
    """Inside it each parametrized tensor is computed once: for models that read one many times."""
    global _cached_depth
    _cached_depth += 1
    try:
        yield
    finally:
        _cached_depth -= 1
        if not _cached_depth:
            _cache.clear()


def _file(module: Module, name: str, tensor: Tensor) -> None:
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, in the order they are applied, and what they compute it from: ``original``,
    or ``original0``, ``original1``, ... where the first one takes several tensors.

    Raises ValueError for results of another shape or dtype than the tensor has, unless ``unsafe``."""

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise ValueError("ParametrizationList: there must be at least one parametrization")
        super().__init__(modules)
        self.unsafe = unsafe
        shape, dtype = tuple(original.shape), original.dtype
        with no_grad():
            new: Any = original
            for module in reversed(list(self)):
                inverse = getattr(module, "right_inverse", None)
                if inverse is not None:
                    try:
                        new = inverse(new)
                    except NotImplementedError:
                        pass  # a parametrization may have none: its input then is the tensor itself
        if not isinstance(new, Tensor) and not isinstance(new, Sequence):
            raise ValueError(f"right_inverse must return a Tensor or a sequence of them, not {type(new).__name__}")
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if isinstance(new, Tensor) else len(new)
        if isinstance(new, Tensor):
            if original.dtype is not new.dtype:
                raise ValueError(
                    f"right_inverse changed the dtype from {original.dtype} to {new.dtype}; optimizers would lose it"
                )
            with no_grad():
                original.data = new.detach()
            _file(self, "original", original)
        else:
            for i, part in enumerate(new):
                if not isinstance(part, Tensor):
                    raise ValueError(f"right_inverse must return tensors, its part {i} is a {type(part).__name__}")
                if isinstance(original, Parameter):
                    part = Parameter(part.detach(), original.requires_grad and part.is_floating_point())
                _file(self, f"original{i}", part)
        if not unsafe:
            result = self()
            if not isinstance(result, Tensor):
                raise ValueError(f"a parametrization must return a Tensor, not {type(result).__name__}")
            if result.dtype is not dtype or tuple(result.shape) != shape:
                raise ValueError(
                    f"the parametrization makes {tuple(result.shape)} {result.dtype} of a tensor of shape {shape} and "
                    f"{dtype}; pass unsafe=True if that is wanted"
                )

    def _originals(self) -> list[Tensor]:
        return [self.original] if self.is_tensor else [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the tensor becomes ``value``. Raises RuntimeError, ValueError."""
        with no_grad():
            new: Any = value
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(
                        f"{type(module).__name__} has no right_inverse, without which the tensor cannot be assigned to"
                    )
                new = module.right_inverse(new)
            parts = [new] if self.is_tensor else list(new)
            if len(parts) != self.ntensors:
                raise ValueError(f"right_inverse returned {len(parts)} tensors where {self.ntensors} are kept")
            for original, part in zip(self._originals(), parts, strict=True):
                if not isinstance(part, Tensor):
                    raise ValueError(f"right_inverse must return tensors, not {type(part).__name__}")
                if part.dtype is not original.dtype:
                    raise ValueError(f"right_inverse returned {part.dtype} where {original.dtype} is kept")
                original.data = part.detach()

    def forward(self) -> Tensor:
        first, *rest = self
        result = first(*self._originals())
        for module in rest:
            result = module(result)
        return result


def _class_of(module: Module, base: type, names: Sequence[str]) -> type:
    """A class derived from ``base`` in which ``names`` are computed."""

    def getstate(self: Any) -> Any:
        raise RuntimeError(
            "a parametrized module cannot be pickled, as its class exists in this process only; save its state_dict()"
        )

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        twin: Any = memo.get(id(self))
        if twin is None:
            twin = memo[id(self)] = object.__new__(base)
            twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
            twin.__class__ = _class_of(twin, base, list(self.parametrizations))
        return twin

    body: dict[str, Any] = {"__getstate__": getstate, "__deepcopy__": deepcopy, "__module__": base.__module__}
    body.update((name, _computed(name)) for name in names)
    return type(f"Parametrized{base.__name__}", (base,), body)


def _computed(name: str) -> property:
    def get(self: Any) -> Any:
        if not _cached_depth:
            return self.parametrizations[name]()
        key = (id(self), name)
        if key not in _cache:
            _cache[key] = self.parametrizations[name]()
        return _cache[key]

    def put(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(get, put)


def register_parametrization(module: _M, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> _M:
    """Make the parameter or buffer ``tensor_name`` of ``module`` the result of ``parametrization``, after those
    registered before. A ``right_inverse`` method, if it has one, gives the first original; assigning to the tensor
    needs one. ``unsafe`` allows another shape or dtype. Returns the module. Raises ValueError."""
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        chain = module.parametrizations[tensor_name]
        if not unsafe:
            _check_next(getattr(module, tensor_name), parametrization)
        chain.append(parametrization)
        chain.unsafe = chain.unsafe or unsafe
        return module
    if tensor_name not in module._parameters and tensor_name not in module._buffers:
        raise ValueError(f"{type(module).__name__} has no parameter or buffer '{tensor_name}' to parametrize")
    chain = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe=unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        module.__class__ = _class_of(module, type(module), ())
        module.parametrizations = ModuleDict()
    setattr(type(module), tensor_name, _computed(tensor_name))
    module.parametrizations[tensor_name] = chain
    return module


def _check_next(before: Tensor, parametrization: Module) -> None:
    """That a further parametrization keeps shape and dtype, and its inverse too."""
    with no_grad():
        after = parametrization(before)
        inverse = getattr(parametrization, "right_inverse", None)
        results = [after]
        if inverse is not None and isinstance(after, Tensor):
            try:
                results.append(inverse(after))
            except NotImplementedError:
                pass  # as if it had none
    for result in results:
        if not isinstance(result, Tensor):
            raise ValueError(f"a further parametrization must map a Tensor to a Tensor, not to {type(result).__name__}")
        if result.dtype is not before.dtype or result.shape != before.shape:
            raise ValueError(
                f"the parametrization makes {tuple(result.shape)} {result.dtype} of {tuple(before.shape)} "
                f"{before.dtype}; pass unsafe=True if that is wanted"
            )


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether ``module`` has parametrizations, or one of ``tensor_name``."""
    table = module._modules.get("parametrizations")
    if not isinstance(table, ModuleDict):
        return False
    return len(table) > 0 if tensor_name is None else tensor_name in table


def remove_parametrizations(module: _M, tensor_name: str, leave_parametrized: bool = True) -> _M:
    """Make ``tensor_name`` an ordinary parameter or buffer again, with the computed value, or with the original one
    if not ``leave_parametrized``. Returns the module. Raises ValueError."""
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"{type(module).__name__} has no parametrization of '{tensor_name}'")
    chain = module.parametrizations[tensor_name]
    if chain.is_tensor:
        original = chain.original
        if leave_parametrized:
            with no_grad():
                original.data = getattr(module, tensor_name).detach()
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        original = Parameter(value.detach()) if value.requires_grad else value
    else:
        raise ValueError(
            f"'{tensor_name}' is computed from {chain.ntensors} tensors, none of which is its value before; pass "
            "leave_parametrized=True"
        )
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    _file(module, tensor_name, original)
    return module


def type_before_parametrizations(module: Module) -> type:
    """The class ``module`` had before it was parametrized."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(from_module: Module, to_module: _M, tensor_name: str | None = None) -> _M:
    """Give ``to_module`` the parametrizations of ``from_module`` (of all its tensors, or of ``tensor_name``) and the
    values they compute from. Returns ``to_module``."""
    if not is_parametrized(from_module, tensor_name):
        return to_module
    table: Any = from_module.parametrizations
    for name in list(table) if tensor_name is None else [tensor_name]:
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name).detach()))
        for parametrization in table[name]:
            register_parametrization(to_module, name, parametrization)
        with no_grad():
            for mine, theirs in zip(
                to_module.parametrizations[name]._originals(), table[name]._originals(), strict=True
            ):
                mine.data = theirs.detach()
    return to_module
