"""Attention, transformers and embedding bags: against NumPy, and against PyTorch where it is installed."""

from __future__ import annotations

import contextlib
import copy
import math
import pickle
import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn import functional as F
from gpugrad.nn.attention import SDPBackend, sdpa_kernel
from tests import gradients, parity
from tests.side_by_side import close, compare

RNG = np.random.RandomState(4)
CAUSAL = np.triu(np.ones((3, 3), bool), 1)
FLOAT_CAUSAL = np.where(CAUSAL, -np.inf, 0.0)
PADDING = np.array([[False, False, True], [False, True, False]])
FLOAT_PADDING = np.where(PADDING, -np.inf, 0.5)


def normal(*shape):
    return RNG.standard_normal(shape)


@contextlib.contextmanager
def quietly(library):
    """Without PyTorch's advice about nested tensors."""
    with warnings.catch_warnings():
        if library is not gg:
            warnings.simplefilter("ignore")
        yield


def raised(function, library):
    try:
        with quietly(library):
            function(library)
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError, NotImplementedError) as error:
        return error
    return None


# -- scaled_dot_product_attention ------------------------------------------------------


def test_a_query_that_sees_nothing_gives_zero_and_finite_gradients(device):
    mask = gg.tensor([[True, True, False], [False, False, False]], device=device)
    for m in (mask, gg.where(mask, 0.0, -math.inf)):
        q, k, v = (gg.tensor(normal(2, n, 4).astype(np.float32), device=device) for n in (2, 3, 3))
        q.requires_grad_()
        out = F.scaled_dot_product_attention(q, k, v, m)
        assert out[:, 1].abs().sum().item() == 0.0 and out[:, 0].abs().sum().item() > 0
        out.sum().backward()
        assert q.grad[:, 1].abs().sum().item() == 0.0 and bool(q.grad.isfinite().all())


def test_large_scores_do_not_overflow(device):
    q = gg.full((1, 2, 4), 100.0, device=device)
    v = gg.tensor([[[1.0], [3.0]]], device=device)
    assert F.scaled_dot_product_attention(q, q, v).flatten().tolist() == [2.0, 2.0]


def test_dropout_of_the_weights(device):
    q = gg.zeros(1, 64, 4, device=device)
    v = gg.eye(64, device=device).unsqueeze(0)
    weights = F.scaled_dot_product_attention(q, q, v, dropout_p=0.5).cpu().numpy()
    assert set(np.unique((weights * 32).round(4))) == {0.0, 1.0}
    assert 0.45 < (weights == 0).mean() < 0.55
    assert F.scaled_dot_product_attention(q, q, v, dropout_p=1.0).abs().sum().item() == 0.0


ATTENTION = {
    "plain": ((2, 3, 4), (2, 5, 4), (2, 5, 6), {}),
    "2-d": ((3, 4), (5, 4), (5, 6), {}),
    "causal": ((2, 3, 4), (2, 5, 4), (2, 5, 6), {"is_causal": True}),
    "causal, fewer keys": ((2, 5, 4), (2, 3, 4), (2, 3, 4), {"is_causal": True}),
    "scale": ((2, 3, 4), (2, 5, 4), (2, 5, 4), {"scale": -0.7}),
    "broadcast": ((1, 2, 3, 4), (5, 1, 5, 4), (2, 5, 6), {}),
    "groups": ((2, 6, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), {"enable_gqa": True}),
    "groups, 3-d": ((6, 3, 4), (3, 5, 4), (2, 5, 4), {"enable_gqa": True}),
    "no queries": ((2, 0, 4), (2, 5, 4), (2, 5, 6), {}),
    "no keys": ((2, 3, 4), (2, 0, 4), (2, 0, 6), {}),
    "no width": ((2, 3, 0), (2, 5, 0), (2, 5, 6), {}),
    "one": ((2, 1, 4), (2, 1, 4), (2, 1, 4), {"is_causal": True}),
    "no batch": ((0, 3, 4), (0, 5, 4), (0, 5, 4), {}),
}


