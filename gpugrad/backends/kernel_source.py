"""Source of the device kernels: where the files are, how a specialisation is spelled, how it becomes one text.

A *specialisation* is a family (a file ``kernels/<family>.c``) with a value for each name that the head of the
file lists. :func:`assemble` puts the definitions, the dialect of one API and the file together.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np

from gpugrad.errors import DeviceError

SHORT: dict[np.dtype, str] = {
    np.dtype(bool): "bool",
    np.dtype(np.int8): "i8",
    np.dtype(np.uint8): "u8",
    np.dtype(np.int16): "i16",
    np.dtype(np.uint16): "u16",
    np.dtype(np.int32): "i32",
    np.dtype(np.uint32): "u32",
    np.dtype(np.int64): "i64",
    np.dtype(np.uint64): "u64",
    np.dtype(np.float16): "f16",
    np.dtype(ml_dtypes.bfloat16): "bf16",
    np.dtype(np.float32): "f32",
    np.dtype(np.float64): "f64",
}
"""The dtypes that the kernels know, with the names they have in symbols and macros."""

_COMPUTE = {"bool": "u8", "f16": "f32", "bf16": "f32"}
_STRUCT = {"bool": "B", "i8": "b", "u8": "B", "i16": "h", "u16": "H", "i32": "i", "u32": "I", "i64": "q", "u64": "Q",
           "f32": "f", "f64": "d"}  # fmt: skip


def compute_type(short: str) -> str:
    """The C type that values of a dtype are computed in."""
    return _COMPUTE.get(short, short)


def kind(short: str) -> str:
    """``"f"``, ``"i"`` or ``"b"``: which expression of an elementwise row a dtype takes."""
    return "b" if short == "bool" else "f" if "f" in short else "i"


def struct_code(short: str) -> str:
    """The ``struct`` module's letter for a value in the computing type of a dtype."""
    return _STRUCT["f32" if short in ("f16", "bf16") else short]


def type_defines(short: str) -> dict[str, str]:
    """What ``types.h`` and ``math.h`` want to know of the computing dtype."""
    t = compute_type(short)
    group = "FLOATING" if "f" in t else "UNSIGNED" if t.startswith("u") else "SIGNED"
    return {"T": t, "TD": short, f"T_{t}": "1", group: "1", "T_BITS": t.lstrip("iuf")}


def symbol(*parts: str) -> str:
    """A kernel name such as ``gg_map_tanh_f32``."""
    return "gg_" + re.sub(r"\W", "_", "_".join(parts))


CPU_SHAPE = {"GG_CPU": 1, "LOCAL_SIZE": 64, "RUN": 16, "PIECE": 256, "VECTOR": 16, "LANES": 16, "COLUMNS": 256,
             "GROUP": 1, "TILE": 16, "MERGE": 256}  # fmt: skip
GPU_SHAPE = {"LOCAL_SIZE": 256, "RUN": 1, "PIECE": 1, "VECTOR": 1, "LANES": 1, "COLUMNS": 1, "GROUP": 256,
             "TILE": 16, "MERGE": 16}  # fmt: skip
"""Shapes of launches. LOCAL_SIZE: items of a group; of one item RUN neighbouring elements, PIECE elements of a row,
VECTOR of them at a time, LANES accumulators, COLUMNS neighbouring results; GROUP items that reduce together; TILE by
TILE elements of a product; MERGE outputs of a merge. CPU-type OpenCL devices run items one after another and want each
to do a vector's worth of neighbouring work; GPUs want neighbouring items on neighbouring elements."""


def launch_shape(cpu_shapes: bool, max_group: int = 256) -> dict[str, int]:
    """The launch shape of a device that allows groups of ``max_group`` items."""
    if cpu_shapes or max_group >= 256:
        return CPU_SHAPE if cpu_shapes else GPU_SHAPE
    return GPU_SHAPE | {"LOCAL_SIZE": 64, "GROUP": 64, "TILE": 8}


def common_defines(shape: dict[str, int], fp64: bool) -> list[tuple[str, str]]:
    """What all kernels of a device are compiled with."""
    return [(name, str(value)) for name, value in shape.items()] + ([("GG_FP64", "1")] if fp64 else [])


@dataclass(frozen=True)
class Specialization:
    """A family and its definitions: everything that decides a compiled program but the API."""

    family: str
    defines: tuple[tuple[str, str], ...]
    kernels: tuple[str, ...]


