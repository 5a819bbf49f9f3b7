"""The base of all optimizers: parameter groups, their state, saving and loading it."""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from gpugrad import dtypes
from gpugrad.autograd import enable_grad
from gpugrad.autograd.modes import mode
from gpugrad.hooks import HookDict, RemovableHandle
from gpugrad.ops import creation
from gpugrad.tensor import Tensor

State = dict[str, Any]
#: what an optimizer takes: tensors, (name, tensor) pairs, or dicts with "params" and options
ParamsT = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
_STATE_HOOKS = ("before_saving", "after_saving", "before_loading", "after_loading")


def run_step(step: Callable[..., Any], optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
    """The step itself. The profiler replaces this to name what the step calls."""
    return step(optimizer, *args, **kwargs)


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` counted, and with the step hooks run around it: once, also where a subclass's
    step calls its base's."""

    @functools.wraps(step)
    def wrapped(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if self._stepping:
            return step(self, *args, **kwargs)
        self._stepping = True
        try:
            for hook in list(self._step_pre_hooks.values()) if self._step_pre_hooks else ():
                new = hook(self, args, kwargs)
                if new is not None:
                    if not (isinstance(new, tuple) and len(new) == 2):
                        raise RuntimeError(
                            f"a step pre-hook returns either None or the pair (args, kwargs) to go on with, not {new!r}"
                        )
                    args, kwargs = new
            result = run_step(step, self, args, kwargs)
            for hook in list(self._step_post_hooks.values()) if self._step_post_hooks else ():
                hook(self, args, kwargs)
        finally:
            self._stepping = False
        self._step_calls += 1
        return result

    return wrapped


class Optimizer:
    """Changes parameters by their gradients. Subclasses define :meth:`_update` for one group.

    ``params``: an iterable of tensors, of (name, tensor) pairs, or of dicts with "params" and
    options of their own. ``defaults``: the options of groups that do not set them.

    Raises TypeError, ValueError for parameters that cannot be optimised or are listed twice."""

    #: what is a number in the state of a parameter, not a tensor (unless ``capturable``)
    _numbers: tuple[str, ...] = ()
    #: whether a step asks for all numbers that change from step to step by ``gpugrad.live``, so that it can be compiled
    traceable = False

    _step_pre_hooks: HookDict
    _step_post_hooks: HookDict
    _state_hooks: dict[str, HookDict]
    _stepping: bool
    _step_calls: int

    def __new__(cls, *args: Any, **kwargs: Any) -> Optimizer:
        # Not in __init__, which optimizers that wrap another one often do not call; also for unpickling.
        self = super().__new__(cls)
        self._step_pre_hooks, self._step_post_hooks = HookDict(), HookDict()
        self._state_hooks = {name: HookDict() for name in _STATE_HOOKS}
        self._stepping = False
        self._step_calls = 0
        return self

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state: defaultdict[Any, State] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        if isinstance(params, Tensor):
            raise TypeError(
                f"{type(self).__name__}: params is a single Tensor of shape {tuple(params.shape)}; put it in a list"
            )
        groups = list(params)
        if not groups:
            raise ValueError(
                f"{type(self).__name__}: there are no parameters to optimize; an iterator may have been used up"
            )
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "traceable" not in cls.__dict__ and ("step" in cls.__dict__ or "_update" in cls.__dict__):
            cls.traceable = False  # a step of its own, which may not keep to it
        if "step" in cls.__dict__:
            cls.step = _with_hooks(cls.__dict__["step"])  # type: ignore[method-assign]

    # -- stepping --------------------------------------------------------------
    @_with_hooks
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient. ``closure`` computes the loss anew; its
        result is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        before = mode.enabled
        mode.enabled = bool(self.defaults.get("differentiable", False))
        try:
            self._prepare()
            for group in self.param_groups:
                self._update(group)
        finally:
            mode.enabled = before
        return loss

    def _prepare(self) -> None:
        """What a step does once, before it goes through the groups."""

    def _update(self, group: dict[str, Any]) -> None:
        """One step for the parameters of ``group``."""
        raise NotImplementedError(f"{type(self).__name__} must define step(closure) or _update(group)")

    def _active(self, group: dict[str, Any], new_state: Callable[[Tensor], State]) -> tuple[list[Any], ...]:
        """Parameters of ``group`` that have gradients, those gradients, and their states, which
        ``new_state`` makes on first use."""
        params = [p for p in group["params"] if p._grad is not None]
        grads = [p._grad for p in params]
        of = self.state
        states = [of[p] for p in params]
        for p, state in zip(params, states, strict=True):
            if not state:
                state.update(new_state(p))
        return params, grads, states

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters (or fill them with 0)."""
        for group in self.param_groups:
            for p in group["params"]:
                if p._grad is None:
                    continue
                if set_to_none:
                    p._grad = None
                else:
                    p.grad = p.grad.detach().zero_()

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """``hook(optimizer, args, kwargs)`` before each step; may return new (args, kwargs)."""
        return self._step_pre_hooks.add(hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """``hook(optimizer, args, kwargs)`` after each step."""
        return self._step_post_hooks.add(hook)

    # -- groups ------------------------------------------------------------------
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own. Raises TypeError, ValueError."""
        if not isinstance(param_group, dict):
            raise TypeError(f"add_param_group: expected a dict, got {type(param_group).__name__}")
        group = dict(param_group)
        given = group["params"]
        if isinstance(given, Tensor):
            given = [given]
        elif isinstance(given, set):
            raise TypeError(
                f"{type(self).__name__}: params is a set, which has no fixed order to file states by; pass a list"
            )
        params, names = _split_names(list(given))
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"{type(self).__name__}: every parameter must be a Tensor, not {type(p).__name__}")
            if not self.defaults.get("differentiable") and not (p.is_leaf or getattr(p, "retains_grad", False)):
                raise ValueError(
                    f"{type(self).__name__}: a parameter of shape {tuple(p.shape)} is no leaf but computed from other "
                    "tensors; optimize those"
                )
        if len({id(p) for p in params}) != len(params):
            warnings.warn(
                f"{type(self).__name__}: a parameter is listed twice in one group, and each step will change it twice",
                stacklevel=3,
            )
        known = {id(p) for g in self.param_groups for p in g["params"]}
        if any(id(p) in known for p in params):
            raise ValueError(f"{type(self).__name__}: a parameter of this group already belongs to another one")
        if self.param_groups and bool(names) != ("param_names" in self.param_groups[0]):
            raise ValueError(
                f"{type(self).__name__}: parameter groups with and without names cannot be mixed; name all or none"
            )
        group["params"] = params
        if names:
            group["param_names"] = names
        for name, default in self.defaults.items():
            if default is REQUIRED and name not in group:
                raise ValueError(
                    f"{type(self).__name__}: the option {name} has no default and is missing in a parameter group"
                )
            group.setdefault(name, default)
        self._check_group(group)
        self.param_groups.append(group)

    def _check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for options that make no sense."""

    # -- saving --------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """``{"state": {number: state of that parameter}, "param_groups": [options and numbers]}``;
        parameters are numbered in the order of the groups. Tensors share memory."""
        for hook in list(self._state_hooks["before_saving"].values()):
            hook(self)
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                numbers.setdefault(id(p), len(numbers))
            packed = {k: v for k, v in group.items() if k != "params"}
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            groups.append(packed)
        # Optimizers of users keep other things beside the states of parameters, under names.
        state = {
            numbers[id(p)] if isinstance(p, Tensor) else p: s
            for p, s in self.state.items()
            if id(p) in numbers or not isinstance(p, Tensor)
        }
        result: dict[str, Any] = {"state": state, "param_groups": groups}
        for hook in list(self._state_hooks["after_saving"].values()):
            result = hook(self, result) or result
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over options and state saved by :meth:`state_dict`: tensors are copied to the
        device and (floating ones) the dtype of their parameter. Raises ValueError where groups differ."""
        for hook in list(self._state_hooks["before_loading"].values()):
            state_dict = hook(self, state_dict) or state_dict
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise ValueError(
                f"load_state_dict: {len(saved)} parameter groups were saved, this {type(self).__name__} has "
                f"{len(self.param_groups)}"
            )
        for mine, other in zip(self.param_groups, saved, strict=True):
            if len(mine["params"]) != len(other["params"]):
                raise ValueError(
                    f"load_state_dict: a group was saved with {len(other['params'])} parameters, this "
                    f"{type(self).__name__}'s has {len(mine['params'])}"
                )
        by_number = {
            number: p
            for mine, other in zip(self.param_groups, saved, strict=True)
            for number, p in zip(other["params"], mine["params"], strict=True)
        }
        state: defaultdict[Any, State] = defaultdict(dict)
        for number, values in state_dict["state"].items():
            p = by_number.get(number)
            if p is None:
                state[number] = deepcopy(values)
            else:
                state[p] = {k: self._loaded(k, v, p) for k, v in values.items()}
        groups = []
        for mine, other in zip(self.param_groups, saved, strict=True):
            options = deepcopy({k: v for k, v in other.items() if k != "params"})
            groups.append({**{k: v for k, v in mine.items() if k not in options}, **options, "params": mine["params"]})
        self.__setstate__({"state": state, "param_groups": groups})  # subclasses add options that are newer
        for hook in list(self._state_hooks["after_loading"].values()):
            hook(self)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """``hook(optimizer)`` before :meth:`state_dict`."""
        return self._state_hooks["before_saving"].add(hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """``hook(optimizer, state_dict)`` after :meth:`state_dict`; may return another dict."""
        return self._state_hooks["after_saving"].add(hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """``hook(optimizer, state_dict)`` before :meth:`load_state_dict`; may return another dict."""
        return self._state_hooks["before_loading"].add(hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """``hook(optimizer)`` after :meth:`load_state_dict`."""
        return self._state_hooks["after_loading"].add(hook, prepend)

    def _loaded(self, key: str, value: Any, p: Tensor) -> Any:
        """A saved value as this optimizer keeps it for ``p``."""
        if key in self._numbers:
            return loaded_number(key, value, p, bool(self.defaults.get("capturable")))
        if isinstance(value, dict):
            return {k: self._loaded(k, v, p) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._loaded(key, v, p) for v in value)
        if not isinstance(value, Tensor):
            return deepcopy(value)
        dtype = p.dtype if p.is_floating_point() and value.is_floating_point() and key != "step" else None
        return value.detach().to(device=p.device, dtype=dtype).clone()

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {group[k]}" for k in sorted(group) if k not in ("params", "param_names")]
        return "\n".join([*lines, ")"])


REQUIRED = object()
required = REQUIRED


def _split_names(given: list[Any]) -> tuple[list[Any], list[str]]:
    """Parameters, and their names if they came as (name, tensor) pairs."""
    named = [isinstance(p, tuple) and len(p) == 2 for p in given]
    if not any(named):
        return given, []
    if not all(named):
        raise ValueError("parameters with and without names cannot be mixed; name all of them or none")
    return [p for _, p in given], [name for name, _ in given]


def check_flags(foreach: bool | None, fused: bool | None, differentiable: bool) -> None:
    """PyTorch's switches between implementations; here they choose nothing, as there is one
    definition, which a backend may run in one kernel. Raises RuntimeError where they contradict."""
    if fused and foreach:
        raise RuntimeError("fused=True and foreach=True exclude each other; set one of them")
    if fused and differentiable:
        raise RuntimeError("fused=True and differentiable=True exclude each other; set one of them")


def at_least(value: Any, least: float, what: str) -> None:
    """Raise ValueError unless ``value >= least`` (a NaN fails too)."""
    if not float(value) >= least:
        raise ValueError(f"{what} must be at least {least:g}, got {value}")


def check_lr(lr: Any) -> None:
    """Raise ValueError unless ``lr`` is a number >= 0 or a tensor of one element."""
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError(f"lr must be a number or a tensor of one element, not of shape {tuple(lr.shape)}")
    elif not lr >= 0.0:
        raise ValueError(f"lr must be at least 0, got {lr}")


def check_betas(betas: Any) -> None:
    """Raise ValueError unless both are in [0, 1), and both numbers or both tensors of one element."""
    if len({isinstance(beta, Tensor) for beta in betas}) > 1:
        raise ValueError(f"betas must be two numbers or two tensors, got {betas}")
    for i, beta in enumerate(betas):
        if isinstance(beta, Tensor) and beta.numel() != 1:
            raise ValueError(f"betas[{i}] must be a number or a tensor of one element, not of {tuple(beta.shape)}")
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"betas[{i}] must lie in [0, 1), got {beta}")


def new_number(p: Tensor, capturable: bool, value: float = 0) -> Any:
    """A number in the state of ``p``, as a count of steps: a Python number, or (for replaying recorded steps) a
    tensor on the device."""
    return creation.full((), float(value), dtype=dtypes.float32, device=p.device) if capturable else value


def loaded_number(key: str, value: Any, p: Tensor, capturable: bool) -> Any:
    """A saved number (a number here, a tensor in PyTorch's files) as :func:`new_number` makes it."""
    number = value.item() if isinstance(value, Tensor) else value
    return new_number(p, capturable, int(number) if key == "step" else float(number))


def at(value: Any, p: Tensor | None) -> Any:
    """``value`` where ``p`` is, if it is a tensor (a learning rate may be)."""
    return value.to(device=p.device) if p is not None and isinstance(value, Tensor) else value