@pytest.mark.parametrize("name", list(ATTENTION))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_attention_like_pytorch(name, dtype, device, torch):
    if dtype == "float64" and device != "cpu":
        pytest.skip("float32 there")
    *shapes, options = ATTENTION[name]
    arrays = [normal(*s).astype(dtype) for s in shapes]
    ours = [gg.tensor(a, device=device, requires_grad=True) for a in arrays]
    theirs = [parity.to_torch(a, torch, requires_grad=True) for a in arrays]
    got = F.scaled_dot_product_attention(*ours, **options)
    want = torch.nn.functional.scaled_dot_product_attention(*theirs, **options)
    close(got, want, dtype)
    w = normal(*want.shape).astype(dtype)
    (got * gg.tensor(w, device=device)).sum().backward()
    (want * torch.from_numpy(w)).sum().backward()
    for g, t in zip(ours, theirs, strict=True):
        if g.numel():
            close(g.grad, t.grad, dtype)


MASKS = {
    "bool": RNG.rand(3, 5) > 0.3,
    "bool row": np.array([[True, False, True, True, False]]),
    "bool column": np.array([[True], [False], [True]]),
    "bool batch": RNG.rand(2, 1, 3, 5) > 0.3,
    "bool heads": RNG.rand(4, 1, 5) > 0.3,
    "0-d": np.array(0.5),
    "float": normal(3, 5),
    "float with -inf": np.where(RNG.rand(3, 5) > 0.4, normal(3, 5), -np.inf),
    "all -inf": np.full((3, 5), -np.inf),
    "float batch": normal(2, 4, 3, 5),
}


@pytest.mark.parametrize("name", list(MASKS))
def test_masks_like_pytorch(name, device, torch):
    mask = MASKS[name]
    mask = mask.astype(np.float32) if mask.dtype.kind == "f" else mask
    arrays = [normal(2, 4, n, 4).astype(np.float32) for n in (3, 5, 5)]
    grad = mask.dtype.kind == "f" and bool(np.isfinite(mask).all())
    ours = [gg.tensor(a, device=device, requires_grad=True) for a in arrays] + [gg.tensor(mask, device=device)]
    theirs = [parity.to_torch(a, torch, requires_grad=True) for a in (*arrays,)] + [parity.to_torch(mask, torch)]
    if grad:
        ours[3].requires_grad_()
        theirs[3].requires_grad_()
    got = F.scaled_dot_product_attention(*ours)
    want = torch.nn.functional.scaled_dot_product_attention(*theirs)
    close(got, want, "float32")
    w = normal(*want.shape).astype(np.float32)
    (got * gg.tensor(w, device=device)).sum().backward()
    (want * torch.from_numpy(w)).sum().backward()
    for g, t in zip(ours, theirs, strict=True):
        close(g.grad, t.grad, "float32")


def ones(t, *shape):
    return t.ones(*shape)


def attend(t, q, k, v, *args, **options):
    return t.nn.functional.scaled_dot_product_attention(t.ones(*q), t.ones(*k), t.ones(*v), *args, **options)


