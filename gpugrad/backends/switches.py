"""Switches of ``torch.backends`` that programs set by habit. They are kept and change nothing, as there are only
deterministic algorithms here, but for the precision of float32 products on CUDA devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class Switches(ModuleType):
    """Attributes that may be read and set, and no others; ``flags(...)`` sets some for a while. A module, as
    programs import it: ``import torch.backends.cudnn as cudnn``."""

    _name: str

    def __init__(self, name: str, **initial: Any) -> None:
        super().__init__(f"gpugrad.{name}")
        self.__dict__["_name"] = name
        self.__dict__.update(initial)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dict__:
            known = ", ".join(n for n in self.__dict__ if not n.startswith("_"))
            raise AttributeError(f"{self._name} has no switch {name}; it has {known}")
        self.__dict__[name] = value

    @contextmanager
    def flags(self, **values: Any) -> Iterator[None]:
        """The switches given have these values inside the context."""
        before = dict(self.__dict__)  # all: to set one may change another
        for n, v in values.items():
            setattr(self, n, v)
        try:
            yield
        finally:
            self.__dict__.update(before)

    def is_available(self) -> bool:
        """False: gpugrad does not use this library."""
        return False

    is_built = is_available

    def version(self) -> None:
        """None: the library is not used."""
        return None


cudnn = Switches(
    "backends.cudnn", enabled=True, benchmark=False, deterministic=True, allow_tf32=False, benchmark_limit=10
)
mps = Switches("backends.mps")
mkldnn = Switches("backends.mkldnn", enabled=False)


class ProductSwitches(Switches):
    """``float32_precision`` is how float32 products may be computed: "highest" in float32, "high" in TF32, "medium"
    with operands in bfloat16. ``allow_tf32`` is the same as a flag."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "allow_tf32":
            self.__dict__["float32_precision"] = "high" if value else "highest"
        elif name == "float32_precision":
            self.__dict__["allow_tf32"] = value != "highest"


matmul = ProductSwitches(
    "backends.cuda.matmul",
    allow_tf32=False,
    float32_precision="highest",
    allow_fp16_reduced_precision_reduction=False,
    allow_bf16_reduced_precision_reduction=False,
)
