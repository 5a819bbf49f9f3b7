"""The base of every layer and model: :class:`Module`.

A module is a tree of modules, each owning parameters (learned tensors) and buffers (kept
tensors). Assigning a Parameter, Buffer or Module as an attribute files it in the matching
table; everything else (moving, saving, listing) walks those tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from gpugrad import dtypes
from gpugrad.hooks import HookDict, RemovableHandle
from gpugrad.nn.boundary import BackwardHooks
from gpugrad.nn.global_hooks import CALLS, REGISTRATIONS, CallHook, of_kind, registered
from gpugrad.nn.parameter import Buffer, Parameter
from gpugrad.nn.state import StateDict
from gpugrad.ops import creation
from gpugrad.tensor import Tensor

_M = TypeVar("_M", bound="Module")

_TABLES = ("_parameters", "_buffers", "_modules")
_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class Module(StateDict):
    """Base class of neural network modules.

    Subclasses call ``super().__init__()`` first, assign parameters, buffers and submodules as
    attributes, and define ``forward``. ``module(...)`` runs the hooks and ``forward``.
    """

    training: bool

    #: whether ``__init__`` goes on to the next base class, with the arguments it was given
    call_super_init: bool = False
    dump_patches: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init and (args or kwargs):
            given = ", ".join([*map(repr, args), *(f"{k}=" for k in kwargs)])
            raise TypeError(f"{type(self).__name__}: Module.__init__() takes no arguments, got {given}")
        tables: dict[str, Any] = {name: {} for name in _TABLES}
        tables.update((name, HookDict()) for name in _HOOKS)
        # Filling __dict__ directly: __setattr__ below needs the tables to be there already.
        self.__dict__.update(tables, _non_persistent_buffers_set=set(), training=True)
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    # -- calling -------------------------------------------------------------
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes. Every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} cannot be called: it defines no forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own = self.__dict__  # as attributes these would take twice as long to find, for a class with __getattr__
        try:
            hooked = own["_forward_pre_hooks"] or own["_forward_hooks"] or own["_backward_hooks"]
            hooked = hooked or own["_backward_pre_hooks"] or CALLS
        except KeyError:  # no __init__ ran, which the attribute says, or a class has them in another place
            hooked = self._forward_pre_hooks or self._forward_hooks or self._backward_hooks
            hooked = hooked or self._backward_pre_hooks or CALLS
        if hooked:
            return self._call_with_hooks(args, kwargs)
        return self.forward(*args, **kwargs)

    _call_impl = __call__

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        ran = set()
        after = [*of_kind(CALLS, "forward"), *self._forward_hooks.values()]
        try:
            for hook in [*of_kind(CALLS, "forward_pre"), *self._forward_pre_hooks.values()]:
                args, kwargs = self._run_pre_hook(hook, args, kwargs)
            backward = [*of_kind(CALLS, "backward"), *self._backward_hooks.values()]
            before = [*of_kind(CALLS, "backward_pre"), *self._backward_pre_hooks.values()]
            boundary = None
            if backward or before:
                boundary = BackwardHooks(self, backward, before)
                args = boundary.wrap_inputs(args)
            result = self.forward(*args, **kwargs)
            after = [*of_kind(CALLS, "forward"), *self._forward_hooks.values()]
            for i, hook in enumerate(after):
                ran.add(i)
                result = self._run_hook(hook, args, kwargs, result)
            return boundary.wrap_output(result) if boundary is not None else result
        except Exception:
            for i, hook in enumerate(after):
                if hook.always_call and i not in ran:
                    self._run_hook(hook, args, kwargs, None)
            raise

    def _run_pre_hook(self, hook: CallHook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if hook.with_kwargs:
            new = hook.call(self, args, kwargs)
            if new is None:
                return args, kwargs
            if isinstance(new, tuple) and len(new) == 2:
                return new
            raise RuntimeError(
                f"a forward pre-hook with with_kwargs=True must return None or (args, kwargs), not {type(new).__name__}"
            )
        new = hook.call(self, args)
        if new is not None:
            args = new if isinstance(new, tuple) else (new,)
        return args, kwargs

    def _run_hook(self, hook: CallHook, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        new = hook.call(self, args, kwargs, result) if hook.with_kwargs else hook.call(self, args, result)
        return result if new is None else new

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """``hook(module, args)`` before each forward; a result replaces ``args``. With
        ``with_kwargs``: ``hook(module, args, kwargs)``, which may return ``(args, kwargs)``."""
        return self._forward_pre_hooks.add(CallHook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """``hook(module, args, output)`` after each forward; a result replaces the output.
        With ``with_kwargs``: ``hook(module, args, kwargs, output)``. With ``always_call`` it
        runs (output None) even where forward raised."""
        return self._forward_hooks.add(CallHook(hook, with_kwargs, always_call), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """``hook(module, grad_input, grad_output)`` whenever gradients of the positional inputs
        are there; a result replaces ``grad_input``."""
        return self._backward_hooks.add(hook, prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """The old name of :meth:`register_full_backward_hook`, whose meaning it has here."""
        return self.register_full_backward_hook(hook)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """``hook(module, grad_output)`` before the module's backward; a result replaces it."""
        return self._backward_pre_hooks.add(hook, prepend)

    # -- registration and attribute access ------------------------------------
    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """File ``param`` under ``name``; None reserves the name."""
        self._check_name(name, "_parameters", "parameter")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"register_parameter: '{name}' must be a Parameter or None, not {type(param).__name__}; wrap it in "
                "gpugrad.nn.Parameter()"
            )
        if param is not None and not param.is_leaf:
            raise ValueError(
                f"register_parameter: '{name}' was computed from other tensors and cannot be trained; register those "
                "and compute it in forward()"
            )
        self._parameters[name] = registered("parameter", self, name, param) if REGISTRATIONS else param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """File ``tensor`` (or None) under ``name``; ``persistent=False`` leaves it out of ``state_dict``."""
        self._check_name(name, "_buffers", "buffer")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"register_buffer: '{name}' must be a Tensor or None, not {type(tensor).__name__}")
        self._buffers[name] = registered("buffer", self, name, tensor) if REGISTRATIONS else tensor
        self._non_persistent_buffers_set.discard(name)
        if not persistent:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """File ``module`` (or None) as the child ``name``."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"add_module: '{name}' must be a Module or None, not {type(module).__name__}")
        self._check_name(name, "_modules", "module")
        self._modules[name] = registered("module", self, name, module) if REGISTRATIONS else module

    def register_module(self, name: str, module: Module | None) -> None:
        """Same as :meth:`add_module`."""
        self.add_module(name, module)

    def _check_name(self, name: str, table: str, kind: str) -> None:
        if table not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before the first {kind} is assigned")
        if not isinstance(name, str):
            raise TypeError(f"the name of a {kind} must be a str, not {type(name).__name__}")
        if "." in name:
            raise KeyError(f"the name of a {kind} must not contain '.', which separates modules: '{name}'")
        if name == "":
            raise KeyError(f"the name of a {kind} must not be empty")
        if name not in self.__dict__[table] and hasattr(self, name):
            raise KeyError(
                f"{type(self).__name__} already has an attribute '{name}'; choose another name for the {kind}"
            )

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        filed = own.get("_parameters")
        if filed is not None and name in filed:
            return filed[name]
        for table in _TABLES:
            filed = own.get(table)
            if filed and name in filed:
                return filed[name]
        if "_parameters" not in own:
            raise AttributeError(
                f"'{type(self).__name__}' has no attribute '{name}': its __init__ has not called super().__init__()"
            )
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, Parameter):
            self._make_room(name, "_parameters", "parameters")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._make_room(name, "_modules", "module")
            self.add_module(name, value)
        elif isinstance(value, Buffer):
            self._make_room(name, "_buffers", "buffer")
            self.register_buffer(name, value, value.persistent)
        elif name in own.get("_parameters", ()):
            if value is not None:
                raise TypeError(
                    f"parameter '{name}' can be set to a gpugrad.nn.Parameter or None, not {type(value).__name__}; "
                    "delete it first to store something else"
                )
            own["_parameters"][name] = None
        elif name in own.get("_modules", ()):
            if value is not None:
                raise TypeError(
                    f"module '{name}' can be set to a gpugrad.nn.Module or None, not {type(value).__name__}; "
                    "delete it first to store something else"
                )
            own["_modules"][name] = None
        elif name in own.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"buffer '{name}' can be set to a gpugrad.nn.Buffer, a Tensor or None, not {type(value).__name__}; "
                    "delete it first to store something else"
                )
            own["_buffers"][name] = value
        else:
            object.__setattr__(self, name, value)

    def _make_room(self, name: str, table: str, kind: str) -> None:
        """Take ``name`` out of wherever else it may be filed."""
        if table not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before the first {kind} is assigned")
        self.__dict__.pop(name, None)
        for other in _TABLES:
            if other != table:
                self.__dict__[other].pop(name, None)
        if table != "_buffers":
            self._non_persistent_buffers_set.discard(name)

    def __delattr__(self, name: str) -> None:
        for table in _TABLES:
            if name in self.__dict__.get(table, ()):
                del self.__dict__[table][name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*object.__dir__(self), *self._parameters, *self._buffers, *self._modules}
        return sorted(n for n in names if not n[0].isdigit())

    # -- listing -------------------------------------------------------------
    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Every module of the tree with its dotted name, parents first; each once."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """Every module of the tree, itself first."""
        return (module for _, module in self.named_modules(remove_duplicate=remove_duplicate))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct submodules with their names; each once."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """Direct submodules."""
        return (module for _, module in self.named_children())

    def _named_members(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for module_name, module in modules:
            for name, value in module.__dict__[table].items():
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield (f"{module_name}.{name}" if module_name else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters with their dotted names; a shared one once, under its first name."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters, a shared one once."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Buffers with their dotted names."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module of dotted name ``target`` ("" is itself). Raises AttributeError."""
        module = self
        for name in target.split(".") if target else ():
            child = module._modules.get(name)
            if child is None:
                raise AttributeError(f"{type(module).__name__} has no submodule `{name}` (looking for '{target}')")
            module = child
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put ``module`` in the place of dotted name ``target``, which with ``strict`` must exist.
        Raises ValueError, AttributeError."""
        if not target:
            raise ValueError("set_submodule: target is empty; name the submodule to replace")
        parent, _, name = target.rpartition(".")
        owner = self.get_submodule(parent)
        if strict and name not in owner._modules:
            raise AttributeError(f"{type(owner).__name__} has no submodule `{name}` (looking for '{target}')")
        setattr(owner, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of dotted name ``target``. Raises AttributeError."""
        return self._get_member(target, "_parameters", "parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer of dotted name ``target``. Raises AttributeError."""
        return self._get_member(target, "_buffers", "buffer")

    def _get_member(self, target: str, table: str, kind: str) -> Any:
        parent, _, name = target.rpartition(".")
        module = self.get_submodule(parent)
        if module.__dict__[table].get(name) is None:
            raise AttributeError(f"`{name}` is not a {kind} of {type(module).__name__} (looking for '{target}')")
        return module.__dict__[table][name]

    # -- changing the whole tree ------------------------------------------------
    def apply(self: _M, fn: Callable[[Module], Any]) -> _M:
        """Call ``fn`` on every module of the tree, children first. Returns self."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def train(self: _M, mode: bool = True) -> _M:
        """Set training mode (dropout on, batch statistics used) for the tree. Returns self."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be a bool, not {type(mode).__name__}")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: _M) -> _M:
        """Set evaluation mode for the tree. Returns self."""
        return self.train(False)

    def requires_grad_(self: _M, requires_grad: bool = True) -> _M:
        """Set ``requires_grad`` of every parameter. Returns self."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters (or fill them with 0)."""
        for p in self.parameters():
            if p.grad is not None:
                if set_to_none:
                    p.grad = None
                else:
                    p.grad = p.grad.detach().zero_()

    def _apply(self: _M, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _M:
        """Replace the data of every parameter, gradient and buffer by ``fn`` of it. Parameters
        stay the same objects, so optimizers that hold them keep working."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        for p in self._parameters.values():
            if p is not None:
                grad = p.grad
                p.data = fn(p.detach())
                if grad is not None:
                    p.grad = fn(grad.detach())
        for name, b in self._buffers.items():
            if b is not None:
                self._buffers[name] = fn(b)
        return self

    def to(self: _M, *args: Any, **kwargs: Any) -> _M:
        """``to(device)``, ``to(dtype)``, ``to(device, dtype)`` or ``to(tensor)``: move all
        parameters and buffers; a dtype (floating only, else TypeError) converts those that
        are floating. Returns self."""
        device, dtype, non_blocking = _parse_to(*args, **kwargs)
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"Module.to: parameters can only be converted to floating-point dtypes, not {dtype}")

        def convert(t: Tensor) -> Tensor:
            return t.to(device=device, dtype=dtype if t.is_floating_point() else None, non_blocking=non_blocking)

        return self._apply(convert)

    def cpu(self: _M) -> _M:
        """Move to the cpu. Returns self."""
        return self.to(device="cpu")

    def cuda(self: _M, device: Any = None) -> _M:
        """Move to a CUDA device (default: the first). Returns self."""
        return self.to(device=_indexed("cuda", device))

    def opencl(self: _M, device: Any = None) -> _M:
        """Move to an OpenCL device (default: the first). Returns self."""
        return self.to(device=_indexed("opencl", device))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Taken for PyTorch's sake; nothing is compiled."""

    def share_memory(self) -> Any:
        """Raises NotImplementedError: the memory of a tensor belongs to its process."""
        raise NotImplementedError(
            "Module.share_memory: tensors are not shared between processes; save the state_dict() to a file instead"
        )

    def to_empty(self: _M, *, device: Any, recurse: bool = True) -> _M:
        """Move to ``device`` without copying: all values are uninitialised. Returns self."""
        return self._apply(lambda t: creation.empty_like(t, device=device), recurse)

    def type(self: _M, dst_type: Any) -> _M:
        """Convert all parameters and buffers to a dtype. Returns self."""
        return self._apply(lambda t: t.to(dtype=dst_type))

    def float(self: _M) -> _M:
        """Floating parameters and buffers to float32. Returns self."""
        return self.to(dtype=dtypes.float32)

    def double(self: _M) -> _M:
        """Floating parameters and buffers to float64. Returns self."""
        return self.to(dtype=dtypes.float64)

    def half(self: _M) -> _M:
        """Floating parameters and buffers to float16. Returns self."""
        return self.to(dtype=dtypes.float16)

    def bfloat16(self: _M) -> _M:
        """Floating parameters and buffers to bfloat16. Returns self."""
        return self.to(dtype=dtypes.bfloat16)

    # -- repr ----------------------------------------------------------------
    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses before the submodules."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): {_indented(repr(module))}" for name, module in self._modules.items()]
        return _tree_repr(self._get_name(), lines, children)


def _tree_repr(name: str, extra: list[str], children: list[str]) -> str:
    if len(extra) == 1 and not children:
        return f"{name}({extra[0]})"
    lines = extra + children
    if not lines:
        return f"{name}()"
    return f"{name}(\n  " + "\n  ".join(lines) + "\n)"


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def _indexed(kind: str, device: Any) -> Any:
    if device is None:
        return kind
    return f"{kind}:{device}" if isinstance(device, int) else device


def _parse_to(
    *args: Any,
    device: Any = None,
    dtype: Any = None,
    non_blocking: bool = False,
    memory_format: Any = None,
    tensor: Tensor | None = None,
) -> tuple[Any, Any, bool]:
    """The arguments of ``Module.to`` as ``(device, dtype, non_blocking)``."""
    for arg in args:
        if isinstance(arg, Tensor):
            tensor = arg
        elif isinstance(arg, bool):
            non_blocking = arg
        elif isinstance(arg, dtypes.DType):
            dtype = arg
        elif arg is not None:
            device = arg
    if tensor is not None:
        return tensor.device, tensor.dtype, non_blocking
    return device, dtype, non_blocking