@cache
def directory() -> Path:
    """The folder of kernel texts: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_kernels", package.parent / "kernels"):
        if (folder / "types.h").is_file():
            return folder
    raise DeviceError(f"the kernel files are missing from this installation ({package}): reinstall gpugrad")


@cache
def text(name: str) -> str:
    return (directory() / name).read_text(encoding="utf-8")


#: what a family's text stands on besides the dialect, types.h and math.h
_ROWS = ("lanes.h", "vector_math.h", "rows.h")
_HEADERS: dict[str, tuple[str, ...]] = {
    "matmul": ("lanes.h", "panel.h"),
    "convolve": ("lanes.h", "panel.h"),
    "matvec": ("lanes.h",),
    "direct": ("lanes.h",),
    "random": ("philox.h",),
    "softmax": _ROWS,
    "norm": _ROWS,
    "cross_entropy": _ROWS,
    "tensors": _ROWS,
    "attention": ("lanes.h", "panel.h", "philox.h", "vector_math.h", "attention.h"),
    "attention_mma": ("attention.h",),
}


def assemble(specialization: Specialization, dialect: str, common: Iterable[tuple[str, str]] = ()) -> str:
    """The whole source for ``dialect`` ("opencl" or "cuda"), with the definitions ``common`` to a device. The family
    ``"generated"`` has its kernels in the definition TEXT, not in a file."""
    if specialization.family == "generated":
        return _generated(specialization, dialect, common)
    defines = "".join(f"#define {name} {value}\n" for name, value in (*common, *specialization.defines))
    given = dict(specialization.defines)
    headers = _HEADERS.get(specialization.family, ())
    if specialization.family == "map":
        headers = ("vector_math.h",) if "T_f32" in given else ()
        headers += ("coefficients.h", "special.h") if "sf_" in given.get("EXPR", "") else ()
    files = (f"dialect/{dialect}.h", "types.h", "math.h", *headers, f"{specialization.family}.c")
    return defines + "".join(text(name) for name in files)


def _generated(specialization: Specialization, dialect: str, common: Iterable[tuple[str, str]]) -> str:
    """A text of ``gpugrad/compiler`` under what its kernels stand on."""
    given = dict(specialization.defines)
    kernels = given.pop("TEXT")
    defines = "".join(f"#define {name} {value}\n" for name, value in (*common, *given.items()))
    files = (f"dialect/{dialect}.h", "types.h", "vector_math.h", "generated.h")
    # Sections of the text say anew which type they compute in.
    return defines + "".join(text(name) for name in files) + "#undef T_f64\n" + kernels


def record(specialization: Specialization, path: str) -> None:
    """Append one JSON line to ``path``; a single write, so that several processes may share the file."""
    line = json.dumps([specialization.family, specialization.defines, specialization.kernels]) + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def read_record(path: str) -> list[Specialization]:
    """The distinct specialisations in a file that :func:`record` wrote."""
    found: dict[Specialization, None] = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            family, defines, kernels = json.loads(line)
            pairs: Sequence[tuple[str, str]] = [(name, value) for name, value in defines]
            found[Specialization(family, tuple(pairs), tuple(kernels))] = None
    return list(found)


#: what kernels/attention.c makes for GPUs
ATTENTION_KERNELS = ("forward", "delta", "queries", "keys")


def gpu_twin(specialization: Specialization) -> Specialization | None:
    """What a GPU compiles where a CPU-type device compiled ``specialization``: the same without vector types. None
    where there is no such thing."""
    if specialization.family == "convolve":
        return None
    if specialization.family == "generated":
        return None if "GG_SERIAL" in dict(specialization.defines) else specialization
    if specialization.family == "map":
        defines = tuple((k, v) for k, v in specialization.defines if k not in ("FUNCTION", "V"))
        return Specialization("map", defines, specialization.kernels)
    given = dict(specialization.defines)
    if specialization.family in ("softmax", "norm", "cross_entropy", "optimizer") and {"VW", "MANY"} & set(given):
        defines = tuple((k, v) for k, v in specialization.defines if k not in ("VW", "V", "GG_CONTRACT", "MANY"))
        return Specialization(specialization.family, defines, specialization.kernels)
    if specialization.family not in ("matmul", "matvec", "direct", "attention") or "VW" not in given:
        return specialization
    defines = tuple((k, v) for k, v in specialization.defines if k not in ("VW", "V", "PACK_ROWS"))
    if specialization.family == "attention":
        name = dict(defines)["NAME"]
        return Specialization("attention", defines, tuple(f"{name}_{k}" for k in ATTENTION_KERNELS))
    if specialization.family != "matmul":
        return Specialization(specialization.family, defines, specialization.kernels)
    return Specialization("matmul", defines, (dict(defines)["NAME"] + "_tile",))