REFUSED = {
    "1-d": lambda t: attend(t, (3,), (3,), (3,)),
    "dtypes": lambda t: t.nn.functional.scaled_dot_product_attention(
        t.ones(2, 3, dtype=t.float16), t.ones(2, 3), t.ones(2, 3)
    ),
    "integers": lambda t: t.nn.functional.scaled_dot_product_attention(*[t.ones(2, 3).long()] * 3),
    "integer mask": lambda t: attend(t, (3, 4), (5, 4), (5, 4), t.ones(3, 5).long()),
    "float64 mask": lambda t: attend(t, (3, 4), (5, 4), (5, 4), t.ones(3, 5).double()),
    "mask shape": lambda t: attend(t, (3, 4), (5, 4), (5, 4), t.ones(3, 4)),
    "mask of more dimensions": lambda t: attend(t, (2, 3, 4), (2, 5, 4), (2, 5, 4), t.ones(2, 2, 3, 5)),
    "mask and causal": lambda t: attend(t, (3, 4), (3, 4), (3, 4), t.ones(3, 3), is_causal=True),
    "width": lambda t: attend(t, (3, 4), (3, 5), (3, 5)),
    "length": lambda t: attend(t, (3, 4), (3, 4), (4, 4)),
    "batch": lambda t: attend(t, (3, 3, 4), (2, 3, 4), (2, 3, 4)),
    "groups": lambda t: attend(t, (2, 5, 3, 4), (2, 2, 3, 4), (2, 2, 3, 4), enable_gqa=True),
    "probability": lambda t: attend(t, (3, 4), (3, 4), (3, 4), None, 1.5),
    "scale by position": lambda t: attend(t, (3, 4), (3, 4), (3, 4), None, 0.0, False, 1.0),
    "causal without mask": lambda t: mha(t, is_causal=True),
    "1-d query": lambda t: t.nn.MultiheadAttention(4, 2)(t.ones(4), t.ones(4), t.ones(4)),
    "unbatched keys": lambda t: t.nn.MultiheadAttention(4, 2)(t.ones(3, 2, 4), t.ones(3, 4), t.ones(3, 4)),
    "embed": lambda t: t.nn.MultiheadAttention(4, 2)(t.ones(3, 2, 5), t.ones(3, 2, 4), t.ones(3, 2, 4)),
    "keys and values": lambda t: t.nn.MultiheadAttention(4, 2)(t.ones(3, 2, 4), t.ones(4, 2, 4), t.ones(3, 2, 4)),
    "integer attn_mask": lambda t: mha(t, attn_mask=t.ones(3, 3).long()),
    "attn_mask shape": lambda t: mha(t, attn_mask=t.ones(3, 4)),
    "3-d attn_mask shape": lambda t: mha(t, attn_mask=t.ones(3, 3, 3)),
    "4-d attn_mask": lambda t: mha(t, attn_mask=t.ones(2, 2, 3, 3)),
    "padding shape": lambda t: mha(t, key_padding_mask=t.ones(2, 4)),
    "padding dimensions": lambda t: mha(t, key_padding_mask=t.ones(3)),
    "heads": lambda t: t.nn.MultiheadAttention(5, 2),
    "no heads": lambda t: t.nn.MultiheadAttention(0, 2),
    "activation": lambda t: t.nn.TransformerEncoderLayer(4, 2, activation="wrong"),
    "transformer batch": lambda t: t.nn.Transformer(4, 2, 1, 1, 4)(t.ones(3, 2, 4), t.ones(3, 1, 4)),
    "transformer width": lambda t: t.nn.Transformer(4, 2, 1, 1, 4)(t.ones(3, 2, 4), t.ones(3, 2, 5)),
}


def mha(t, **options):
    x = t.ones(2, 3, 4)
    return t.nn.MultiheadAttention(4, 2, batch_first=True)(x, x, x, **options)


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_as_by_pytorch(name, torch):
    want, got = raised(REFUSED[name], torch), raised(REFUSED[name], gg)
    assert isinstance(want, Exception)
    assert isinstance(got, type(want)), (got, want)


