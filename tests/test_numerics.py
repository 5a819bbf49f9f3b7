"""How accurate: long sums beside PyTorch's, softmax and its kin at the extremes, error in units of the last place."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.devices import backend_of

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import measure_sums

# -- sums ------------------------------------------------------------------------------------------

LAST_PLACE = 2.0**-24
SUMS = [(kind, name) for kind in ("uniform", "offset") for name in measure_sums.FUNCTIONS]


@pytest.mark.parametrize(("kind", "name"), SUMS)
def test_a_long_sum_is_as_good_as_pytorchs(kind, name, torch):
    """Every device, eager and compiled; 1.5 million elements, so that blocks do not come out even."""
    x = measure_sums.data(kind, 1_500_001 if "256" not in name else 256 * 6001)
    found = measure_sums.measure(name, x)
    allowed = max(2 * found.pop("PyTorch"), 4 * LAST_PLACE)
    assert max(found.values()) <= allowed, found


@pytest.mark.parametrize("name", ["sum", "sum of 256 columns", "sum of 256 rows"])
def test_sums_are_as_good_as_pytorchs_on_average(name, torch):
    """Of one sum the last place is luck; of several draws the errors' root mean square is not."""
    found = measure_sums.measured(name, "uniform", 1 << 20, 12)
    allowed = max(1.5 * found.pop("PyTorch"), LAST_PLACE)
    assert max(found.values()) <= allowed, found


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_long_rows_of_no_numbers(compiled, device):
    """What additions round off is carried along in compiled programs: of infinities it is NaN, and left out."""
    inf = float("inf")
    x = np.ones((5, 20_000), np.float32)
    x[0, 5] = x[1, 5] = inf
    x[1, 15_000] = -inf
    x[2] = 1e38
    x[3, 9000] = np.nan
    t = gg.tensor(x, device=device)
    total = gg.compile(lambda t: t.sum(1)) if compiled else lambda t: t.sum(1)
    for _ in range(2):
        np.testing.assert_array_equal(total(t).cpu().numpy(), np.float32([inf, np.nan, inf, np.nan, 20_000]))


@pytest.mark.parametrize("dim", [0, 1])
def test_sums_of_columns_and_rows(dim, device):
    x = np.random.default_rng(1).random((3001, 700), np.float32)
    want = x.astype(np.float64).sum(dim)
    got = gg.tensor(x, device=device).sum(dim).cpu().numpy()
    assert np.abs(got / want - 1).max() <= 8 * LAST_PLACE
    running = gg.tensor(x, device=device).cumsum(dim).cpu().numpy()
    exact = np.cumsum(x.astype(np.float64), dim)
    places = 16 if device == "pretend" else 1.01  # its own rounding, whatever the length; NumPy's plain sums there
    assert (np.abs(running - exact) / exact).max() <= places * LAST_PLACE


def test_running_counts(device):
    """In more runs than one work item adds up."""
    x = np.random.default_rng(2).random(2049) < 0.7
    np.testing.assert_array_equal(gg.tensor(x, device=device).cumsum(0).cpu().numpy(), np.cumsum(x))


def test_running_sums_beyond_the_range(device):
    """What an addition rounds off is added up apart: of infinities it is nothing."""
    inf = float("inf")
    x = gg.tensor([3e38, 3e38, 1.0, -inf] + [1.0] * 3000, device=device).cumsum(0)
    found = x[[0, 1, 2, 3, -1]].tolist()
    assert found[0] == 3e38 or abs(found[0] / 3e38 - 1) < 1e-7
    assert found[1] > 3.4e38 and found[2] > 3.4e38 and not found[3] > 0 and not found[4] > 0


@pytest.mark.parametrize("dtype", [gg.float16, gg.bfloat16])
def test_half_sums_do_not_stall(dtype, device):
    """Added up in the half type, 1 would be lost once the sum has reached 2048 (or 256)."""
    x = gg.ones(20_000, dtype=dtype, device=device)
    wanted = {gg.float16: 20_000, gg.bfloat16: 19968}[dtype]
    assert x.sum().item() == wanted
    assert x.cumsum(0)[-1].item() == wanted
    assert (x @ x).item() == wanted


# -- softmax and its kin at the extremes --------------------------------------------------------------

