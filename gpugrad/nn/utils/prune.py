"""Pruning: parameters multiplied by masks of 0 and 1 (LeCun et al. 1990).

A pruned parameter ``weight`` becomes ``weight_orig`` and the buffer ``weight_mask``; their product is computed before
each forward. Pruning again works on what is left; :func:`remove` makes it permanent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from gpugrad.nn.module import Module
from gpugrad.ops import creation
from gpugrad.ops.elementwise import where
from gpugrad.ops.joining import cat
from gpugrad.ops.sampling import rand
from gpugrad.tensor import Tensor


def _checked_amount(amount: Any) -> Any:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise TypeError(f"prune: amount must be a number, not {type(amount).__name__}")
    if amount < 0 or (isinstance(amount, float) and amount > 1.0):
        raise ValueError(f"prune: amount={amount} must be a fraction in [0, 1], or a number of elements")
    return amount


def _count(amount: int | float, size: int) -> int:
    if isinstance(amount, float):
        return round(amount * size)
    if amount > size:
        raise ValueError(f"prune: amount={amount} is more than the {size} that are left to prune")
    return amount


def _lowest(scores: Tensor, n: int) -> Tensor:
    """Where the ``n`` lowest of the 1-d ``scores`` are: bool."""
    chosen = creation.zeros(tuple(scores.shape), dtype=scores.dtype, device=scores.device)
    if n:
        chosen = chosen.index_fill(0, scores.topk(n, largest=False).indices, 1.0)
    return chosen != 0


class BasePruningMethod(ABC):
    """A way to prune. Subclasses define :meth:`compute_mask`, and ``PRUNING_TYPE``: what of a tensor that is pruned
    already they get to see (unstructured: the elements left; structured: the channels left; global: all)."""

    PRUNING_TYPE: str = "unstructured"
    _tensor_name: str = ""

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The new mask for scores ``t``: ``default_mask`` with more zeros."""

    def apply_mask(self, module: Module) -> Tensor:
        """The parameter times its mask."""
        original = getattr(module, f"{self._tensor_name}_orig")
        return getattr(module, f"{self._tensor_name}_mask").to(dtype=original.dtype) * original

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """Prune the parameter ``name`` of ``module``; returns the method. ``importance_scores`` (of its shape) are
        used in its place to choose. Raises ValueError."""
        method: Any = cls(*args, **kwargs)
        method._tensor_name = name
        original = getattr(module, name)
        scores = original if importance_scores is None else importance_scores
        if tuple(scores.shape) != tuple(original.shape):
            raise ValueError(
                f"prune: importance_scores of shape {tuple(scores.shape)} must have the parameter's, "
                f"{tuple(original.shape)}"
            )
        earlier = [k for k, h in module._forward_pre_hooks.items() if _prunes(h.call, name)]
        if earlier:
            previous = module._forward_pre_hooks.pop(earlier[0]).call
            container = previous if isinstance(previous, PruningContainer) else PruningContainer(previous)
            container.add_pruning_method(method)
            method = container
            default = getattr(module, f"{name}_mask").detach().clone()
        else:
            parameter = module._parameters.pop(name)
            module.register_parameter(f"{name}_orig", parameter)
            default = creation.ones_like(original.detach())
        mask = method.compute_mask(scores.detach(), default_mask=default)
        module.register_buffer(f"{name}_mask", mask)
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def prune(self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None) -> Tensor:
        """``t`` times the mask computed for it, outside of any module."""
        scores = t if importance_scores is None else importance_scores
        default = creation.ones_like(t) if default_mask is None else default_mask
        return t * self.compute_mask(scores.detach(), default_mask=default)

    def remove(self, module: Module) -> None:
        """Make the pruned values those of an ordinary parameter."""
        name = self._tensor_name
        original = module._parameters[f"{name}_orig"]
        original.data = self.apply_mask(module).detach()
        for attribute in (name, f"{name}_orig", f"{name}_mask"):
            delattr(module, attribute)
        setattr(module, name, original)


def _prunes(hook: Any, name: str) -> bool:
    return isinstance(hook, BasePruningMethod) and hook._tensor_name == name


class PruningContainer(BasePruningMethod):
    """Several methods applied to one parameter, one after the other."""

    def __init__(self, *args: BasePruningMethod) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod) -> None:
        """Append ``method``, which must be for the same parameter. Raises TypeError, ValueError."""
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"prune: {type(method).__name__} is not a BasePruningMethod")
        if self._pruning_methods and method._tensor_name != self._tensor_name:
            raise ValueError(f"prune: this container is for '{self._tensor_name}', not for '{method._tensor_name}'")
        self._tensor_name = method._tensor_name
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Any:
        return iter(self._pruning_methods)

    def __getitem__(self, index: int) -> BasePruningMethod:
        return self._pruning_methods[index]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The latest method's mask, for what the earlier ones left."""
        method = self._pruning_methods[-1]
        if method.PRUNING_TYPE == "global":
            return method.compute_mask(t, default_mask)
        if method.PRUNING_TYPE == "unstructured":
            left = (default_mask.reshape(-1) != 0).nonzero().squeeze(1)
            part = method.compute_mask(
                t.reshape(-1).index_select(0, left), default_mask.reshape(-1).index_select(0, left)
            )
            return default_mask.reshape(-1).index_copy(0, left, part).reshape(default_mask.shape)
        dim = getattr(method, "dim", 0) % t.dim()
        others = tuple(d for d in range(t.dim()) if d != dim)
        left = (default_mask != 0).to(dtype=t.dtype).sum(others).nonzero().squeeze(1)
        part = method.compute_mask(t.index_select(dim, left), default_mask.index_select(dim, left))
        return default_mask.index_copy(dim, left, part)