def test_choice_of_an_implementation():
    q = gg.randn(1, 3, 4)
    want = F.scaled_dot_product_attention(q, q, q).numpy()
    for chosen in (SDPBackend.MATH, [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        with sdpa_kernel(chosen):
            np.testing.assert_allclose(F.scaled_dot_product_attention(q, q, q).numpy(), want, rtol=1e-5)
    with pytest.raises(TypeError), sdpa_kernel("math"):
        pass


def test_the_definition_can_be_asked_for(monkeypatch, device):
    backend = gg.zeros(1, device=device)._backend
    offer, asked = backend.offer, []
    monkeypatch.setattr(backend, "offer", lambda name: asked.append(name) or offer(name))
    q = gg.randn(1, 3, 4, device=device)
    with sdpa_kernel(SDPBackend.MATH):
        F.scaled_dot_product_attention(q, q, q)
    assert "attention_takes" not in asked
    F.scaled_dot_product_attention(q, q, q)
    assert "attention_takes" in asked


# -- MultiheadAttention -----------------------------------------------------------------

HEADS = {
    "plain": ({}, {}),
    "no bias": ({"bias": False}, {}),
    "bias of keys": ({"add_bias_kv": True}, {"key_padding_mask": PADDING, "attn_mask": CAUSAL}),
    "zero attention": ({"add_zero_attn": True}, {"key_padding_mask": FLOAT_PADDING, "attn_mask": FLOAT_CAUSAL}),
    "padding": ({}, {"key_padding_mask": PADDING}),
    "float padding": ({}, {"key_padding_mask": FLOAT_PADDING}),
    "causal": ({}, {"attn_mask": CAUSAL}),
    "causal hint": ({}, {"attn_mask": CAUSAL, "is_causal": True}),
    "hint and padding": ({}, {"attn_mask": CAUSAL, "is_causal": True, "key_padding_mask": PADDING}),
    "mask of each head": ({}, {"attn_mask": RNG.standard_normal((4, 3, 3))}),
}


@pytest.mark.parametrize("name", list(HEADS))
@pytest.mark.parametrize("form", ["self", "cross", "unbatched", "batch first"])
@pytest.mark.parametrize("weights", ["mean", "each", "none"])
def test_heads_like_pytorch(name, form, weights, torch):
    options, masks = HEADS[name]
    arrays = {"q": normal(3, 2, 4)}
    if form == "cross":
        arrays |= {"k": normal(3, 2, 4), "v": normal(3, 2, 4)}
    elif form == "unbatched":
        arrays = {"q": normal(3, 4)}
        masks = {k: v[0] if k == "key_padding_mask" else v[:2] if np.ndim(v) == 3 else v for k, v in masks.items()}
    elif form == "batch first":
        arrays = {"q": normal(2, 3, 4), "k": normal(2, 3, 4)}
    extra = {k: v for k, v in masks.items() if k == "is_causal"}
    options = options | {"batch_first": form == "batch first"}
    want = {"mean": {}, "each": {"average_attn_weights": False}, "none": {"need_weights": False}}[weights]

    def call(library, module, q, k=None, v=None, **tensors):
        k = q if k is None else k
        return module(q, k, k if v is None else v, **tensors, **extra, **want)

    tensors = {k: v for k, v in masks.items() if k != "is_causal"}
    compare(torch, lambda t: t.nn.MultiheadAttention(4, 2, **options), call, arrays | tensors, dtype="float64")


@pytest.mark.parametrize("need", [True, False])
def test_keys_and_values_of_other_widths(need, device, torch):
    arrays = {"q": normal(3, 2, 4), "k": normal(5, 2, 6), "v": normal(5, 2, 3)}
    compare(
        torch,
        lambda t: t.nn.MultiheadAttention(4, 2, kdim=6, vdim=3, add_bias_kv=True, add_zero_attn=True),
        lambda library, module, q, k, v: module(q, k, v, need_weights=need),
        arrays,
        device,
    )


def test_static_keys_like_pytorch(torch):
    arrays = [normal(*s).astype(np.float32) for s in ((3, 2, 4), (12, 4), (12,), (4, 4), (4,), (4, 5, 2), (4, 5, 2))]
    found = []
    for t, make in ((torch, torch.from_numpy), (gg, gg.tensor)):
        q, w, b, ow, ob, k, v = (make(a) for a in arrays)
        heads = t.nn.functional.multi_head_attention_forward
        found.append(heads(q, q, q, 4, 2, w, b, None, None, False, 0.0, ow, ob, static_k=k, static_v=v))
    for g, w in zip(found[1], found[0], strict=True):
        close(g, w, "float32")


def test_masks_of_two_kinds_are_warned_of():
    x = gg.randn(3, 2, 4)
    with pytest.warns(UserWarning, match="one kind"):
        nn.MultiheadAttention(4, 2)(
            x, x, x, key_padding_mask=gg.tensor(PADDING), attn_mask=gg.tensor(FLOAT_CAUSAL).float()
        )


def test_dropout_in_training_only(device):
    layer = nn.MultiheadAttention(4, 2, dropout=0.9).to(device)
    x = gg.randn(6, 2, 4, device=device)
    a, b = (layer(x, x, x, need_weights=False)[0].detach().cpu().numpy() for _ in range(2))
    assert not np.allclose(a, b)
    layer.eval()
    a, b = (layer(x, x, x, need_weights=n)[0].detach().cpu().numpy() for n in (True, False))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_second_derivative():
    layer = nn.MultiheadAttention(4, 2, dtype=gg.float64)
    mask = gg.tensor(FLOAT_CAUSAL)

    def function(x):
        return layer(x, x, x, attn_mask=mask, need_weights=False)[0]

    gradients.check_first(function, [normal(3, 1, 4)])
    gradients.check_second(function, [normal(3, 1, 4)])


def test_initial_values(device):
    gg.manual_seed(1)
    a = nn.MultiheadAttention(8, 2, add_bias_kv=True)
    gg.manual_seed(1)
    b = nn.MultiheadAttention(8, 2, add_bias_kv=True, device=device)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().cpu().numpy())
    assert a.in_proj_bias.abs().sum().item() == a.out_proj.bias.abs().sum().item() == 0.0
    assert 0.4 < a.in_proj_weight.abs().max().item() <= math.sqrt(6 / 32)


# -- transformers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"norm_first": True, "activation": "gelu", "batch_first": True}, {"bias": False}]
)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_layers_like_pytorch(options, masked, train, torch):
    common = {"dim_feedforward": 6, "dropout": 0.0} | options
    shape = (2, 3, 4) if options.get("batch_first") else (3, 2, 4)
    arrays = {"x": normal(*shape), "memory": normal(*shape)}
    if masked:
        arrays |= {"mask": CAUSAL, "padding": PADDING}

    def encode(library, module, x, memory, mask=None, padding=None):
        return module(x + memory, mask, padding)

    def decode(library, module, x, memory, mask=None, padding=None):
        return module(x, memory, mask, mask, padding, padding)

    compare(torch, lambda t: t.nn.TransformerEncoderLayer(4, 2, **common), encode, arrays, "cpu", "float64", train)
    compare(torch, lambda t: t.nn.TransformerDecoderLayer(4, 2, **common), decode, arrays, "cpu", "float64", train)


