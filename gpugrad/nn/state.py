"""Saving and loading a module's values: the ``state_dict`` half of Module."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from gpugrad.autograd import no_grad
from gpugrad.nn.parameter import Parameter
from gpugrad.tensor import Tensor

if TYPE_CHECKING:
    from gpugrad.hooks import HookDict, RemovableHandle

_EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` returns: keys the module wanted in vain, keys it has no place for."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class _WithoutModule:
    """A hook called without its first argument."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook

    def __call__(self, module: Any, *args: Any) -> Any:
        return self.hook(*args)


class StateDict:
    """Mixed into :class:`~gpugrad.nn.Module`, whose tables it reads and writes."""

    if TYPE_CHECKING:
        _parameters: dict[str, Any]
        _buffers: dict[str, Any]
        _modules: dict[str, Any]
        _non_persistent_buffers_set: set[str]
        _state_dict_pre_hooks: HookDict
        _state_dict_hooks: HookDict
        _load_state_dict_pre_hooks: HookDict
        _load_state_dict_post_hooks: HookDict
        _forward_pre_hooks: HookDict
        _forward_hooks: HookDict
        _backward_hooks: HookDict
        _backward_pre_hooks: HookDict

    #: of the layout of this class's own values; ``_load_from_state_dict`` finds it in ``local_metadata["version"]``
    _version: int = 1

    def get_extra_state(self) -> Any:
        """Define together with :meth:`set_extra_state` to save more than tensors."""
        raise RuntimeError("get_extra_state is not defined by this module")

    def set_extra_state(self, state: Any) -> None:
        """Take back what :meth:`get_extra_state` gave."""
        raise RuntimeError("set_extra_state is not defined by this module, yet the state dict has an extra state")

    def _has_extra_state(self) -> bool:
        return type(self).get_extra_state is not StateDict.get_extra_state

    # -- saving ----------------------------------------------------------------
    def state_dict(
        self, *args: Any, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Every parameter and persistent buffer under its dotted name (shared memory, detached
        unless ``keep_vars``). The versions of the modules' layouts go into the attribute ``_metadata``."""
        if args:
            warnings.warn(
                "state_dict: name its arguments: destination=, prefix=, keep_vars=", FutureWarning, stacklevel=2
            )
            destination = args[0]
            prefix = args[1] if len(args) > 1 else prefix
            keep_vars = args[2] if len(args) > 2 else keep_vars
        result: Any = OrderedDict() if destination is None else destination
        if destination is None:
            result._metadata = OrderedDict()
        local_metadata = {"version": self._version}
        if hasattr(result, "_metadata"):
            result._metadata[prefix[:-1]] = local_metadata
        for hook in list(self._state_dict_pre_hooks.values()):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(result, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=result, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in list(self._state_dict_hooks.values()):
            replaced = hook(self, result, prefix, local_metadata)
            result = result if replaced is None else replaced
        return result

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Write this module's own values (not its children's)."""
        for name, value in self._own_state().items():
            destination[prefix + name] = value if keep_vars else value.detach()
        if self._has_extra_state():
            destination[prefix + _EXTRA] = self.get_extra_state()

    def _own_state(self) -> dict[str, Tensor]:
        persistent = {k: b for k, b in self._buffers.items() if k not in self._non_persistent_buffers_set}
        return {k: v for k, v in {**self._parameters, **persistent}.items() if v is not None}

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """``hook(module, prefix, keep_vars)`` before ``state_dict`` gathers."""
        return self._state_dict_pre_hooks.add(hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """``hook(module, state_dict, prefix, local_metadata)`` after ``state_dict`` gathered; it may change it in
        place and must return None."""

        def in_place(*args: Any) -> None:
            if hook(*args) is not None:
                raise RuntimeError("a state_dict post hook must change the dict in place and return None")

        return self._state_dict_hooks.add(in_place)

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """The older form of :meth:`register_state_dict_post_hook`, whose result, if any, replaces the dict."""
        return self._state_dict_hooks.add(hook)

    # -- loading -----------------------------------------------------------------
    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values from ``state_dict`` into this module (any device, any dtype).

        ``assign`` puts the given tensors themselves in place instead of copying. With
        ``strict``, missing and unexpected keys are errors; a size mismatch always is.

        Raises TypeError (not a mapping) and RuntimeError (one line per problem found)."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: expected a dict of tensors by name, got {type(state_dict).__name__}")
        state: Any = OrderedDict(state_dict)
        state._metadata = getattr(state_dict, "_metadata", None)
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        self._load_tree(state, "", strict, assign, missing, unexpected, errors)
        keys = IncompatibleKeys(missing, unexpected)
        for module in self._tree():
            for hook in list(module._load_state_dict_post_hooks.values()):
                if hook(module, keys) is not None:
                    raise AssertionError("a load_state_dict post hook must change the keys in place and return None")
        if strict:
            if missing:
                errors.insert(0, "missing keys: " + ", ".join(f'"{k}"' for k in missing))
            if unexpected:
                errors.insert(0, "unexpected keys: " + ", ".join(f'"{k}"' for k in unexpected))
        if errors:
            raise RuntimeError(
                f"load_state_dict: the state dict does not fit {type(self).__name__}:\n\t" + "\n\t".join(errors)
            )
        return keys

    def _tree(self) -> list[Any]:
        """Children first, then this module."""
        found: list[Any] = []
        for module in self._modules.values():
            if module is not None:
                found += module._tree()
        return [*found, self]

    def _load_tree(
        self,
        state: dict[str, Any],
        prefix: str,
        strict: bool,
        assign: bool,
        missing: list[str],
        unexpected: list[str],
        errors: list[str],
    ) -> None:
        metadata: dict[str, Any] = dict((getattr(state, "_metadata", None) or {}).get(prefix[:-1], {}))
        metadata["assign_to_params_buffers"] = assign
        for hook in list(self._load_state_dict_pre_hooks.values()):
            hook(self, state, prefix, metadata, strict, missing, unexpected, errors)
        self._load_from_state_dict(state, prefix, metadata, strict, missing, unexpected, errors)
        for name, module in self._modules.items():
            if module is not None:
                module._load_tree(state, f"{prefix}{name}.", strict, assign, missing, unexpected, errors)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load this module's own values. Subclasses override it to read older layouts."""
        own = self._own_state()
        assign = local_metadata.get("assign_to_params_buffers", False)
        for name, value in own.items():
            key = prefix + name
            if key not in state_dict:
                missing_keys.append(key)
                continue
            problem = _load_value(self, name, value, state_dict[key], assign)
            if problem:
                error_msgs.append(problem.format(key=key))
        extra = prefix + _EXTRA
        if self._has_extra_state():
            if extra in state_dict:
                self.set_extra_state(state_dict[extra])
            else:
                missing_keys.append(extra)
        elif extra in state_dict:
            unexpected_keys.append(extra)
        for key in state_dict:
            if not key.startswith(prefix) or key == extra:
                continue
            first, *rest = key[len(prefix) :].split(".", 1)
            known = first in self._modules if rest else first in own
            if not known:
                unexpected_keys.append(key)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """``hook(module, state_dict, prefix, local_metadata, strict, missing_keys,
        unexpected_keys, error_msgs)`` before this module's values are loaded."""
        return self._load_state_dict_pre_hooks.add(hook)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], with_module: bool = False
    ) -> RemovableHandle:
        """The older form of :meth:`register_load_state_dict_pre_hook`: the hook gets no module unless asked."""
        if with_module:
            return self._load_state_dict_pre_hooks.add(hook)
        return self._load_state_dict_pre_hooks.add(_WithoutModule(hook))

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """``hook(module, incompatible_keys)`` after loading; it may edit the lists in place."""
        return self._load_state_dict_post_hooks.add(hook)


def _load_value(module: Any, name: str, value: Tensor, given: Any, assign: bool) -> str | None:
    """Put ``given`` in the place of ``value``; the text of the problem if it does not fit."""
    if not isinstance(given, Tensor):
        return f'"{{key}}" must be a Tensor, not {type(given).__name__}'
    if tuple(given.shape) != tuple(value.shape):
        return f'"{{key}}" has shape {tuple(given.shape)} in the state dict, {tuple(value.shape)} in the module'
    if not assign:
        with no_grad():
            value.copy_(given)
    elif isinstance(value, Parameter):
        setattr(module, name, given if isinstance(given, Parameter) else Parameter(given, value.requires_grad))
    else:
        setattr(module, name, given)
    return None