class Identity(BasePruningMethod):
    """Prunes nothing, but names the parts as if."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask


class RandomUnstructured(BasePruningMethod):
    """Elements at random."""

    def __init__(self, amount: int | float) -> None:
        self.amount = _checked_amount(amount)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return _cut_elements(rand(t.numel(), device=t.device), self.amount, default_mask)


class L1Unstructured(BasePruningMethod):
    """The elements of the smallest magnitude."""

    def __init__(self, amount: int | float) -> None:
        self.amount = _checked_amount(amount)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return _cut_elements(t.abs().reshape(-1), self.amount, default_mask)


def _cut_elements(scores: Tensor, amount: int | float, default_mask: Tensor) -> Tensor:
    cut = _lowest(scores, _count(amount, scores.numel())).reshape(default_mask.shape)
    return where(cut, 0.0, default_mask).to(dtype=default_mask.dtype)


def _cut_channels(scores: Tensor, amount: int | float, dim: int, default_mask: Tensor) -> Tensor:
    cut = _lowest(scores, _count(amount, scores.numel()))
    shape = [-1 if d == dim % default_mask.dim() else 1 for d in range(default_mask.dim())]
    return where(cut.reshape(shape), 0.0, default_mask).to(dtype=default_mask.dtype)


def _check_structure(t: Tensor, dim: int) -> None:
    if t.dim() <= 1:
        raise ValueError(f"prune: a tensor of shape {tuple(t.shape)} has no channels to prune; it needs 2 dimensions")
    if not -t.dim() <= dim < t.dim():
        raise IndexError(f"prune: dim={dim} is out of range for shape {tuple(t.shape)}")


class RandomStructured(BasePruningMethod):
    """Channels (slices along ``dim``) at random."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: int | float, dim: int = -1) -> None:
        self.amount = _checked_amount(amount)
        self.dim = dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        _check_structure(t, self.dim)
        return _cut_channels(rand(t.shape[self.dim], device=t.device), self.amount, self.dim, default_mask)


class LnStructured(BasePruningMethod):
    """Channels (slices along ``dim``) of the smallest ``n``-norm."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: int | float, n: float, dim: int = -1) -> None:
        self.amount = _checked_amount(amount)
        self.n = n
        self.dim = dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        _check_structure(t, self.dim)
        norms = t.transpose(0, self.dim).flatten(1).norm(self.n, dim=1)
        return _cut_channels(norms, self.amount, self.dim, default_mask)


class CustomFromMask(BasePruningMethod):
    """A mask given by hand."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask * self.mask.to(device=default_mask.device, dtype=default_mask.dtype)


# -- the functions people call -----------------------------------------------------------------
def identity(module: Module, name: str) -> Module:
    """Name the parts of ``name`` as if it were pruned. Returns the module, as all below."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: int | float) -> Module:
    """Set ``amount`` elements (or that fraction) of ``name``, chosen at random, to 0."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Module, name: str, amount: int | float, importance_scores: Tensor | None = None) -> Module:
    """Set the ``amount`` elements (or that fraction) of ``name`` of the smallest magnitude to 0."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: int | float, dim: int) -> Module:
    """Set ``amount`` slices (or that fraction) of ``name`` along ``dim``, chosen at random, to 0."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: Module, name: str, amount: int | float, n: float, dim: int, importance_scores: Tensor | None = None
) -> Module:
    """Set the ``amount`` slices (or that fraction) of ``name`` along ``dim`` of the smallest ``n``-norm to 0."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Multiply ``name`` by ``mask``."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Module, str]],
    pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Module, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prune the parameters ``(module, name)`` as if they were one tensor: ``pruning_method(**kwargs)`` chooses among
    all their elements together. Raises TypeError for a method that is not unstructured."""
    chosen = list(parameters)
    scores = {} if importance_scores is None else importance_scores
    if not isinstance(scores, dict):
        raise TypeError(f"prune: importance_scores must be a dict by (module, name), not {type(scores).__name__}")
    if pruning_method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            f"prune: {pruning_method.__name__} prunes channels; only elements are comparable across tensors"
        )
    relevant = [scores.get((m, n), getattr(m, n)).detach() for m, n in chosen]
    masks = [m._buffers.get(f"{n}_mask") for m, n in chosen]
    current = [creation.ones_like(t) if mask is None else mask for t, mask in zip(relevant, masks, strict=True)]
    method: Any = pruning_method(**kwargs)
    method._tensor_name = "temporary"
    whole = PruningContainer(method).compute_mask(
        cat([t.reshape(-1) for t in relevant]), cat([mask.reshape(-1) for mask in current])
    )
    start = 0
    for (module, name), t in zip(chosen, relevant, strict=True):
        custom_from_mask(module, name, whole[start : start + t.numel()].reshape(t.shape))
        start += t.numel()


def remove(module: Module, name: str) -> Module:
    """Make the pruning of ``name`` permanent: an ordinary parameter again. Raises ValueError where it is not pruned."""
    for key, hook in module._forward_pre_hooks.items():
        if _prunes(hook.call, name):
            hook.call.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"prune: '{name}' of {type(module).__name__} is not pruned")


def is_pruned(module: Module) -> bool:
    """Whether a parameter of ``module`` or of one inside it is pruned."""
    return any(
        isinstance(hook.call, BasePruningMethod) for m in module.modules() for hook in m._forward_pre_hooks.values()
    )
