"""Lines about gradients: backward passes, first and second derivatives, leaving the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.fuzz.builder import Builder
from tests.fuzz.programs import NAME


def _recorded(x: Any) -> bool:
    return x.requires_grad and x.is_floating_point()


def backward(b: Builder) -> None:
    """A backward pass from one tensor."""
    x = b.pick(_recorded)
    if x:
        b.run(f"weigh({x}).backward({b.one(('', 'retain_graph=True', 'retain_graph=True'))})")


def gradients(b: Builder) -> None:
    """Gradients as tensors, maybe to be differentiated again."""
    x = b.pick(lambda t: _recorded(t) and not t.is_leaf)
    if x is None:
        return
    # PyTorch gives a view another place in the graph when its memory is written in any way.
    y = b.pick(lambda t: _recorded(t) and (t is b[x] or t.is_leaf or not t._is_view()))
    if y is None:
        return
    more = b.one(("create_graph=True", "create_graph=True", "retain_graph=True", ""))
    z = b.pick(lambda t: _recorded(t) and t.is_leaf) if b.choose(2) else None
    wanted = f"[{y}, {z}]" if z and z != y else f"[{y}]"
    separate = f", {more}" if more else ""
    names = f"v{b.count}, v{b.count + 1}" if "," in wanted else f"(v{b.count},)"
    b.count += 1 + ("," in wanted)
    if b.run(f"{names} = gradients({x}, {wanted}{separate})"):
        for k in range(b.count - 1 - ("," in wanted), b.count):
            if hasattr(b.runner.names.get(f"v{k}"), "detach"):
                b._note(f"v{k}", False)


def _alone(b: Builder, name: str) -> bool:
    memory = b.runner.memory(b[name])
    return (
        memory is not None
        and all(b.runner.memory(b[n]) != memory for n in b.exact if n != name)
        and not any(b[n]._base is b[name] for n in b.exact)
    )


def _unseen(b: Builder, name: str) -> bool:
    """Whether no derivative can depend on the memory of a tensor: what is written through ``.data`` is not noticed."""
    memory = b.runner.memory(b[name])
    names = [n for n in b.runner.names if NAME.fullmatch(n) and hasattr(b[n], "detach")]
    alike = {n for n in names if b.runner.memory(b[n]) == memory}
    graph = [line for line in b.lines if "grad" in line or "@" in line or "*" in line or "/" in line]
    return not any(b[n].requires_grad for n in alike) and not any(alike & set(NAME.findall(line)) for line in graph)


def leave(b: Builder) -> None:
    """Leaving the graph, or entering it."""
    x = b.pick(lambda t: t.is_floating_point())
    if x is None:
        return
    kind = b.choose(6)
    if kind == 0:
        b.define(f"{x}.detach().requires_grad_()")
    elif kind == 1:
        if _alone(b, x):  # PyTorch's views want a gradient as soon as their base does
            b.run(f"{x}.requires_grad_()")
    elif kind == 2 and b.tame(b[x]) and b.writable(b[x]):
        b.change(f"with T.no_grad(): {x}.{b.one(('add_(1)', 'mul_(2)', 'zero_()', 'neg_()'))}", x)
    elif kind == 3 and b.tame(b[x]) and b.writable(b[x]) and _unseen(b, x):
        b.change(f"{x}.data.{b.one(('add_(1)', 'mul_(2)', 'zero_()'))}", x)
    elif kind == 4:
        if _alone(b, x) and not b[x].is_leaf:
            b.run(f"{x}.detach_()")
    else:
        name = f"v{b.count}"
        b.count += 1
        y = b.pick(lambda t: t.is_floating_point() and b.tame(t))
        if y and b.run(f"with T.no_grad(): {name} = {b.one((f'{y} * 2', f'{y} + 1'))}"):
            b._note(name, b.exact[y])


def final(b: Builder) -> None:
    """A backward pass from all that wants one."""
    wanted = [n for n in b.exact if _recorded(b[n])]
    if wanted:
        b.run(f"weigh({', '.join(wanted[-6:])}).backward()")


KINDS: dict[Callable[[Builder], None], int] = {backward: 2, gradients: 3, leave: 4}