EXTREMES = {
    "huge": [[1e30, -1e30, 1e30], [3e38, 3e38, -3e38]],
    "far": [[-1e30, -1e30, -1e30], [700.0, -700.0, 0.0]],
    "infinite": [[-np.inf, 0.0, 1.0], [-np.inf, -np.inf, 2.0]],
    "tiny": [[1e-45, -1e-45, 0.0], [1e-38, 2e-38, -1e-38]],
}


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_softmax_at_extremes(name, extreme, device, torch):
    """Values and gradients as PyTorch's in float64, rounded; the gradient of logsumexp is softmax."""
    x = np.array(EXTREMES[extreme], np.float32)
    leaf = gg.tensor(x, device=device, requires_grad=True)
    twin = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    results = []
    for t in (leaf, twin):
        y = getattr(t, name)(1)
        weights = np.arange(1, y.numel() + 1, dtype=np.float32).reshape(tuple(y.shape))
        finite = y.detach().abs() < (3.4e38 if t is twin else float("inf"))  # as float32 holds it
        w = gg.tensor(weights, device=device) if t is leaf else torch.tensor(weights).double()
        pick = (gg if t is leaf else torch).where
        (pick(finite, y, y.detach().clamp(-1.0, 1.0)) * w).sum().backward()
        results.append((y.detach(), t.grad))
    (y, g), (want_y, want_g) = results
    if name == "logsumexp":  # PyTorch's exp(x - y) gives each of several largest all of the gradient
        want_g = torch.softmax(twin.detach(), 1) * torch.arange(1, 3)[:, None]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(y.cpu().numpy(), want_y.numpy().astype(np.float32), rtol=1e-5, atol=1e-30)
        np.testing.assert_allclose(g.cpu().numpy(), want_g.numpy().astype(np.float32), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-20, 1.0, 1e15])
def test_norm_and_its_gradient(scale, device, torch):
    """What squares neither overflow nor vanish for is right; for the rest PyTorch's answer holds."""
    x = (np.array([[3.0, 4.0], [-6.0, 8.0]]) * scale).astype(np.float32)
    leaf = gg.tensor(x, device=device, requires_grad=True)
    leaf.norm(dim=1).sum().backward()
    twin = torch.tensor(x, requires_grad=True)
    twin.norm(dim=1).sum().backward()
    if scale >= 1e-15:
        np.testing.assert_allclose(leaf.grad.cpu().numpy(), [[0.6, 0.8], [-0.6, 0.8]], rtol=1e-5)
    assert np.isfinite(leaf.grad.cpu().numpy()).all() or not np.isfinite(twin.grad.numpy()).all()


# -- units of the last place ----------------------------------------------------------------------------

#: dtype -> the largest error that any function but those below may have
BOUND = {"float32": 2.6, "float64": 4.5, "float16": 0.51}
BOUNDS = {
    ("float32", "digamma"): 500, ("float64", "digamma"): 500, ("float32", "i0"): 5,
    ("float32", "sigmoid"): 3, ("float32", "gelu"): 8, ("float64", "gelu"): 8, ("float32", "silu"): 3,
    ("float16", "gelu"): 0.6, ("float32", "lgamma"): 2, ("float64", "lgamma"): 2,
}  # fmt: skip


@pytest.mark.parametrize("dtype", BOUND)
def test_error_in_units_of_the_last_place(dtype):
    """Each function of the page, eager and compiled on every device, at fewer numbers than the page's."""
    measure_ulp = pytest.importorskip("measure_ulp", reason="needs mpmath")
    bad = {}
    for function in measure_ulp.FUNCTIONS:
        ways = measure_ulp.ways_of(function.name, dtype, with_torch=False)
        if dtype == "float16":  # stored as such and computed in float32, compiled or not
            ways = {way: f for way, f in ways.items() if "compiled" not in way}
        found = measure_ulp.measure(function, dtype, ways, 100 if dtype == "float16" else 200, seed=1)
        bound = BOUNDS.get((dtype, function.name), BOUND[dtype])
        bad |= {f"{function.name}, {way}": e for way, e in found.items() if e[0] > bound}
    assert not bad


def test_the_page_has_the_functions_that_are_measured():
    measure_ulp = pytest.importorskip("measure_ulp", reason="needs mpmath")
    page = measure_ulp.PAGE.read_text().split(measure_ulp.BEGIN)[1].split(measure_ulp.END)[0]
    for function in measure_ulp.FUNCTIONS:
        assert page.count(f"| `{function.name}` |") == len(measure_ulp.DTYPES), function.name


def test_no_float64_is_asked_of_a_device_without_it(device):
    if backend_of(gg.device(device)).supports(np.dtype(np.float64)):
        pytest.skip("has float64")
    assert gg.ones(5, device=device).cumsum(0).dtype is gg.float32
