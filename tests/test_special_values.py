"""What every elementwise row makes of NaN, infinities, zeros of both signs, denormals, the ends of the ranges and
integers beyond 2^53: as PyTorch has it (but for the deviations listed in tests/special_values.py and on the page
docs/numerics.md), the same on every device, eager and compiled. Then reductions, orders and casts, as expressions.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import dtypes
from gpugrad.devices import backend_of
from tests import parity
from tests.special_values import DEVIATIONS, DTYPES, ROWS, arity, defined, describe, differing, grid, wide

CASES = [pytest.param(op, dtype, id=f"{op.name}-{dtype}") for op in ROWS for dtype in DTYPES if defined(op, dtype)]
#: a device computes all small integers alike, and both half types in float32
ON_DEVICES = [c for c in CASES if c.values[1] in ("float32", "float64", "int64", "int8", "bool")]
TORCH_NAMES = {"k0e": "scaled_modified_bessel_k0", "k1e": "scaled_modified_bessel_k1"}


def numpy_of(tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return tensor.float().numpy() if tensor.dtype in (gg.float16, gg.bfloat16) else tensor.numpy()


def torch_of(array, torch):
    """With the very bits, NaN's included."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def torch_function(op, torch):
    for home in (torch, torch.special, torch.nn.functional):
        for name in (op.torch.split(".")[-1], op.name, TORCH_NAMES.get(op.name, "")):
            if hasattr(home, name):
                return getattr(home, name)
    return None


@pytest.mark.parametrize(("op", "dtype"), CASES)
def test_as_in_pytorch(op, dtype, torch):
    function = torch_function(op, torch)
    if function is None:
        pytest.skip("PyTorch has no such function")
    if op.name == "lcm":
        pytest.skip("PyTorch's divides the least integer by -1, which stops the process")
    arrays = grid(op.name, dtype, arity(op))
    try:
        want = function(*[torch_of(a, torch) for a in arrays])
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"PyTorch refuses: {error}")
    got = op.function(*[gg.tensor(a) for a in arrays])
    assert got.dtype.name == str(want.dtype).removeprefix("torch.")
    half = want.dtype in (torch.float16, torch.bfloat16)
    got, want = numpy_of(got), want.float().numpy() if half else want.numpy()
    wrong = differing(got, want, dtype)
    if wrong.any() and op.name in DEVIATIONS:
        with np.errstate(all="ignore"):
            wrong &= ~DEVIATIONS[op.name].holds(got, want, *[wide(a) for a in arrays])
    assert not wrong.any(), describe(wrong, got, want, arrays)


def test_deviations_are_on_the_page():
    """Each with its reason, and no others."""
    page = (Path(__file__).parent.parent / "docs" / "numerics.md").read_text()
    table = page.split("## Special values")[1].split("\n## ")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", table, re.MULTILINE))
    assert listed == {name: deviation.reason for name, deviation in DEVIATIONS.items()}


#: rows whose result, in the computing type of a device, has fewer digits at some of these numbers than float64 gives
FEWER_DIGITS = {
    "igamma": 1e-4,
    "igammac": 1e-4,
    "airy_ai": 1e-4,
}
#: where operands leave nothing to compare: below what float32 holds on the way; phases of which no digit is left;
#: denormals of which PoCL's log1p of float64 makes others
BEYOND = {
    "standard_gamma_grad": lambda a, x: a < 1e-30,
    "airy_ai": lambda a: a < -1e8,
    "xlog1py": lambda a, b: (b != 0) & (np.abs(b) < 1e-300),
}


def _agree(op, dtype, got, want, arrays):
    wrong = differing(got, want, dtype)
    if op.name in ("fmax", "fmin"):
        wrong &= ~((got == 0) & (want == 0))
    if op.name in FEWER_DIGITS:
        wrong &= ~np.isclose(got, want, rtol=FEWER_DIGITS[op.name], atol=0)
    if op.name in BEYOND:
        wrong &= ~BEYOND[op.name](*[wide(a) for a in arrays])
    assert not wrong.any(), f"{op.name} {dtype}: {describe(wrong, got, want, arrays)}"


def _needs(dtype, device):
    if not backend_of(gg.device(device)).supports(dtypes.as_dtype(dtype).numpy):
        pytest.skip(f"no {dtype} there")


@pytest.mark.parametrize(("op", "dtype"), ON_DEVICES)
def test_on_devices_as_on_the_cpu(op, dtype, device):
    if device == "cpu":
        pytest.skip("the CPU is the reference")
    _needs(dtype, device)
    arrays = grid(op.name, dtype, arity(op))
    got = op.function(*[gg.tensor(a, device=device) for a in arrays])
    want = op.function(*[gg.tensor(a) for a in arrays])
    assert got.dtype is want.dtype
    _agree(op, dtype, numpy_of(got), numpy_of(want), arrays)


CHUNK = 16


def chunks(dtype):
    rows = [op for op in ROWS if defined(op, dtype)]
    return [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]


