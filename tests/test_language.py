"""Rotary positions, SwiGLU, the cache of keys and values, and the loss over a vocabulary that keeps no logits."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
import gpugrad.nn.functional as F
from gpugrad import nn


def values(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# -- rotary positions -----------------------------------------------------------------------------------


def turned(x, width, base, positions, interleaved):
    """Pairs as complex numbers, times exp(i angle)."""
    x = x.astype(np.float64)
    head, rest = x[..., :width], x[..., width:]
    h = width // 2
    a, b = (head[..., 0::2], head[..., 1::2]) if interleaved else (head[..., :h], head[..., h:])
    angle = np.asarray(positions)[..., None] * base ** (-2 * np.arange(h) / width)
    z = (a + 1j * b) * np.exp(1j * angle)
    out = np.empty_like(head)
    if interleaved:
        out[..., 0::2], out[..., 1::2] = z.real, z.imag
    else:
        out[..., :h], out[..., h:] = z.real, z.imag
    return np.concatenate([out, rest], -1)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("width", [8, 6])
def test_rotary_values(device, interleaved, width):
    x = values(2, 3, 5, 8)
    layer = nn.RotaryEmbedding(width, 400, base=500.0, interleaved=interleaved, device=device)
    t = gg.tensor(x, device=device)
    for position in (0, 7, 395):
        np.testing.assert_allclose(
            layer(t, position).cpu().numpy(),
            turned(x, width, 500.0, np.arange(position, position + 5), interleaved),
            atol=2e-6,
        )
    where = np.array([3, 1, 4, 1, 399])
    np.testing.assert_allclose(
        layer(t, gg.tensor(where, device=device)).cpu().numpy(), turned(x, width, 500.0, where, interleaved), atol=2e-6
    )
    rows = np.stack([where, where[::-1]])[:, None]  # other positions for each of the batch
    np.testing.assert_allclose(
        layer(t, gg.tensor(rows.copy(), device=device)).cpu().numpy(),
        turned(x, width, 500.0, rows, interleaved),
        atol=2e-6,
    )


def test_rotary_products_depend_on_the_distance_alone(device):
    layer = nn.RotaryEmbedding(16, 1000, device=device)
    q, k = (gg.tensor(values(1, 16, seed=s), device=device) for s in (1, 2))
    score = [(layer(q, m) * layer(k, n)).sum().item() for m, n in ((0, 5), (100, 105), (990, 995))]
    assert max(score) - min(score) < 2e-5


def test_rotary_gradient_is_the_turn_back(device):
    layer = nn.RotaryEmbedding(8, 32, device=device)
    x = gg.tensor(values(3, 4, 8), device=device, requires_grad=True)
    g = values(3, 4, 8, seed=3)
    layer(x, 5).backward(gg.tensor(g, device=device))
    back = turned(g, 8, 10000.0, -np.arange(5, 9), False)
    np.testing.assert_allclose(x.grad.cpu().numpy(), back, atol=2e-6)


def test_rotary_late_positions_are_exact():
    layer = nn.RotaryEmbedding(4, 100_001)
    assert layer.sin[100_000, 0].item() == pytest.approx(np.sin(100_000.0), abs=1e-7)


@pytest.mark.parametrize("dtype", [gg.float16, gg.bfloat16])
def test_rotary_of_half_types_rounds_once(device, dtype):
    layer = nn.RotaryEmbedding(8, 64, device=device)
    x = gg.tensor(values(2, 6, 8), device=device).to(dtype)
    assert layer(x, 9).dtype is dtype
    assert (layer(x, 9) == layer(x.float(), 9).to(dtype)).all()


def test_rotary_is_compiled_and_refuses_what_does_not_fit(device):
    layer = nn.RotaryEmbedding(8, 16, device=device)
    x = gg.tensor(values(2, 4, 8), device=device)
    step = gg.compile(lambda x, p: layer(x, p) * 2)
    for start in (0, 3, 9):
        p = gg.arange(start, start + 4, device=device)
        np.testing.assert_allclose(step(x, p).cpu().numpy(), (layer(x, start) * 2).cpu().numpy(), atol=1e-6)
    with pytest.raises(RuntimeError, match="positions 13 to 16 .* max_positions"):
        layer(x, 13)
    with pytest.raises(IndexError):
        layer(x, gg.tensor([0, 1, 2, 16], device=device)).cpu()
    with pytest.raises(ValueError, match="even"):
        nn.RotaryEmbedding(7)
    with pytest.raises(RuntimeError, match="half as wide"):
        nn.RotaryEmbedding(10, device=device)(x)
    with pytest.raises(TypeError, match="floating"):
        F.rotary_embedding(gg.ones(2, 4, dtype=gg.int64, device=device), layer.cos[:2, :2], layer.sin[:2, :2])
    assert "max_positions=16" in repr(layer) and not layer.state_dict()


# -- SwiGLU -----------------------------------------------------------------------------------------------


def test_swiglu(device):
    gg.manual_seed(1)
    layer = nn.SwiGLU(12, 20, bias=True, device=device)
    x = values(3, 5, 12)
    w = {k: v.detach().cpu().numpy().astype(np.float64) for k, v in layer.named_parameters()}
    gate, up = (x @ w[f"{n}.weight"].T + w[f"{n}.bias"] for n in ("gate_proj", "up_proj"))
    want = (gate / (1 + np.exp(-gate)) * up) @ w["down_proj.weight"].T + w["down_proj.bias"]
    np.testing.assert_allclose(layer(gg.tensor(x, device=device)).detach().cpu().numpy(), want, atol=1e-5)
    assert nn.SwiGLU(768).up_proj.weight.shape == (2048, 768)
    assert nn.SwiGLU(10).down_proj.weight.shape == (10, 32) and nn.SwiGLU(10).up_proj.bias is None


def test_swiglu_gradients():
    a, b = (gg.tensor(values(2, 3, seed=s), dtype=gg.float64, requires_grad=True) for s in (1, 2))
    assert gg.autograd.gradcheck(F.swiglu, (a, b)) and gg.autograd.gradgradcheck(F.swiglu, (a, b))


# -- the cache ----------------------------------------------------------------------------------------------


def attention_of(layer, x, cache, position):
    """One layer of causal attention with rotary positions, by the cache."""
    b, n, c = x.shape
    q, k, v = (t.reshape(b, n, 2, c // 2).transpose(1, 2) for t in layer["qkv"](x).chunk(3, -1))
    rotary = layer["rotary"]
    if isinstance(position, int):
        keys, entries = cache.append(rotary(k, position), v)
        mask = cache.mask(n)
    else:
        keys, entries = cache.write(rotary(k, position), v, position)
        mask = cache.mask_at(position)
    q = rotary(q, position)
    return F.scaled_dot_product_attention(q, keys, entries, attn_mask=mask).transpose(1, 2).reshape(b, n, c)


@pytest.fixture
def layer(device):
    gg.manual_seed(3)
    return {"qkv": nn.Linear(8, 24, device=device), "rotary": nn.RotaryEmbedding(4, 16, device=device)}


@pytest.mark.parametrize("way", ["append", "write", "compiled"])
def test_token_by_token_is_all_at_once(device, layer, way):
    x = gg.tensor(values(2, 12, 8), device=device)
    q, k, v = (t.reshape(2, 12, 2, 4).transpose(1, 2) for t in layer["qkv"](x).chunk(3, -1))
    q, k = layer["rotary"](q), layer["rotary"](k)
    want = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(2, 12, 8)
    cache = nn.KVCache(2, 2, 14, 4, device=device)
    run = gg.compile(attention_of) if way == "compiled" else attention_of
    with gg.no_grad():
        parts, start = [], 0
        for n in (5, 1, 1, 3, 1, 1):  # a prompt, then tokens, sometimes several
            position = start if way == "append" else gg.arange(start, start + n, device=device)
            parts.append(run(layer, x[:, start : start + n], cache, position).clone())
            start += n
    np.testing.assert_allclose(gg.cat(parts, 1).cpu().numpy(), want.detach().cpu().numpy(), atol=2e-6)
    assert cache.seen == (12 if way == "append" else 0)


def test_cache_is_one_piece_of_memory(device):
    cache = nn.KVCache(1, 2, 6, 4, value_width=3, device=device, dtype=gg.float16)
    where = cache.keys.data_ptr() if device != "pretend" else None
    key, value = gg.ones(1, 2, 2, 4, device=device), gg.ones(1, 2, 2, 3, device=device, requires_grad=True)
    keys, entries = cache.append(key, value)
    assert keys.shape == (1, 2, 2, 4) and entries.shape == (1, 2, 2, 3) and keys.dtype is gg.float16
    assert not entries.requires_grad and cache.mask(1) is None
    keys, _ = cache.append(key * 2, value)
    assert keys[0, 0, :, 0].tolist() == [1, 1, 2, 2] and cache.seen == 4
    assert cache.mask(2).tolist() == [[True, True, True, False], [True] * 4]
    if where is not None:
        assert cache.keys.data_ptr() == where and keys.data_ptr() == where
    with pytest.raises(RuntimeError, match="4 of 6 positions are taken, so 3 more"):
        cache.append(gg.ones(1, 2, 3, 4, device=device), gg.ones(1, 2, 3, 3, device=device))
    cache.reset(3)
    keys, _ = cache.append(key * 5, value)
    assert keys[0, 1, :, 2].tolist() == [1, 1, 2, 5, 5]
    with pytest.raises(ValueError, match="6 is not between 0 and the 5"):
        cache.reset(6)
    cache.reset()
    assert cache.seen == 0 and not cache.state_dict() and "seen=0" in repr(cache)


def test_cache_refuses_what_does_not_fit(device):
    cache = nn.KVCache(2, 1, 4, 3, device=device)
    good = gg.ones(2, 1, 1, 3, device=device)
    with pytest.raises(RuntimeError, match=r"key of shape \(2, 2, 1, 3\) .* must be \(2, 1, n, 3\)"):
        cache.append(gg.ones(2, 2, 1, 3, device=device), good)
    with pytest.raises(RuntimeError, match="value of shape"):
        cache.append(good, gg.ones(2, 1, 2, 3, device=device))
    with pytest.raises(RuntimeError, match=r"position must have shape \(1,\)"):
        cache.write(good, good, gg.tensor([0, 1], device=device))
    with pytest.raises(IndexError):
        cache.write(good, good, gg.tensor([4], device=device))[0].cpu()


# -- the loss over a vocabulary ---------------------------------------------------------------------------------

N, WORDS, WIDTH = 37, 50, 16


def vocabulary(device, dtype=gg.float32):
    """Rows, weight, bias, classes, class weights; leaves that want gradients."""
    x, w, b = values(N, WIDTH, seed=1), values(WORDS, WIDTH, seed=2), values(WORDS, seed=3)
    target = np.random.default_rng(4).integers(0, WORDS, N)
    target[::5] = 7
    leaves = [gg.tensor(a, device=device).to(dtype).requires_grad_() for a in (x, w, b)]
    own = gg.tensor(np.abs(values(WORDS, seed=5)) + 0.1, device=device).to(dtype)
    return leaves, gg.tensor(target, device=device), own


def both(device, rows, dtype=gg.float32, **options):
    """The loss and its gradients by the plain definition and in parts."""
    found = []
    for chunk in (None, nn.LinearCrossEntropyOptions(batch_chunk_size=rows)):
        (x, w, b), target, own = vocabulary(device, dtype)
        given = dict(options)
        if given.pop("weighted", False):
            given["weight"] = own
        if given.pop("probabilities", False):
            target = gg.tensor(values(N, WORDS, seed=6), device=device).softmax(1).to(dtype)
        if not given.pop("bias", True):
            b = None
        loss = F.linear_cross_entropy(x, w, target, linear_bias=b, options=chunk, **given)
        scale = gg.tensor(values(*loss.shape, seed=7), device=device)
        (loss * scale).sum().backward()
        found.append([t.detach().float().cpu().numpy() for t in (loss, *(t.grad for t in (x, w, b) if t is not None))])
    return found


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"ignore_index": 7},
        {"weighted": True},
        {"label_smoothing": 0.2, "ignore_index": 7, "weighted": True},
        {"probabilities": True},
        {"probabilities": True, "label_smoothing": 0.1, "weighted": True},
    ],
    ids=str,
)
def test_loss_in_parts_is_the_loss(device, reduction, options):
    plain, parts = both(device, 8, reduction=reduction, **options)
    for a, b in zip(parts, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 36, 37, 1000])
def test_any_number_of_rows(device, rows):
    plain, parts = both(device, rows)
    for a, b in zip(parts, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [gg.float16, gg.bfloat16])
def test_loss_in_parts_of_half_types(device, dtype):
    _, parts = both(device, 8, dtype, ignore_index=7)
    plain, _ = both(device, 8, gg.float32, ignore_index=7)
    for a, b in zip(parts, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.03)
    (x, w, b), target, _ = vocabulary(device, dtype)
    chunk = nn.LinearCrossEntropyOptions(batch_chunk_size=8)
    loss = F.linear_cross_entropy(x, w, target, linear_bias=b, options=chunk)
    loss.backward()
    assert loss.dtype is dtype and x.grad.dtype is dtype and w.grad.dtype is dtype


def test_loss_in_parts_under_autocast(device):
    found = []
    for chunk in (None, nn.LinearCrossEntropyOptions(batch_chunk_size=8)):
        (x, w, b), target, _ = vocabulary(device)
        with gg.autocast(device, dtype=gg.bfloat16):
            loss = F.linear_cross_entropy(x, w, target, linear_bias=b, options=chunk)
        loss.backward()
        assert loss.dtype is gg.float32 and w.grad.dtype is gg.float32
        found.append((loss.item(), w.grad.cpu().numpy(), x.grad.cpu().numpy()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for a, b in zip(found[0][1:], found[1][1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=0.05, atol=2e-3)


def test_second_derivatives_of_the_loss_in_parts():
    (x, w, b), target, _ = vocabulary("cpu")
    x, w, b = (t.detach().double()[:4, :3] if t.dim() == 2 else t.detach().double()[:4] for t in (x, w, b))
    w = w[:4].clone()
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    chunk = nn.LinearCrossEntropyOptions(batch_chunk_size=3)
    for reduction in ("mean", "none"):

        def loss(x, w, b, reduction=reduction):
            t = target[:4] % 4
            return F.linear_cross_entropy(x, w, t, linear_bias=b, reduction=reduction, options=chunk)

        assert gg.autograd.gradcheck(loss, leaves) and gg.autograd.gradgradcheck(loss, leaves)


def test_loss_in_parts_checks_classes_and_walks_twice(device):
    (x, w, b), target, _ = vocabulary(device)
    chunk = nn.LinearCrossEntropyOptions(batch_chunk_size=8)
    with pytest.raises(IndexError):
        bad = gg.where(gg.arange(N, device=device) == 30, WORDS, target)
        F.linear_cross_entropy(x, w, bad, options=chunk).item()
    loss = F.linear_cross_entropy(x, w, target, linear_bias=b, options=chunk)
    first = gg.autograd.grad(loss, w, retain_graph=True)[0]
    assert (gg.autograd.grad(loss, w)[0] == first).all()
    with gg.no_grad():
        assert F.linear_cross_entropy(x, w, target, linear_bias=b, options=chunk).item() == pytest.approx(loss.item())
    assert gg.isnan(F.linear_cross_entropy(x, w, gg.full_like(target, -100), options=chunk)).item()


def test_loss_in_parts_is_compiled(device):
    (x, w, b), target, _ = vocabulary(device)
    chunk = nn.LinearCrossEntropyOptions(batch_chunk_size=8)

    def step(x, target):
        loss = F.linear_cross_entropy(x, w, target, linear_bias=b, options=chunk)
        return loss, *gg.autograd.grad(loss, [w, b])

    for got, want in zip(gg.compile(step)(x, target), step(x, target), strict=True):
        np.testing.assert_allclose(got.detach().cpu().numpy(), want.detach().cpu().numpy(), rtol=1e-5, atol=1e-6)


def test_loss_in_parts_never_holds_the_logits(device):
    """[4096, 8192] logits are 128 MiB; in parts of 256 rows at most four of 8 MiB each."""
    mib = 1 << 20
    gg.manual_seed(0)
    x = gg.randn(4096, 32, device=device, requires_grad=True)
    w = gg.randn(8192, 32, device=device, requires_grad=True)
    target = gg.randint(0, 8192, (4096,), device=device)
    peaks = []
    for chunk in (None, nn.LinearCrossEntropyOptions(batch_chunk_size=256)):
        x.grad = w.grad = None
        gg.synchronize(device)
        before = gg.memory_stats(device)["allocated"]
        gg.reset_peak_memory_stats(device)
        F.linear_cross_entropy(x, w, target, options=chunk).backward()
        peaks.append((gg.memory_stats(device)["peak"] - before) / mib)
    assert peaks[0] > 125 and peaks[1] < 36, peaks


def test_large_vocabularies_are_split_by_themselves(monkeypatch):
    import gpugrad.nn.functional.chunked as chunked

    monkeypatch.setattr(chunked, "CHUNK", 8 * WORDS)
    monkeypatch.setattr(chunked, "LEAST", 4)
    (x, w, b), target, _ = vocabulary("cpu")
    loss = F.linear_cross_entropy(x, w, target, linear_bias=b)
    assert loss.grad_fn.name() == "_LinearCrossEntropyBackward"
    assert loss.item() == pytest.approx(F.cross_entropy(F.linear(x, w, b), target).item(), rel=1e-5)
