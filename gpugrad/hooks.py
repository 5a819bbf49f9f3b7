"""Tables of hooks, and handles that take a hook out again."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

_ids = itertools.count()


class RemovableHandle:
    """What registering a hook returns: ``remove()`` takes the hook out again; as a context
    manager it does so on leaving. Holds the table weakly: a handle kept keeps nothing alive."""

    def __init__(self, hooks: HookDict) -> None:
        self.id = next(_ids)
        self._hooks = weakref.ref(hooks)

    def remove(self) -> None:
        """Take the hook out; a second call does nothing."""
        hooks = self._hooks()
        if hooks is not None:
            hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


class HookDict(dict[int, Any]):
    """Hooks by the id of their handle, in the order they run. (A plain dict cannot be referred
    to weakly.)"""

    __slots__ = ("__weakref__",)

    def add(self, hook: Any, prepend: bool = False) -> RemovableHandle:
        """Register ``hook`` (anything the owner knows how to run) last, or first with ``prepend``."""
        handle = RemovableHandle(self)
        if prepend:
            rest = dict(self)
            self.clear()
            self[handle.id] = hook
            self.update(rest)
        else:
            self[handle.id] = hook
        return handle

    def __reduce__(self) -> Any:
        return (HookDict, (), None, None, iter(self.items()))
