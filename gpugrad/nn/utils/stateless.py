"""A module called with other parameters than its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpugrad.nn.module import Module
from gpugrad.tensor import Tensor

_Slots = dict[str, tuple[dict[str, Any], str]]  # dotted name -> (table that holds the tensor, its key there)


def functional_call(
    module: Module,
    parameters_and_buffers: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """``module(*args, **kwargs)`` with the tensors of ``parameters_and_buffers`` (by dotted name; several dicts are
    joined) in the place of its own, which are put back afterwards.

    ``tie_weights``: a tensor given for one name of a shared parameter counts for its other names too. ``strict``:
    all must be given, and no other name. Differentiable in the tensors given. Raises RuntimeError, AttributeError,
    ValueError."""
    if not isinstance(parameters_and_buffers, Mapping):
        given: dict[str, Tensor] = {}
        several = isinstance(parameters_and_buffers, (tuple, list))
        for part in parameters_and_buffers if several else (parameters_and_buffers,):
            if not isinstance(part, Mapping):
                raise ValueError(f"functional_call: expected dicts of tensors by name, got {type(part).__name__}")
            if shared := given.keys() & part.keys():
                raise ValueError(f"functional_call: {', '.join(sorted(shared))} is given in more than one dict")
            given.update(part)
    else:
        given = dict(parameters_and_buffers)
    slots = _slots(module)
    if strict:
        _check_names(module, given, slots, tie_weights)
    if tie_weights:
        _tie(module, given, slots)
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    before = []
    try:
        for name, tensor in given.items():
            if name not in slots:
                raise AttributeError(f"functional_call: {type(module).__name__} has no parameter or buffer '{name}'")
            if not isinstance(tensor, Tensor):
                raise TypeError(f"functional_call: '{name}' must be a Tensor, not {type(tensor).__name__}")
            table, key = slots[name]
            before.append((table, key, table[key]))
            table[key] = tensor
        return module(*args, **dict(kwargs or {}))
    finally:
        for table, key, value in reversed(before):
            table[key] = value


def _slots(module: Module) -> _Slots:
    """Where each parameter and buffer is filed, by dotted name."""
    found = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for table in (owner._parameters, owner._buffers):
            for key, value in table.items():
                if value is not None:
                    found[f"{prefix}.{key}" if prefix else key] = (table, key)
    return found


def _same(slots: _Slots) -> dict[int, list[str]]:
    """Names by the tensor they share."""
    groups: dict[int, list[str]] = {}
    for name, (table, key) in slots.items():
        groups.setdefault(id(table[key]), []).append(name)
    return groups


def _tie(module: Module, given: dict[str, Tensor], slots: _Slots) -> None:
    for names in _same(slots).values():
        chosen = [n for n in names if n in given]
        if chosen and len(names) > 1:
            if any(given[n] is not given[chosen[0]] for n in chosen):
                raise ValueError(
                    f"functional_call: {', '.join(chosen)} are one tensor in {type(module).__name__} but different "
                    "ones are given; pass tie_weights=False if that is wanted"
                )
            for n in names:
                given[n] = given[chosen[0]]


def _check_names(module: Module, given: dict[str, Tensor], slots: _Slots, tie_weights: bool) -> None:
    covered = set(given)
    if tie_weights:
        covered |= {n for names in _same(slots).values() if any(m in given for m in names) for n in names}
    unexpected, missing = sorted(set(given) - set(slots)), sorted(set(slots) - covered)
    if unexpected or missing:
        problems = [f"{what}: {', '.join(names)}" for what, names in
                    (("unexpected keys", unexpected), ("missing keys", missing)) if names]  # fmt: skip
        raise RuntimeError(f"functional_call: the tensors do not fit {type(module).__name__}: {'; '.join(problems)}")
