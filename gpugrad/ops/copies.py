"""The copying twins of views: ``permute_copy`` and so on, new memory with what the view shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpugrad.ops import diagonals, movement, splitting, strided
from gpugrad.ops.creation import clone


def _copying(name: str, view: Callable[..., Any]) -> Callable[..., Any]:
    def copy(input: Any, *args: Any, **options: Any) -> Any:
        shown = view(input, *args, **options)
        return tuple(clone(x) for x in shown) if isinstance(shown, tuple) else clone(shown)

    copy.__name__ = copy.__qualname__ = name
    copy.__doc__ = f"A copy of what ``{name.removesuffix('_copy')}`` shows, in memory of its own."
    return copy


def _slice(input: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return movement.slice_view(
        input, index=(slice(None),) * (dim % max(input._array.ndim, 1)) + (slice(start, end, step),)
    )


view_copy = _copying("view_copy", movement.view_as_shape)
alias_copy = _copying("alias_copy", lambda input: input)
detach_copy = _copying("detach_copy", lambda input: input.detach())
as_strided_copy = _copying("as_strided_copy", strided.as_strided)
diagonal_copy = _copying("diagonal_copy", diagonals.diagonal)
expand_copy = _copying("expand_copy", movement.expand)
permute_copy = _copying("permute_copy", movement.permute)
select_copy = _copying("select_copy", movement.select)
slice_copy = _copying("slice_copy", _slice)
split_copy = _copying("split_copy", splitting.split)
split_with_sizes_copy = _copying("split_with_sizes_copy", splitting.split_with_sizes)
squeeze_copy = _copying("squeeze_copy", movement.squeeze)
t_copy = _copying("t_copy", movement.t)
transpose_copy = _copying("transpose_copy", movement.transpose)
unbind_copy = _copying("unbind_copy", splitting.unbind)
unfold_copy = _copying("unfold_copy", strided.unfold)
unsqueeze_copy = _copying("unsqueeze_copy", movement.unsqueeze)
