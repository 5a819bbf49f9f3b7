"""float16 and bfloat16 through ``nn.functional`` and the modules, on every device: what tests/nn_cases.py calls, in a
half type and in float32, which has to be the same, rounded once. What is not is listed with the reason. Also what
cuBLAS is asked for where a product of half types is to be float32."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import layout
from gpugrad.backends import cuda
from gpugrad.backends.base import StridedArray
from tests import half_units
from tests.half_units import deviation
from tests.nn_cases import CASES, _random
from tests.test_half_types import RESULT

SEVERAL = "the case is of several calls, each of which rounds"
ADDED_UP = "an element that is taken several times has a gradient that is added up as each is rounded, as in PyTorch"

#: case -> units its results may be off, the error of its gradients in units at the largest of them, and why
KNOWN = {
    **dict.fromkeys(["tanh", "tanh_edges", "sigmoid", "sigmoid_edges"], (0, 1.5, RESULT)),
    **dict.fromkeys(["softmax", "log_softmax", "softmin"], (0, 1.5, RESULT)),
    **dict.fromkeys(["pad_reflect", "pad_replicate", "pad_circular"], (0, 1.5, ADDED_UP)),
    **dict.fromkeys(["Conv2d_reflect", "Conv2d_circular_same", "Conv3d"], (0, 1.5, ADDED_UP)),
    "nll_loss_mean": (0, 1.5, SEVERAL),
    "cross_entropy_large": (1, 1.5, SEVERAL),
    "bce": (1, 2.5, SEVERAL),
    "bce_logits": (0, 1.5, SEVERAL),
    "BCEWithLogitsLoss": (0, 1.5, SEVERAL),
    "soft_margin": (0, 1.5, SEVERAL),
    "poisson_nll_plain": (0, 1.5, SEVERAL),
    "target_gradients": (1, 2.5, SEVERAL),
    "embedding_max_norm": (1, 0.0, "the rows are scaled down in place before they are looked up"),
    "local_response_norm": (1, 1.5, "the sum of squares and its power are stored, as in PyTorch"),
}
#: a network of several layers, and a gradient of 1e8 that float16 does not hold
LEFT_OUT = {"Net", "cosine_similarity_zero"}


def of_case(case, device):
    """The case as a function of tensors, parameters first, and the arrays for it."""
    module = case.call(gg) if not case.inputs or case.name[0].isupper() else None
    shapes = {} if module is None else {n: tuple(p.shape) for n, p in module.named_parameters()}
    arrays = [_random(case.name + n).standard_normal(s).astype(np.float32) for n, s in (shapes | case.inputs).items()
              if isinstance(s, tuple)]  # fmt: skip
    rest = [np.asarray(s) for s in case.inputs.values() if not isinstance(s, tuple)]
    order = [n for n, s in (shapes | case.inputs).items() if isinstance(s, tuple)]
    order += [n for n, s in case.inputs.items() if not isinstance(s, tuple)]

    def call(*tensors):
        named = dict(zip(order, tensors, strict=True))
        given = [named[n] for n in case.inputs]
        if module is None:
            return case.call(gg, **{n: named[n] for n in case.inputs})
        kind = next((t.dtype for t in tensors if t.is_floating_point()), gg.float32)
        fresh = case.call(gg).to(device).to(kind)
        return gg.func.functional_call(fresh, {n: named[n] for n in shapes}, tuple(given))

    return call, arrays + rest


@pytest.mark.filterwarnings("ignore:kl_div")
@pytest.mark.parametrize("dtype", half_units.HALVES)
@pytest.mark.parametrize("name", [n for n in CASES if n not in LEFT_OUT])
def test_cases(name, dtype, device):
    forward, share, _ = KNOWN.get(name, (0, None, ""))
    call, arrays = of_case(CASES[name], device)
    found = deviation(call, arrays, dtype, device)
    assert found.forward <= forward
    assert found.backward == 0 if share is None else found.share <= share


def test_what_is_listed_exists():
    assert not (set(KNOWN) | LEFT_OUT) - set(CASES)


# -- cuBLAS -----------------------------------------------------------------------------------------------


class Blas:
    """Names of cuBLAS's that the backend looks up, each its own value; notes what a product is asked for."""

    CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_GEMM_DEFAULT = "32f", "64f", "default"
    CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_COMPUTE_32F_FAST_16BF = "tf32", "16bf"

    def __init__(self):
        self.asked = []

    def gemmStridedBatchedEx(self, *args):
        operands, result, compute, steps = (args[8], args[12]), args[17], args[21], args[19]
        self.asked.append((*operands, result, compute, steps))


@pytest.fixture
def backend():
    """The cuda backend over nothing: it may be asked what it would call."""
    made = cuda.CudaBackend.__new__(cuda.CudaBackend)
    made._runtime = SimpleNamespace(CUDA_R_16F="16f", CUDA_R_16BF="16bf", CUDA_R_32F="32f", CUDA_R_64F="64f")
    blas = Blas()
    made._blas = made._load_cublas(SimpleNamespace(cuda=SimpleNamespace(cublas=blas)))
    made._use = lambda: None
    made._cuda = SimpleNamespace(device=SimpleNamespace(get_cublas_handle=lambda: 0))
    made.empty = lambda shape, dtype: array(shape, dtype)
    made.asked = blas.asked
    return made


def array(shape, dtype):
    dtype = np.dtype(dtype)
    memory = SimpleNamespace(ptr=0)
    return StridedArray(memory, 0, tuple(shape), layout.contiguous_strides(shape, dtype.itemsize), dtype)


@pytest.mark.parametrize("dtype", half_units.HALVES)
def test_products_of_half_types_may_be_had_in_float32(backend, dtype):
    half, name = half_units.HALVES[dtype], {"float16": "16f", "bfloat16": "16bf"}[dtype]
    a, b = array((3, 4, 5), half), array((3, 5, 6), half)
    assert backend.matmul(a, b).dtype == half
    assert backend.matmul(a, b, np.dtype(np.float32)).dtype == np.float32
    assert backend.asked == [(name, name, name, "32f", 24), (name, name, "32f", "32f", 24)]


def test_precision_of_float32_products(backend):
    """Which constant each word stands for, that half types and float64 do not ask for it, and that it is undone."""
    one, two = array((4, 5), np.float32), array((5, 6), np.float32)

    def compute():
        backend.matmul(one, two)
        return backend.asked[-1][3]

    switch = gg.backends.cuda.matmul
    assert compute() == "32f"
    try:
        for word, wanted in (("high", "tf32"), ("medium", "16bf"), ("highest", "32f"), ("medium", "16bf")):
            gg.set_float32_matmul_precision(word)
            assert compute() == wanted and gg.get_float32_matmul_precision() == word
            backend.matmul(array((4, 5), np.float16), array((5, 6), np.float16))
            assert backend.asked[-1][3] == "32f"
            backend.matmul(array((4, 5), np.float64), array((5, 6), np.float64))
            assert backend.asked[-1][3] == "64f"
        with switch.flags(allow_tf32=False):
            assert compute() == "32f"
        assert compute() == "16bf" and gg.get_float32_matmul_precision() == "medium" and switch.allow_tf32
        gg.set_float32_matmul_precision("highest")
        with switch.flags(allow_tf32=True):
            assert compute() == "tf32"
        assert compute() == "32f" and gg.get_float32_matmul_precision() == "highest" and not switch.allow_tf32
    finally:
        gg.set_float32_matmul_precision("highest")
