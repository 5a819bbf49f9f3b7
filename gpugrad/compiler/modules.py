"""A module whose calls run compiled."""

from __future__ import annotations

from typing import Any

from gpugrad.compiler.compiled import Compiled
from gpugrad.nn.module import Module


class CompiledModule(Module):
    """Stands in for ``module``: same parameters under the same names, same attributes; calls run compiled."""

    def __init__(self, module: Module, fullgraph: bool = False, disable: bool = False) -> None:
        super().__init__()
        self.__dict__["_orig_mod"] = module
        self.__dict__["_compiled"] = Compiled(module.__call__, fullgraph=fullgraph, disable=disable)
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[table] = module.__dict__[table]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As a call of the module."""
        return self._compiled(*args, **kwargs)

    def train(self, mode: bool = True) -> CompiledModule:
        """Set the training flag of the module and of all it contains."""
        self._orig_mod.train(mode)
        return super().train(mode)

    def explain(self) -> str:
        """What was fused; see :meth:`gpugrad.compiler.Compiled.explain`."""
        return self._compiled.explain()

    def source(self) -> str:
        """The kernels that were generated."""
        return self._compiled.source()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_orig_mod"], name)

    def __repr__(self) -> str:
        return f"CompiledModule({self._orig_mod!r})"
