"""Automatic mixed precision: result dtypes of the listed functions as PyTorch's, and the scaler's bookkeeping."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn

RNG = np.random.default_rng(0)
ARRAYS = {
    "x": RNG.standard_normal((4, 6)).astype(np.float32),
    "w": RNG.standard_normal((5, 6)).astype(np.float32),
    "b": RNG.standard_normal((5,)).astype(np.float32),
    "im": RNG.standard_normal((2, 3, 8, 8)).astype(np.float32),
    "k": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "q": RNG.standard_normal((2, 2, 5, 4)).astype(np.float32),
    "t": RNG.integers(0, 6, 4),
}

EXPRESSIONS = [
    "x @ w.T", "T.matmul(x, w.T)", "x.mm(w.t())", "T.mv(x, x[0])", "F.linear(x, w, b)", "F.conv2d(im, k)",
    "T.conv2d(im, k)", "F.conv_transpose2d(im, k.transpose(0, 1))", "T.addmm(b, x, w.T)", "T.bmm(im[0], im[1])",
    "T.baddbmm(im[0], im[0], im[1])", "T.einsum('ij,kj->ik', x, w)", "F.scaled_dot_product_attention(q, q, q)",
    "x.exp()", "T.softmax(x.bfloat16(), 1)", "F.cross_entropy(x.bfloat16(), t)", "F.mse_loss(x.bfloat16(), x)",
    "x.bfloat16() + x", "x.bfloat16().sum()", "F.layer_norm(x.bfloat16(), (6,))", "x.bfloat16().prod()",
    "F.relu(x @ w.T)", "T.cat([x.bfloat16(), x])", "T.stack([x, x.bfloat16()])", "x.double() @ w.double().T",
    "F.nll_loss(T.log_softmax(x.bfloat16(), 1), t)", "T.linalg.inv((x @ x.T).float())", "(x @ w.T).sigmoid()",
    "T.mm(x.bfloat16(), w.T.bfloat16())", "F.smooth_l1_loss(x.bfloat16(), x.bfloat16())", "t @ t",
    "T.linalg.pinv(x)", "T.pinverse(x)", "x.pinverse()", "T.linalg.solve(im[0, 0], im[0, 1])", "T.linalg.svdvals(x)",
    "T.linalg.lstsq(x, x).solution", "T.linalg.multi_dot([x, w.T])", "T.linalg.vecdot(x, x)",
    "T.linalg.vector_norm(x.half())", "T.linalg.matrix_power(im[0, 0], 2)",
    "F.max_pool3d(im, 2)", "F.max_pool3d(im.half(), 2)", "F.max_pool3d(im.half(), 2, return_indices=True)[0]",
    "F.max_unpool1d(*F.max_pool1d(im[0].half(), 2, return_indices=True), 2)", "F.max_pool2d(im.half(), 2)",
    "T.cov(x)", "T.cov(x.half())", "T.corrcoef(x.half())", "T.tensordot(x, w, ([1], [1]))",
    "T.cdist(x.half(), w.half())",
    "T.tensordot(x[0], w[0], 1)", "T.tensordot(x[0].half(), w[0].half(), 1)", "F.cosine_similarity(x.half(), x.half())",
    "F.bilinear(x, x, T.ones(2, 6, 6))", "F.bilinear(x.half(), x.half(), T.ones(2, 6, 6).half(), T.ones(2).half())",
    "F.softplus(x.half())", "F.elu(x.half())", "F.kl_div(x.half(), x.half().exp(), reduction='sum')",
    "T.addr(x, b[:4], x[0])",
    "T.addcmul(x.half(), x.half(), x.half())", "F.conv2d(im, k, b[:4])", "F.linear(x.half(), w.half(), b.half())",
]  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_dtypes_as_pytorch(expression):
    torch = pytest.importorskip("torch")
    results = []
    for library, make in ((torch, torch.tensor), (gg, gg.tensor)):
        names = {k: make(v) for k, v in ARRAYS.items()} | {"T": library, "F": library.nn.functional}
        with library.autocast("cpu", dtype=library.bfloat16):
            results.append(eval(expression, names))
    want, got = results
    assert str(got.dtype).replace("gpugrad", "torch") == str(want.dtype)
    np.testing.assert_allclose(got.double().numpy(), want.double().numpy(), rtol=4e-2, atol=6e-2)


def test_scope(device):
    x, w = (gg.tensor(ARRAYS[n], device=device) for n in "xw")
    half = gg.bfloat16 if device == "cpu" else gg.float16
    with gg.autocast(device):
        assert gg.is_autocast_enabled(device) and gg.get_autocast_dtype(device) is half
        assert (x @ w.T).dtype is half and (x + x).dtype is gg.float32
        with gg.autocast(device, enabled=False):
            assert (x @ w.T).dtype is gg.float32
        with gg.autocast(device, dtype=gg.bfloat16):
            assert (x @ w.T).dtype is gg.bfloat16
        assert (x @ w.T).dtype is half
    assert (x @ w.T).dtype is gg.float32 and not gg.is_autocast_enabled(device)

    @gg.autocast(device)
    def product():
        return x.matmul(w.T)

    assert product().dtype is half


def test_devices_of_another_type_are_left_alone(device):
    other = "opencl" if device != "opencl" and gg.is_available("opencl") else "pretend"
    if other == device:
        pytest.skip("no second type of device")
    x = gg.tensor(ARRAYS["x"], device=device)
    with gg.autocast(other):
        assert (x @ x.T).dtype is gg.float32


def test_absent_device_warns():
    if gg.is_available("cuda"):
        pytest.skip("there is a CUDA device")
    with pytest.warns(UserWarning, match="no cuda device"), gg.autocast("cuda"):
        assert (gg.ones(2, 2) @ gg.ones(2, 2)).dtype is gg.float32
    with pytest.warns(UserWarning, match="no cuda device"):
        scaler = gg.amp.GradScaler()
    assert not scaler.is_enabled() and scaler.get_scale() == 1.0
    with pytest.warns(FutureWarning, match="old name"), gg.cuda.amp.autocast(enabled=False):
        pass


def test_refused():
    with gg.autocast("cpu", dtype=gg.bfloat16):
        nn.functional.binary_cross_entropy(gg.tensor([0.5]), gg.tensor([1.0]))  # which CPUs take
    with pytest.raises((RuntimeError, ValueError)):
        gg.autocast("nonsense")
    with pytest.raises(ValueError, match="string"):
        gg.autocast(3)


def train(device, enabled, steps=12):
    gg.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(144), nn.Linear(144, 3)).to(device)
    x = gg.tensor(np.random.default_rng(1).standard_normal((16, 1, 8, 8)), dtype=gg.float32, device=device)
    y = gg.tensor(np.arange(16) % 3, device=device)
    optimizer = gg.optim.AdamW(model.parameters(), lr=1e-2)
    scaler = gg.amp.GradScaler(device, enabled=enabled, init_scale=1024.0)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        with gg.autocast(device, enabled=enabled):
            loss = nn.functional.cross_entropy(model(x), y)
        assert loss.dtype is gg.float32
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert all(p.dtype is gg.float32 and p.grad.dtype is gg.float32 for p in model.parameters())
    return losses


def test_training(device):
    mixed, full = train(device, True), train(device, False)
    assert mixed[-1] < 0.7 * mixed[0]
    np.testing.assert_allclose(mixed, full, rtol=5e-2, atol=2e-2)


def test_scaler_as_pytorch():
    """The scale after each update, with infinite gradients now and then."""
    torch = pytest.importorskip("torch")
    overflows = [False, False, True, False, False, False, True, True, False, False, False, False]
    scales = []
    for library in (torch, gg):
        p = library.nn.Parameter(library.ones(2))
        optimizer = library.optim.SGD([p], lr=0.1)
        scaler = library.amp.GradScaler(
            "cpu", init_scale=8.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=2
        )
        seen = []
        for overflow in overflows:
            optimizer.zero_grad()
            scaler.scale((p * (math.inf if overflow else 1.0)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            seen += [scaler.get_scale(), *p.tolist()]
        state = scaler.state_dict()
        scales.append([*seen, state["scale"], state["_growth_tracker"]])
    np.testing.assert_allclose(scales[1], scales[0], rtol=1e-6)


def test_scaler_is_called_in_order():
    p = nn.Parameter(gg.ones(2))
    optimizer = gg.optim.SGD([p], lr=0.1)
    scaler = gg.amp.GradScaler("cpu")
    with pytest.raises(AssertionError, match="scale"):
        scaler.step(optimizer)
    scaler.scale(p.sum()).backward()
    scaler.unscale_(optimizer)
    np.testing.assert_allclose(p.grad.numpy(), 1.0)
    with pytest.raises(RuntimeError, match="already"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="already"):
        scaler.step(optimizer)
    scaler.update()
    other = gg.amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.get_scale() == scaler.get_scale()


def test_checkpoint_repeats_autocast():
    x = gg.tensor(ARRAYS["x"], requires_grad=True)
    seen = []

    def piece(a):
        b = a @ a.T
        seen.append(b.dtype)
        return b.float().sum()

    with gg.autocast("cpu"):
        out = gg.utils.checkpoint.checkpoint(piece, x, use_reentrant=False)
    out.backward()
    assert set(seen) == {gg.bfloat16} and x.grad.dtype is gg.float32