@pytest.mark.parametrize(
    ("dtype", "rows"),
    [
        pytest.param(dtype, rows, id=f"{dtype}-{rows[0].name}-to-{rows[-1].name}")
        for dtype in ("float32", "float64", "int64", "int8")
        for rows in chunks(dtype)
    ],
)
def test_compiled_as_eager(dtype, rows, device):
    """Sixteen rows as one program: on the CPU the C compiler's."""
    _needs(dtype, device)
    grids = [grid(op.name, dtype, arity(op)) for op in rows]

    def together(inputs):
        return [op.function(*tensors).clone() for op, tensors in zip(rows, inputs, strict=True)]

    compiled = gg.compile(together, fullgraph=True)
    inputs = [[gg.tensor(a, device=device) for a in arrays] for arrays in grids]
    eager = together([[gg.tensor(a) for a in arrays] for arrays in grids])
    compiled(inputs)
    results = compiled(inputs)
    assert compiled.traces
    for op, arrays, got, want in zip(rows, grids, results, eager, strict=True):
        assert got.dtype is want.dtype
        _agree(op, dtype, numpy_of(got), numpy_of(want), arrays)


# -- reductions, orders, casts, products -----------------------------------------------------------

NAN, INF = np.nan, np.inf
BIG = 2**53 + 1
ARRAYS = {
    "mixed": np.array([1.0, NAN, -INF, 0.0, -0.0, INF, -1.0], np.float32),
    "both": np.array([INF, 1.0, -INF], np.float32),
    "above": np.array([1.0, INF, 3.0, INF], np.float32),
    "below": np.array([1.0, -INF, 3.0, -INF], np.float32),
    "none": np.array([-INF, -INF, -INF], np.float32),
    "zeros": np.array([0.0, -0.0, 0.0], np.float32),
    "minus": np.array([-0.0, -0.0], np.float32),
    "tiny": np.array([1e-45, 3e-45, -1e-45, 1e-40, 2e-38], np.float32),
    "huge": np.array([3e38, 3e38, -3e38], np.float32),
    "rows": np.array([[1.0, NAN, 2.0], [INF, 1.0, 2.0], [-INF, INF, 0.0], [-INF, -INF, -INF]], np.float32),
    "square": np.array([[1.0, INF, 0.0], [0.0, 1.0, NAN], [2.0, 0.0, 3.0]], np.float32),
    "long": np.array([BIG, BIG + 2, -BIG, 2**62, 2**62, 1], np.int64),
    "edge": np.array([2**63 - 1, 1, -(2**63), 2**62 + 1], np.int64),
    "near": np.array([[BIG, BIG - 1], [BIG - 1, BIG]], np.int64),
    "byte": np.array([127, 1, -128, 100, 100], np.int8),
    "unsigned": np.array([255, 1, 200, 100], np.uint8),
    "half": np.array([65504, 65504, -65504, 6e-8, INF, NAN], np.float16),
    "halves": np.array([65504, 30000, 6e-8, 1e-4, -65504], np.float16),
    "fine": np.array([2049.0, 0.1, 1e-7, 65519.0, 65520.0, 6e-8, 2e-8, 3.0000001e-8, NAN, INF], np.float32),
    "truth": np.array([True, False, True]),
    "places": np.array([0.5, -0.5, 2.9, -2.9, 100.0, 0.0, -0.0], np.float32),
}
EXPRESSIONS = """
mixed.sum()  both.sum()  above.sum()  minus.sum()  zeros.sum()  tiny.sum()
mixed.prod()  above.prod()  zeros.prod()  minus.prod()  tiny.prod()  huge.prod()
mixed.max()  mixed.min()  above.max()  below.min()  none.max()  rows.max(dim=0)  rows.min(dim=1)  rows.amax(1)
mixed.argmax()  mixed.argmin()  above.argmax()  none.argmin()  rows.argmax(dim=1)  rows.argmin(dim=0)
mixed.cumsum(0)  above.cumprod(0)  rows.cummax(1)  rows.cummin(1)  minus.cumsum(0)  zeros.cumprod(0)
mixed.any()  mixed.all()  zeros.any()  mixed.bool()  minus.bool()  T.count_nonzero(mixed)  mixed.nonzero()
rows.logsumexp(1)  rows.logsumexp(0)  none.logsumexp(0)  above.logsumexp(0)  below.logsumexp(0)  rows.logcumsumexp(1)
rows.softmax(1)  none.softmax(0)  below.softmax(0)  above.softmax(0)  huge.softmax(0)  huge.log_softmax(0)
below.log_softmax(0)
mixed.var()  above.std()  huge.var()  tiny.norm()  huge.norm()  huge.norm(1)  huge.norm(inf)  above.norm()
mixed.norm()  both.norm(0)  mixed.norm(inf)  tiny.norm(inf)  mixed.median()  rows.median(1)  mixed.nanmedian()
mixed.nansum()  mixed.nanmean()  above.nansum()  rows.nanmean(1)
mixed.sort()[0]  T.sort(mixed,descending=True)[0]  mixed.argsort()  mixed.topk(3)[0]  mixed.topk(3,largest=False)[0]
rows.sort(dim=1,stable=True)  T.msort(rows)  mixed.unique()  zeros.unique()  above.unique()
square@square  T.mv(square,both)  square@rows.T  T.dot(both,both)  T.outer(both,zeros[:2])  T.dot(huge,huge)
mixed==mixed  T.equal(mixed,mixed)  T.isclose(mixed,mixed)  T.allclose(above,above)
T.isclose(mixed,mixed,equal_nan=True)
T.maximum(mixed,mixed.flip(0))  T.where(mixed>0,mixed,mixed*0)  mixed.clamp(-1,1)  mixed.clamp(nan,1)
mixed.clamp(min=0)  mixed.nan_to_num()  half.nan_to_num()  mixed.sign()  mixed*0  0/mixed  mixed/0
T.lerp(above,below,0.5)  mixed**0  mixed**2  mixed**0.5  mixed**-1  1**mixed  0.0**mixed  mixed%2  mixed.float()%inf
long.sum()  edge.sum()  long.prod()  edge.cumsum(0)  long.cumprod(0)  long.max()  long.argmax()  edge.min()
long.sort()  long.unique()  long==long.flip(0)  near@near  near.sum(0)  near.sum(1)  near.max(1)  near-near.T
near.argmax(1)  long+1  long*3  -edge  edge.abs()  edge//3  edge%7  edge//-1  edge>>1  edge<<1  ~edge  edge//edge
T.gcd(long,near[0,0])  near.median()  T.cat([long,edge]).sort()[0]  edge.clamp(-5,5)  T.bitwise_xor(long,BIG)
long.double()  long.float()  edge.int()  edge.to(T.int8)  long.bool()  long.mean(dtype=T.float32)
byte.sum()  byte+byte  byte*byte  -byte  byte.abs()  byte.prod()  byte.cumsum(0)  byte//2  byte%3  byte-1  byte**2
byte.sum(dtype=T.int8)  unsigned+unsigned  unsigned*2  -unsigned  unsigned-255  unsigned.sum()  unsigned//7
unsigned.to(T.int8)  byte.to(T.uint8)  T.where(unsigned>100,unsigned,-1)  truth.sum()  truth+truth  truth*truth
truth.cumsum(0)  truth.prod()  truth/truth  truth.float().log()  truth.max()
half+half  half.sum()  halves.sum()  halves*halves  halves/3  halves.float()  half.max()  halves.mean()  halves.norm()
half.cumsum(0)  halves.exp()  halves.softmax(0)  halves@halves  halves.std()  halves.to(T.bfloat16)
fine.half()  fine.bfloat16()  fine.half().float()  fine.bfloat16().float()  fine.to(T.float16)+1
places.int()  places.long()  places.to(T.int8)  places.bool()  places.to(T.uint8).float().abs()>=0
places.floor().int()  places.round()  places.trunc()  places.ceil()  places.frac()
T.arange(3,dtype=T.int64)+9007199254740993  T.full((2,),9223372036854775807)  T.tensor([9007199254740993])
T.linspace(-1,1,5)*inf  T.tensor([nan,inf])  T.zeros(2)/T.zeros(2)  T.heaviside(mixed,T.ones(7))
T.diff(edge)  T.cumsum(rows,0)  T.trace(square)  T.bincount(truth.long())
T.searchsorted(T.tensor([0.0,1.0,inf]),mixed)  T.bucketize(above,T.tensor([0.0,2.0]))  T.isin(mixed,above)
T.nn.functional.relu(rows)  T.nn.functional.gelu(huge/1e30)  T.nn.functional.silu(above)
T.nn.functional.softplus(mixed)
T.nn.functional.elu(mixed)  T.nn.functional.leaky_relu(mixed)  T.nn.functional.hardtanh(mixed)
T.nn.functional.logsigmoid(mixed)  T.nn.functional.mish(above)  T.nn.functional.selu(mixed)
T.nn.functional.max_pool1d(rows.unsqueeze(0),2)  T.nn.functional.avg_pool1d(rows.unsqueeze(0),2)

T.nn.functional.mse_loss(above,above)  T.nn.functional.l1_loss(both,both)
T.nn.functional.cross_entropy(rows,T.tensor([0,1,2,0]),reduction='none')
T.nn.functional.layer_norm(rows,(3,))  T.nn.functional.normalize(huge,dim=0)
T.nn.functional.normalize(tiny,dim=0)  T.cdist(huge[:2].unsqueeze(1),huge[1:].unsqueeze(1))
""".split()


def _spelled(expression):
    return expression.replace("BIG", str(BIG))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions(expression, device, torch):
    if "double" in expression:
        _needs("float64", device)
    parity.check(_spelled(expression), ARRAYS, torch, device)
