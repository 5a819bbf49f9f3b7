"""Attention on tensor cores, without any: the kernels' text compiled for the host, where threads of a block take turns
and ``mma`` and ``ldmatrix`` are loops over the fragments as the PTX manual lays them out; and by NVRTC, where it is
installed.

That proves index arithmetic and arithmetic, not that it runs, or how fast, on a GPU."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from gpugrad.backends import cpu, cpu_attention, host_build, kernel_source
from gpugrad.backends.base import StridedArray
from gpugrad.backends.kernel_attention import (
    attention_defines,
    attention_values,
    fits_tensor_cores,
    gpu_blocks,
    mma_rows,
)

SPEC = cpu.open(0)
HALVES = {"f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
DRIVER = """
static void **gg_p;
static f32 gg_scale;
static const Attention *gg_par;
static i32 gg_which;
static void gg_enter(void) {
    void **p = gg_p;
    if (gg_which == 0)
        CAT(NAME, _forward)(p[0], p[1], p[2], p[3], p[4], p[5], gg_scale, 1, 0, 0, 0, *gg_par);
    else if (gg_which == 1)
        CAT(NAME, _queries)(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], gg_scale, 1, 0, 0, 0, *gg_par);
    else
        CAT(NAME, _keys)(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], gg_scale, 1, 0, 0, 0, *gg_par);
    gg_done[gg_thread] = 1;
    swapcontext(&gg_context[gg_thread], &gg_main);
}
void run_groups(i32 which, i64 groups, void **pointers, f32 scale, const Attention *par) {
    gg_which = which;
    gg_p = pointers;
    gg_scale = scale;
    gg_par = par;
    char *stacks = malloc((size_t)THREADS * STACK);
    for (gg_group = 0; gg_group < groups; gg_group++) {
        for (i32 i = 0; i < THREADS; i++) {
            gg_done[i] = gg_turn[i] = 0;
            getcontext(&gg_context[i]);
            gg_context[i].uc_stack.ss_sp = stacks + (size_t)i * STACK;
            gg_context[i].uc_stack.ss_size = STACK;
            makecontext(&gg_context[i], gg_enter, 0);
        }
        for (i32 left = THREADS; left;) {
            left = 0;
            for (gg_thread = 0; gg_thread < THREADS; gg_thread++)
                if (!gg_done[gg_thread]) {
                    swapcontext(&gg_main, &gg_context[gg_thread]);
                    left += !gg_done[gg_thread];
                }
        }
    }
    free(stacks);
}
"""


def specialization(short, width, mask, index="i64"):
    given = None if mask is None else StridedArray(None, 0, mask.shape, mask.strides, mask.dtype)
    name = f"gg_attention_mma_{short}"
    defines = attention_defines(name, HALVES[short], width, width, given, index)
    defines |= {"BQ": 64, "BK": mma_rows(width)}
    kernels = tuple(f"{name}_{k}" for k in ("forward", "queries", "keys"))
    return kernel_source.Specialization("attention_mma", tuple((k, str(v)) for k, v in defines.items()), kernels)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The kernels of a specialisation, compiled for the host."""
    command = host_build.compiler()
    if command is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("mma")
    found = {}

    def load(short, width, mask):
        key = short, width, None if mask is None else mask.dtype
        if key not in found:
            made = specialization(short, width, mask)
            defines = "".join(f"#define {k} {v}\n" for k, v in (("GG_FP64", "1"), *made.defines))
            warps = (Path(__file__).parent / "emulated_warps.h").read_text()
            texts = [kernel_source.text(f) for f in ("dialect/host.h", "types.h", "math.h", "vector_math.h")]
            source = folder / f"{len(found)}.c"
            kernels = [kernel_source.text(f) for f in ("attention.h", "attention_mma.c")]
            source.write_text("\n".join([defines, *texts, warps, *kernels, DRIVER]))
            target = source.with_suffix(".so")
            subprocess.run([*command, "-O2", "-w", "-std=gnu11", "-shared", "-fPIC", "-o", target, source, "-lm"],
                           check=True)  # fmt: skip
            found[key] = ctypes.CDLL(str(target))
        return found[key]

    return load


def strided(array):
    """As the backend sees it."""
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    offset = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return base, StridedArray(None, offset, array.shape, array.strides, array.dtype)