@pytest.mark.parametrize("batch_first", [True, False])
def test_whole_transformer_like_pytorch(batch_first, device, torch):
    shapes = ((2, 3, 4), (2, 5, 4)) if batch_first else ((3, 2, 4), (5, 2, 4))
    arrays = {"src": normal(*shapes[0]), "tgt": normal(*shapes[1]), "padding": PADDING}

    def call(library, module, src, tgt, padding):
        mask = library.nn.Transformer.generate_square_subsequent_mask(5, device=str(tgt.device), dtype=tgt.dtype)
        padding = library.zeros_like(padding, dtype=tgt.dtype).masked_fill(padding, -math.inf)
        return module(
            src, tgt, tgt_mask=mask, src_key_padding_mask=padding, memory_key_padding_mask=padding, tgt_is_causal=True
        )

    compare(
        torch,
        lambda t: t.nn.Transformer(4, 2, 2, 2, 6, 0.0, batch_first=batch_first, activation=t.nn.functional.silu),
        call,
        arrays,
        device,
    )


def test_stacks(torch):
    for t in (torch, gg):
        encoder = t.nn.TransformerEncoder(
            t.nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), 2, t.nn.LayerNorm(4), enable_nested_tensor=False
        )
        assert len(list(encoder.parameters())) == 26
        first, second = (layer.linear1.weight for layer in encoder.layers)
        assert first is not second and bool((first == second).all())  # copies of one layer
    encoder.eval()
    x = gg.randn(2, 3, 4)
    mask = gg.nn.Transformer.generate_square_subsequent_mask(3)
    a = encoder(x, mask).detach().numpy()
    np.testing.assert_allclose(encoder(x, gg.tensor(CAUSAL)).detach().numpy(), a, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(encoder(x, mask, is_causal=True).detach().numpy(), a, rtol=1e-5, atol=1e-6)
    assert not np.allclose(encoder(x).detach().numpy(), a)
    np.testing.assert_allclose(encoder(x[0], mask).detach().numpy(), a[0], rtol=1e-4, atol=1e-5)
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_array_equal(twin(x, mask).detach().numpy(), a)


def test_names_of_the_state_dict(torch):
    for make in (
        lambda t: t.nn.Transformer(4, 2, 1, 2, 6),
        lambda t: t.nn.Transformer(4, 2, 1, 1, 6, bias=False),
        lambda t: t.nn.TransformerDecoder(t.nn.TransformerDecoderLayer(4, 2, 6), 2),
        lambda t: t.nn.MultiheadAttention(4, 2, kdim=3, add_bias_kv=True),
    ):
        with quietly(torch):
            ours, theirs = make(gg), make(torch)
        assert [(k, tuple(v.shape)) for k, v in ours.state_dict().items()] == [
            (k, tuple(v.shape)) for k, v in theirs.state_dict().items()
        ]


# -- bags ---------------------------------------------------------------------------------

INDEX = np.array([0, 2, 2, 4, 1, 3, 4])
OFFSETS = np.array([0, 3, 3, 6])
BAGS = {
    "offsets": ({}, INDEX, OFFSETS),
    "rows": ({}, INDEX[:6].reshape(2, 3), None),
    "padding": ({"padding_idx": 2}, INDEX, OFFSETS),
    "padding of rows": ({"padding_idx": -1}, np.array([[4, 4], [4, 1]]), None),
    "end": ({"include_last_offset": True}, INDEX, np.array([0, 3, 3, 7])),
    "int32": ({}, INDEX.astype(np.int32), OFFSETS.astype(np.int32)),
    "empty bags": ({}, INDEX[:0], np.array([0, 0])),
    "norm": ({"max_norm": 1.0, "norm_type": 1.5}, INDEX, OFFSETS),
}


@pytest.mark.parametrize("name", list(BAGS))
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_like_pytorch(name, mode, device, torch):
    options, index, offsets = BAGS[name]
    arrays = {"i": index} | ({} if offsets is None else {"o": offsets})
    compare(
        torch,
        lambda t: t.nn.EmbeddingBag(5, 3, mode=mode, **options),
        lambda library, module, i, o=None: module(i, o),
        arrays,
        device,
    )


@pytest.mark.parametrize("options", [{}, {"padding_idx": 4}])
def test_weighted_bags_like_pytorch(options, torch):
    compare(
        torch,
        lambda t: t.nn.EmbeddingBag(5, 3, mode="sum", **options),
        lambda library, module, i, o, w: module(i, o, w),
        {"i": INDEX, "o": OFFSETS, "w": normal(7)},
        dtype="float64",
    )


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_gradients_by_frequency(mode, device):
    """Each row's gradient is divided by how often the row is named, as that of embedding() is."""
    found = []
    for by_freq in (True, False):
        w = gg.ones(5, 1, device=device, requires_grad=True)
        i, o = gg.tensor(INDEX, device=device), gg.tensor(OFFSETS, device=device)
        F.embedding_bag(i, w, o, mode=mode, scale_grad_by_freq=by_freq).sum().backward()
        found.append(w.grad.flatten().cpu().numpy())
    np.testing.assert_allclose(found[0] * [1, 1, 2, 1, 2], found[1], rtol=1e-6)


BAD_BAGS = {
    "mode": lambda t, i, w, o: t.nn.functional.embedding_bag(i, w, o, mode="x"),
    "no offsets": lambda t, i, w, o: t.nn.functional.embedding_bag(i, w),
    "2-d with offsets": lambda t, i, w, o: t.nn.functional.embedding_bag(i.reshape(7, 1), w, o),
    "2-d offsets": lambda t, i, w, o: t.nn.functional.embedding_bag(i, w, o.reshape(2, 2)),
    "3-d": lambda t, i, w, o: t.nn.functional.embedding_bag(i.reshape(7, 1, 1), w),
    "weights of a mean": lambda t, i, w, o: t.nn.functional.embedding_bag(i, w, o, per_sample_weights=t.ones(7)),
    "shape of weights": lambda t, i, w, o: t.nn.functional.embedding_bag(
        i, w, o, mode="sum", per_sample_weights=t.ones(6)
    ),
    "dtype of weights": lambda t, i, w, o: t.nn.functional.embedding_bag(
        i, w, o, mode="sum", per_sample_weights=t.ones(7).double()
    ),
    "max by frequency": lambda t, i, w, o: t.nn.functional.embedding_bag(i, w, o, mode="max", scale_grad_by_freq=True),
    "padding": lambda t, i, w, o: t.nn.functional.embedding_bag(i, w, o, padding_idx=7),
    "floats": lambda t, i, w, o: t.nn.functional.embedding_bag(i.float(), w, o),
    "no end": lambda t, i, w, o: t.nn.functional.embedding_bag(i, w, o[:0], include_last_offset=True),
    "module padding": lambda t, i, w, o: t.nn.EmbeddingBag(5, 3, padding_idx=5),
    "module weight": lambda t, i, w, o: t.nn.EmbeddingBag(4, 3, _weight=w),
    "pretrained": lambda t, i, w, o: t.nn.EmbeddingBag.from_pretrained(w[0]),
}


@pytest.mark.parametrize("name", list(BAD_BAGS))
def test_bad_bags(name, torch):
    want = raised(lambda t: BAD_BAGS[name](t, t.tensor(INDEX), t.ones(5, 3), t.tensor(OFFSETS)), torch)
    got = raised(lambda t: BAD_BAGS[name](t, t.tensor(INDEX), t.ones(5, 3), t.tensor(OFFSETS)), gg)
    assert isinstance(want, Exception) and isinstance(got, type(want)), (got, want)


def test_bags(device):
    w = gg.arange(10.0, device=device).reshape(5, 2)
    i, o = gg.tensor([1, 2, 4], device=device), gg.tensor([0, 0, 2], device=device)
    assert F.embedding_bag(i, w, o, mode="sum").tolist() == [[0, 0], [6, 8], [8, 9]]
    assert F.embedding_bag(i, w, o).tolist() == [[0, 0], [3, 4], [8, 9]]
    assert F.embedding_bag(i, w, o, mode="max").tolist() == [[0, 0], [4, 5], [8, 9]]
    with pytest.raises(IndexError):
        F.embedding_bag(i + 3, w, o).tolist()
    with pytest.raises(IndexError):
        F.embedding_bag(i, w, o + 1).tolist()
    with pytest.raises(NotImplementedError, match="sparse"):
        F.embedding_bag(i, w, o, sparse=True)
    with pytest.warns(UserWarning, match="exchanged"):
        F.embedding_bag(w, i, o)
    assert F.embedding_bag(gg.zeros(0, 2, dtype=gg.int64, device=device), w).shape == (0, 2)
    frozen = nn.EmbeddingBag.from_pretrained(w, mode="sum", padding_idx=-1)
    assert not frozen.weight.requires_grad and frozen(i, o).tolist() == [[0, 0], [6, 8], [0, 0]]
    assert repr(frozen) == "EmbeddingBag(5, 2, mode='sum', padding_idx=4)"
    assert nn.EmbeddingBag(4, 3, padding_idx=1).weight[1].tolist() == [0, 0, 0]


def test_merged_masks_like_pytorch(torch):
    heads = RNG.rand(4, 3, 3) > 0.5
    for mask, padding in ((None, None), (CAUSAL, None), (None, PADDING), (CAUSAL, PADDING), (heads, PADDING)):
        found = []
        for t in (torch, gg):
            layer = t.nn.MultiheadAttention(4, 2, batch_first=True)
            given = (None if m is None else t.tensor(m) for m in (mask, padding))
            found.append(layer.merge_masks(*given, t.ones(2, 3, 4)))
        (want, kind), (got, same_kind) = found
        assert kind == same_kind and (want is None) == (got is None)
        if want is not None:
            np.testing.assert_array_equal(got.numpy(), want.numpy())