def launch(found, which, tile, lengths, scale, causal, arrays, order):
    """One launch; ``order``: the kernel's pointers, of which logs and delta are no arrays with strides."""
    batch, heads, groups, queries, keys = lengths
    layouts = {n: strided(x)[1] for n, x in arrays.items() if n not in ("logs", "delta")}
    assert fits_tensor_cores({n: x for n, x in layouts.items() if n != "mask"})
    tiles = -(-(keys if which == 2 else queries) // tile)
    items = batch * (groups if which == 2 else heads) * tiles
    values = attention_values(items, (heads, heads // groups, queries, keys), tiles, 0, causal, layouts)
    packed = ctypes.create_string_buffer(struct.pack(f"={len(values)}q", *values))
    pointers = (ctypes.c_void_p * len(order))(*(strided(arrays[n])[0].ctypes.data if n in arrays else 0 for n in order))
    found.run_groups(which, ctypes.c_int64(items), pointers, ctypes.c_float(scale), packed)


CASES = {
    "full": ((1, 2, 2, 70, 100), None, False),
    "causal": ((1, 1, 1, 130, 130), None, True),
    "groups, causal, fewer keys": ((2, 4, 2, 90, 50), None, True),
    "bool": ((1, 2, 1, 40, 70), "bool", False),
    "added": ((1, 2, 1, 17, 33), "added", False),
}


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize(("short", "width"), [("f16", 32), ("bf16", 64), ("f16", 128)])
def test_equals_the_cpu(library, name, short, width, monkeypatch):
    monkeypatch.setattr(cpu_attention, "KEPT", 0)  # logarithms are what the kernels give
    (batch, heads, groups, queries, keys), kind, causal = CASES[name]
    dtype, rng, scale = HALVES[short], np.random.default_rng(4), width**-0.5
    # Positions outside of heads, as a projection leaves them.
    q, g, out, dq = (rng.standard_normal((batch, queries, heads, width)).astype(dtype).transpose(0, 2, 1, 3)
                     for _ in range(4))  # fmt: skip
    k, v, dk, dv = (rng.standard_normal((batch, groups, keys, width)).astype(dtype) for _ in range(4))
    mask = None
    if kind == "bool":
        seen = (rng.random((queries, keys)) > 0.3) & (np.arange(queries)[:, None] > 1)
        mask = np.broadcast_to(seen, (batch, heads, queries, keys))
    elif kind == "added":
        mask = np.broadcast_to(rng.standard_normal((heads, 1, keys)).astype("f4"), (batch, heads, queries, keys))
    lengths = batch, heads, groups, queries, keys
    arrays = {"q": q, "k": k, "v": v} | ({} if mask is None else {"mask": mask})
    found = library(short, width, mask)
    logs = np.full((batch, heads, queries), np.nan, "f4")
    launch(found, 0, 64, lengths, scale, causal, arrays | {"out": out, "logs": logs},
           ("q", "k", "v", "mask", "out", "logs"))  # fmt: skip
    want, want_logs = SPEC.fused_attention(q, k, v, mask, causal, scale, None)
    # Weights are rounded to halves before they meet the values.
    rounding = {"f16": 2**-9, "bf16": 2**-6}[short]
    np.testing.assert_allclose(out.astype("f4"), want.astype("f4"), rtol=0, atol=rounding)
    np.testing.assert_allclose(logs, want_logs, rtol=1e-4, atol=1e-4)

    delta = np.ascontiguousarray((g.astype("f4") * want.astype("f4")).sum(-1))
    wanted = SPEC.fused_attention_backward(g, q, k, v, want, want_logs, mask, causal, scale, None, (True,) * 3)
    arrays |= {"g": g, "logs": want_logs, "delta": delta}
    given = ("q", "k", "v", "mask", "g", "logs", "delta")
    launch(found, 1, 64, lengths, scale, causal, arrays | {"dq": dq}, (*given, "dq"))
    launch(found, 2, 64, lengths, scale, causal, arrays | {"dk": dk, "dv": dv}, (*given, "dk", "dv"))
    for a, b in zip((dq, dk, dv), wanted, strict=True):
        b = b.astype("f4")
        np.testing.assert_allclose(a.astype("f4"), b, rtol=0, atol=2 * rounding * max(1.0, np.abs(b).max()))


def test_nvrtc_compiles_it():
    core = pytest.importorskip("cuda.core")
    common = kernel_source.common_defines(kernel_source.GPU_SHAPE, fp64=True)
    bools, added = np.zeros((1, 1, 1, 1), bool), np.zeros((1, 1, 1, 1), "f4")
    cases = [("f16", 32, None, "sm_80"), ("bf16", 64, None, "sm_80"), ("bf16", 64, bools, "sm_80"),
             ("f16", 64, added, "sm_80"), ("bf16", 128, None, "sm_80"), ("bf16", 64, None, "sm_90")]  # fmt: skip
    for short, width, mask, arch in cases:
        made = specialization(short, width, mask, "i32")
        source = kernel_source.assemble(made, "cuda", common)
        options = core.ProgramOptions(arch=arch, std="c++17", fma=True, minimal=True, disable_warnings=True)
        code = core.Program(source, "c++", options).compile("cubin").code
        assert all(name.encode() in code for name in made.kernels)


def test_nvrtc_compiles_the_twin():
    """What is chosen elsewhere: its arrays have to fit into 48 KiB of shared memory."""
    core = pytest.importorskip("cuda.core")
    common = kernel_source.common_defines(kernel_source.GPU_SHAPE, fp64=True)
    for dtype, width, value_width in (("f4", 64, 64), ("f8", 128, 128), ("f2", 128, 8)):
        dtype = np.dtype(dtype)
        defines = attention_defines("gg_attention", dtype, width, value_width, None, "i32")
        defines |= dict(
            zip(("BQ", "BK", "SIDE"), gpu_blocks(width, value_width, max(4, dtype.itemsize), 256), strict=True)
        )
        pairs = tuple((k, str(v)) for k, v in (defines | {"DROPOUT": 1}).items())
        names = tuple(f"gg_attention_{n}" for n in kernel_source.ATTENTION_KERNELS)
        source = kernel_source.assemble(kernel_source.Specialization("attention", pairs, names), "cuda", common)
        options = core.ProgramOptions(arch="sm_80", std="c++17", fma=True, minimal=True, disable_warnings=True)
        code = core.Program(source, "c++", options).compile("cubin").code
        assert all(name.encode() in code for name in names)
