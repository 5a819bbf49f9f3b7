"""What the tests of nn compare with PyTorch: calls written once, run by either framework.

A :class:`Case` is a function of a framework (``torch`` or ``gpugrad``: the names are the same) and of named
inputs. ``nn_reference.npz`` holds what PyTorch makes of each, in float64; so the comparison needs no PyTorch.
Where it is installed, ``test_nn.py`` checks that the file still says what PyTorch says.
Write the file anew with ``python -m tests.nn_cases``.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

REFERENCE = Path(__file__).parent / "nn_reference.npz"


class Case(NamedTuple):
    name: str
    call: Callable[..., Any]
    inputs: dict[str, Any]


CASES: dict[str, Case] = {}


def case(name: str, call: Callable[..., Any], **inputs: Any) -> None:
    """Register a case. An input is a shape (normal values, differentiated) or an array (as it is)."""
    assert name not in CASES, name
    CASES[name] = Case(name, call, inputs)


def _random(key: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(key.encode()))  # its streams are frozen, unlike Generator's


def run(t: Any, c: Case, device: str = "cpu", dtype: str = "float32") -> dict[str, np.ndarray]:
    """Results ``out0...``, and the gradients of all inputs and parameters for fixed output gradients."""
    floating = getattr(t, dtype)
    inputs = {}
    for name, spec in c.inputs.items():
        if isinstance(spec, tuple):
            values = _random(c.name + name).standard_normal(spec).astype(np.float32)
            inputs[name] = t.tensor(values, device=device).to(floating).requires_grad_()
        else:
            x = t.tensor(spec, device=device)
            inputs[name] = x.to(floating) if x.is_floating_point() else x
    module = c.call(t) if not c.inputs or c.name[0].isupper() else None
    if module is not None:
        module = module.to(device=device, dtype=floating)
        for name, p in module.named_parameters():
            values = _random(c.name + name).standard_normal(tuple(p.shape)).astype(np.float32)
            with t.no_grad():
                p.copy_(t.tensor(values, device=device))
        out = module(*inputs.values())
    else:
        out = c.call(t, **inputs)
    outs = out if isinstance(out, (tuple, list)) else (out,)
    result, total = {}, 0
    for i, o in enumerate(outs):
        result[f"out{i}"] = o.detach()
        if o.requires_grad:
            g = _random(f"{c.name}gradient{i}").standard_normal(tuple(o.shape)).astype(np.float32)
            total = total + (o * t.tensor(g, device=device).to(floating)).sum()
    leaves = {f"grad_{k}": x for k, x in inputs.items() if x.requires_grad}
    if module is not None:
        leaves.update((f"grad_{k}", p) for k, p in module.named_parameters())
    if not isinstance(total, int):
        total.backward()
        result.update((k, x.grad) for k, x in leaves.items() if x.grad is not None)
    if module is not None:
        result.update((f"buffer_{k}", b) for k, b in module.named_buffers())
    return {k: np.asarray(v.detach().cpu().numpy()) for k, v in result.items()}


def record(torch: Any) -> dict[str, np.ndarray]:
    """What PyTorch makes of every case, by "case/result"."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for c in CASES.values():
            for key, value in run(torch, c, dtype="float64").items():
                found[f"{c.name}/{key}"] = value.astype(np.float32) if value.dtype == np.float64 else value
    return found


# -- activations ---------------------------------------------------------------------
# Values on both sides of every kink, the kinks themselves, and values that overflow exp().
EDGES = np.array([-200.0, -90.0, -30.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 3.0, 6.0, 21.0, 90.0, 200.0], np.float32)

_ACTIVATIONS: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "relu": lambda F: F.relu,
    "relu6": lambda F: F.relu6,
    "hardtanh": lambda F: lambda x: F.hardtanh(x, -1.0, 3.0),
    "leaky_relu": lambda F: lambda x: F.leaky_relu(x, 0.2),
    "elu": lambda F: lambda x: F.elu(x, 0.7),
    "selu": lambda F: F.selu,
    "celu": lambda F: lambda x: F.celu(x, 1.7),
    "gelu": lambda F: F.gelu,
    "gelu_tanh": lambda F: lambda x: F.gelu(x, approximate="tanh"),
    "silu": lambda F: F.silu,
    "mish": lambda F: F.mish,
    "softplus": lambda F: lambda x: F.softplus(x, beta=2.0, threshold=10.0),
    "logsigmoid": lambda F: F.logsigmoid,
    "hardsigmoid": lambda F: F.hardsigmoid,
    "hardswish": lambda F: F.hardswish,
    "softsign": lambda F: F.softsign,
    "softshrink": lambda F: F.softshrink,
    "hardshrink": lambda F: F.hardshrink,
    "tanhshrink": lambda F: F.tanhshrink,
    "threshold": lambda F: lambda x: F.threshold(x, 0.5, -2.0),
    "tanh": lambda F: F.tanh,
    "sigmoid": lambda F: F.sigmoid,
    "rrelu_eval": lambda F: F.rrelu,
}
for _name, _get in _ACTIVATIONS.items():
    case(_name, lambda t, x, _get=_get: _get(t.nn.functional)(x), x=(3, 7))
    # The edges come in as an addition to a zero whose derivative is 1, so that gradients are compared too.
    case(f"{_name}_edges", lambda t, x, e, _get=_get: _get(t.nn.functional)(x - x.detach() + e), x=(15,), e=EDGES)
case("glu", lambda t, x: t.nn.functional.glu(x, 1), x=(3, 6, 2))
case("prelu", lambda t, x, w: t.nn.functional.prelu(x, w), x=(2, 3, 4), w=(3,))
case("prelu_one", lambda t, x, w: t.nn.functional.prelu(x, w), x=(2, 3), w=(1,))
for _name in ("softmax", "log_softmax", "softmin"):
    case(_name, lambda t, x, _name=_name: getattr(t.nn.functional, _name)(x, 1), x=(3, 5, 2))

# -- linear, embedding, distances -------------------------------------------------------
case("linear", lambda t, x, w, b: t.nn.functional.linear(x, w, b), x=(2, 3, 4), w=(5, 4), b=(5,))
case("linear_vector", lambda t, x, w: t.nn.functional.linear(x, w), x=(4,), w=(5, 4))
case(
    "bilinear",
    lambda t, x, y, w, b: t.nn.functional.bilinear(x, y, w, b),
    x=(2, 3, 4),
    y=(2, 3, 5),
    w=(6, 4, 5),
    b=(6,),
)
INDEX = np.array([[0, 2, 2], [4, 1, 0]])
case("embedding", lambda t, w, i: t.nn.functional.embedding(i, w), w=(5, 3), i=INDEX)
case("embedding_padding", lambda t, w, i: t.nn.functional.embedding(i, w, padding_idx=-3), w=(5, 3), i=INDEX)
case("embedding_freq", lambda t, w, i: t.nn.functional.embedding(i, w, scale_grad_by_freq=True), w=(5, 3), i=INDEX)
case(
    "embedding_max_norm",
    lambda t, w, i: t.nn.functional.embedding(i, w.detach() * 1.0, max_norm=1.0),
    w=(5, 3),
    i=INDEX,
)
case("one_hot", lambda t, i: t.nn.functional.one_hot(i), i=INDEX)
case("one_hot_7", lambda t, i: t.nn.functional.one_hot(i, 7), i=INDEX)
case("normalize", lambda t, x: t.nn.functional.normalize(x, p=3.0, dim=0), x=(4, 3))
case("cosine_similarity", lambda t, x, y: t.nn.functional.cosine_similarity(x, y, dim=1), x=(4, 3, 2), y=(4, 3, 2))
case(
    "pairwise_distance",
    lambda t, x, y: t.nn.functional.pairwise_distance(x, y, p=3.0, keepdim=True),
    x=(4, 3),
    y=(4, 3),
)

# -- convolution ----------------------------------------------------------------------------
_CONVS: list[tuple[str, int, dict[str, Any], tuple[int, ...], tuple[int, ...]]] = [
    ("plain", 2, {}, (2, 3, 6, 5), (4, 3, 3, 2)),
    ("padded", 2, {"padding": (1, 2), "stride": (2, 1)}, (2, 3, 6, 5), (4, 3, 3, 2)),
    ("dilated", 2, {"dilation": (1, 2), "padding": 1}, (2, 2, 6, 7), (3, 2, 3, 3)),
    ("groups", 2, {"groups": 2, "padding": 1}, (2, 4, 5, 5), (6, 2, 3, 3)),
    ("depthwise", 2, {"groups": 3, "stride": 2}, (1, 3, 7, 7), (6, 1, 3, 3)),
    ("same", 2, {"padding": "same", "dilation": (1, 2)}, (2, 2, 5, 6), (3, 2, 2, 3)),
    ("valid", 2, {"padding": "valid"}, (2, 2, 5, 6), (3, 2, 2, 3)),
    ("unbatched", 2, {"padding": 1}, (3, 5, 5), (4, 3, 3, 3)),
    ("pointwise", 2, {}, (2, 5, 4, 4), (3, 5, 1, 1)),
    ("plain", 1, {"padding": 2, "stride": 3, "dilation": 2}, (2, 3, 11), (4, 3, 3)),
    ("unbatched", 1, {}, (3, 8), (4, 3, 3)),
    ("plain", 3, {"padding": 1, "stride": (1, 2, 1)}, (2, 2, 4, 5, 3), (3, 2, 2, 3, 2)),
]
for _name, _n, _options, _x, _w in _CONVS:
    case(
        f"conv{_n}d_{_name}",
        lambda t, x, w, b, _n=_n, _o=_options: getattr(t.nn.functional, f"conv{_n}d")(x, w, b, **_o),
        x=_x,
        w=_w,
        b=_w[:1],
    )
_TRANSPOSED: list[tuple[str, int, dict[str, Any], tuple[int, ...], tuple[int, ...]]] = [
    ("plain", 2, {}, (2, 4, 3, 4), (4, 3, 3, 2)),
    ("strided", 2, {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)}, (2, 4, 3, 4), (4, 3, 3, 2)),
    ("dilated", 2, {"dilation": 2, "padding": 1, "output_padding": 1}, (2, 4, 3, 4), (4, 3, 3, 2)),
    ("groups", 2, {"groups": 2, "stride": 2}, (1, 4, 3, 3), (4, 3, 3, 3)),
    ("unbatched", 2, {}, (4, 3, 3), (4, 3, 2, 2)),
    ("plain", 1, {"stride": 2, "padding": 1}, (2, 4, 5), (4, 3, 3)),
    ("plain", 3, {"stride": 2}, (1, 2, 2, 3, 2), (2, 3, 2, 2, 2)),
]
for _name, _n, _options, _x, _w in _TRANSPOSED:
    case(
        f"conv_transpose{_n}d_{_name}",
        lambda t, x, w, b, _n=_n, _o=_options: getattr(t.nn.functional, f"conv_transpose{_n}d")(x, w, b, **_o),
        x=_x,
        w=_w,
        b=(_w[1] * _options.get("groups", 1),),
    )
case(
    "unfold", lambda t, x: t.nn.functional.unfold(x, (2, 3), dilation=(2, 1), padding=1, stride=(1, 2)), x=(2, 3, 5, 6)
)
for _mode in ("reflect", "replicate", "circular"):
    case(f"pad_{_mode}", lambda t, x, _mode=_mode: t.nn.functional.pad(x, (1, 2, 2, 1), mode=_mode), x=(2, 3, 4, 5))
case("pad_constant", lambda t, x: t.nn.functional.pad(x, (1, -1, 0, 2), value=3.0), x=(2, 3, 4))

# -- pooling ------------------------------------------------------------------------------------
_POOLS: list[tuple[str, int, dict[str, Any], tuple[int, ...]]] = [
    ("plain", 2, {"kernel_size": 2}, (2, 3, 5, 6)),
    ("padded", 2, {"kernel_size": (3, 2), "stride": (2, 1), "padding": 1}, (2, 3, 6, 5)),
    ("ceil", 2, {"kernel_size": 3, "stride": 2, "ceil_mode": True}, (1, 2, 6, 8)),
    ("ceil_padded", 2, {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}, (1, 2, 6, 7)),
    ("unbatched", 2, {"kernel_size": 2}, (3, 4, 4)),
    ("plain", 1, {"kernel_size": 3, "stride": 2, "padding": 1}, (2, 3, 8)),
    ("plain", 3, {"kernel_size": 2, "padding": 1, "ceil_mode": True}, (1, 2, 4, 5, 3)),
]
for _name, _n, _options, _x in _POOLS:
    case(
        f"max_pool{_n}d_{_name}",
        lambda t, x, _n=_n, _o=_options: getattr(t.nn.functional, f"max_pool{_n}d")(x, return_indices=True, **_o),
        x=_x,
    )
    case(
        f"avg_pool{_n}d_{_name}",
        lambda t, x, _n=_n, _o=_options: getattr(t.nn.functional, f"avg_pool{_n}d")(x, **_o),
        x=_x,
    )
    case(
        f"avg_pool{_n}d_{_name}_exclude",
        lambda t, x, _n=_n, _o=_options: getattr(t.nn.functional, f"avg_pool{_n}d")(x, count_include_pad=False, **_o),
        x=_x,
    )
case("max_pool2d_dilated", lambda t, x: t.nn.functional.max_pool2d(x, 2, 1, 1, 2, return_indices=True), x=(2, 2, 6, 5))
case("avg_pool2d_divisor", lambda t, x: t.nn.functional.avg_pool2d(x, 2, divisor_override=3, padding=1), x=(2, 2, 6, 5))
case("lp_pool2d", lambda t, x: t.nn.functional.lp_pool2d(x, 2.0, 2), x=(2, 2, 6, 5))
for _n, _x, _out in (
    (1, (2, 3, 7), 3),
    (1, (2, 3, 6), 2),
    (2, (2, 2, 7, 5), (3, 2)),
    (2, (2, 2, 4, 6), (2, 3)),
    (2, (2, 3, 5), 1),
    (3, (1, 2, 4, 5, 3), (2, 3, 2)),
):
    _label = "x".join(map(str, _x))
    case(
        f"adaptive_avg_pool{_n}d_{_label}",
        lambda t, x, _n=_n, _out=_out: getattr(t.nn.functional, f"adaptive_avg_pool{_n}d")(x, _out),
        x=_x,
    )
    case(
        f"adaptive_max_pool{_n}d_{_label}",
        lambda t, x, _n=_n, _out=_out: getattr(t.nn.functional, f"adaptive_max_pool{_n}d")(
            x, _out, return_indices=True
        ),
        x=_x,
    )
case("adaptive_avg_pool2d_none", lambda t, x: t.nn.functional.adaptive_avg_pool2d(x, (None, 2)), x=(1, 2, 3, 5))

# -- normalisation --------------------------------------------------------------------------------
case("layer_norm", lambda t, x, w, b: t.nn.functional.layer_norm(x, (3, 4), w, b), x=(2, 3, 4), w=(3, 4), b=(3, 4))
case("rms_norm", lambda t, x, w: t.nn.functional.rms_norm(x, (4,), w, eps=1e-5), x=(2, 3, 4), w=(4,))
case("group_norm", lambda t, x, w, b: t.nn.functional.group_norm(x, 2, w, b), x=(2, 4, 3, 2), w=(4,), b=(4,))
case(
    "instance_norm",
    lambda t, x, w, b: t.nn.functional.instance_norm(x, weight=w, bias=b),
    x=(2, 3, 4, 2),
    w=(3,),
    b=(3,),
)
case("local_response_norm", lambda t, x: t.nn.functional.local_response_norm(x, 3, alpha=0.1, k=2.0), x=(2, 5, 3))
case(
    "batch_norm",
    lambda t, x, w, b: t.nn.functional.batch_norm(x, None, None, w, b, training=True),
    x=(4, 3, 2),
    w=(3,),
    b=(3,),
)

# -- losses ------------------------------------------------------------------------------------------
CLASSES = np.array([1, 0, 4, 2])
SOME_IGNORED = np.array([1, -100, 4, 2])
PIXELS = np.array([[[1, 0], [2, 2]], [[0, 1], [1, -7]]])
WEIGHT = np.array([0.5, 2.0, 1.0, 0.3, 1.5], np.float32)
WEIGHT3 = np.array([0.5, 2.0, 1.0], np.float32)
PROBABILITIES = np.array([[0.1, 0.2, 0.3, 0.4, 0.0], [1, 0, 0, 0, 0], [0.2] * 5, [0, 0.5, 0.5, 0, 0]], np.float32)
SIGNS = np.array([1.0, -1.0, 1.0, -1.0], np.float32)
for _r in ("mean", "sum", "none"):
    case(
        f"cross_entropy_{_r}",
        lambda t, x, y, _r=_r: t.nn.functional.cross_entropy(x, y, reduction=_r),
        x=(4, 5),
        y=CLASSES,
    )
    case(
        f"cross_entropy_all_{_r}",
        lambda t, x, y, w, _r=_r: t.nn.functional.cross_entropy(x, y, w, reduction=_r, label_smoothing=0.1),
        x=(4, 5),
        y=SOME_IGNORED,
        w=WEIGHT,
    )
    case(
        f"cross_entropy_pixels_{_r}",
        lambda t, x, y, w, _r=_r: t.nn.functional.cross_entropy(
            x, y, w, ignore_index=-7, reduction=_r, label_smoothing=0.2
        ),
        x=(2, 3, 2, 2),
        y=PIXELS,
        w=WEIGHT3,
    )
    case(
        f"cross_entropy_probabilities_{_r}",
        lambda t, x, y, w, _r=_r: t.nn.functional.cross_entropy(x, y, w, reduction=_r, label_smoothing=0.1),
        x=(4, 5),
        y=PROBABILITIES,
        w=WEIGHT,
    )
    case(
        f"nll_loss_{_r}",
        lambda t, x, y, w, _r=_r: t.nn.functional.nll_loss(x, y, w, ignore_index=2, reduction=_r),
        x=(4, 5),
        y=CLASSES,
        w=WEIGHT,
    )
    case(f"mse_loss_{_r}", lambda t, x, y, _r=_r: t.nn.functional.mse_loss(x, y, reduction=_r), x=(4, 3), y=(4, 3))
    case(f"kl_div_{_r}", lambda t, x, y, _r=_r: t.nn.functional.kl_div(x, y, reduction=_r), x=(4, 5), y=PROBABILITIES)
case("cross_entropy_one", lambda t, x, y: t.nn.functional.cross_entropy(x, y), x=(5,), y=np.array(3))
case("cross_entropy_large", lambda t, x, y: t.nn.functional.cross_entropy(x * 200.0, y), x=(4, 5), y=CLASSES)
case("nll_loss_pixels", lambda t, x, y: t.nn.functional.nll_loss(x, y, ignore_index=-7), x=(2, 3, 2, 2), y=PIXELS)
case("l1_loss", lambda t, x, y: t.nn.functional.l1_loss(x, y), x=(4, 3), y=(4, 3))
case("smooth_l1_loss", lambda t, x, y: t.nn.functional.smooth_l1_loss(x, y, beta=0.7), x=(4, 3), y=(4, 3))
case("huber_loss", lambda t, x, y: t.nn.functional.huber_loss(x, y, delta=0.7), x=(4, 3), y=(4, 3))
case(
    "bce",
    lambda t, x, y, w: t.nn.functional.binary_cross_entropy(x.sigmoid(), y, w),
    x=(4, 5),
    y=PROBABILITIES,
    w=WEIGHT,
)
ENDS = np.array([0.0, 1.0, 0.0, 1.0, 0.5], np.float32)
case(
    "bce_ends",
    lambda t, x, p, y: t.nn.functional.binary_cross_entropy(x - x.detach() + p, y, reduction="none"),
    x=(5,),
    p=ENDS,
    y=np.array([0.0, 0.0, 1.0, 1.0, 0.3], np.float32),
)
case(
    "cosine_similarity_zero",
    lambda t, x, y, z: t.nn.functional.cosine_similarity(x * z, y),
    x=(3, 2),
    y=(3, 2),
    z=np.zeros(2, np.float32),
)
case("normalize_zero", lambda t, x: t.nn.functional.normalize(x - x.detach()), x=(3, 2))
case("pairwise_distance_zero", lambda t, x: t.nn.functional.pairwise_distance(x, x.detach()), x=(3, 2))
case(
    "target_gradients",
    lambda t, x, y: t.nn.functional.binary_cross_entropy(x.sigmoid(), y.sigmoid()),
    x=(3, 2),
    y=(3, 2),
)
case(
    "bce_logits",
    lambda t, x, y: t.nn.functional.binary_cross_entropy_with_logits(x * 50.0, y),
    x=(4, 5),
    y=PROBABILITIES,
)
case(
    "bce_logits_weights",
    lambda t, x, y, w, p: t.nn.functional.binary_cross_entropy_with_logits(x, y, w, pos_weight=p),
    x=(4, 5),
    y=PROBABILITIES,
    w=WEIGHT,
    p=WEIGHT,
)
case(
    "kl_div_log_target",
    lambda t, x, y: t.nn.functional.kl_div(x, y, reduction="batchmean", log_target=True),
    x=(4, 3),
    y=(4, 3),
)
case("hinge_embedding", lambda t, x, y: t.nn.functional.hinge_embedding_loss(x, y, margin=0.5), x=(4,), y=SIGNS)
case(
    "margin_ranking",
    lambda t, x, z, y: t.nn.functional.margin_ranking_loss(x, z, y, margin=0.5),
    x=(4,),
    z=(4,),
    y=SIGNS,
)
case(
    "cosine_embedding",
    lambda t, x, z, y: t.nn.functional.cosine_embedding_loss(x, z, y, margin=-0.5),
    x=(4, 3),
    z=(4, 3),
    y=SIGNS,
)
case("soft_margin", lambda t, x, y: t.nn.functional.soft_margin_loss(x * 20.0, y), x=(4,), y=SIGNS)
case(
    "multi_margin",
    lambda t, x, y, w: t.nn.functional.multi_margin_loss(x, y, p=2, margin=0.7, weight=w),
    x=(4, 5),
    y=CLASSES,
    w=WEIGHT,
)
case(
    "triplet_margin",
    lambda t, a, p, n: t.nn.functional.triplet_margin_loss(a, p, n, swap=True),
    a=(4, 3),
    p=(4, 3),
    n=(4, 3),
)
case(
    "gaussian_nll",
    lambda t, x, y, v: t.nn.functional.gaussian_nll_loss(x, y, v.abs(), full=True),
    x=(4, 3),
    y=(4, 3),
    v=(4, 1),
)
case(
    "poisson_nll",
    lambda t, x, y: t.nn.functional.poisson_nll_loss(x, y, full=True),
    x=(4,),
    y=np.array([0.0, 1, 2, 5], np.float32),
)
case(
    "poisson_nll_plain",
    lambda t, x, y: t.nn.functional.poisson_nll_loss(x.exp(), y, log_input=False),
    x=(4,),
    y=np.array([0.0, 1, 2, 5], np.float32),
)

# -- modules: a capital letter; parameters get fixed normal values --------------------------------------
case("Linear", lambda t: t.nn.Linear(4, 3), input=(2, 4))
case("Bilinear", lambda t: t.nn.Bilinear(4, 3, 2, bias=False), x=(2, 4), y=(2, 3))
case("Embedding", lambda t: t.nn.Embedding(5, 3, padding_idx=0), input=INDEX)
case("Conv2d_reflect", lambda t: t.nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"), input=(1, 2, 5, 6))
case(
    "Conv2d_circular_same",
    lambda t: t.nn.Conv2d(2, 3, (2, 3), padding="same", padding_mode="circular"),
    input=(1, 2, 5, 6),
)
case("Conv1d", lambda t: t.nn.Conv1d(4, 6, 3, stride=2, groups=2, bias=False), input=(2, 4, 9))
case("Conv3d", lambda t: t.nn.Conv3d(2, 3, 2, padding=1, padding_mode="replicate"), input=(1, 2, 3, 4, 3))
case(
    "ConvTranspose2d",
    lambda t: t.nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
    input=(1, 2, 3, 4),
)
case("BatchNorm1d", lambda t: t.nn.BatchNorm1d(3), input=(5, 3))
case("BatchNorm2d", lambda t: t.nn.BatchNorm2d(3, eps=1e-3, momentum=0.4), input=(2, 3, 3, 2))
case("BatchNorm2d_average", lambda t: t.nn.BatchNorm2d(3, momentum=None), input=(2, 3, 3, 2))
case("BatchNorm2d_plain", lambda t: t.nn.BatchNorm2d(3, affine=False, track_running_stats=False), input=(2, 3, 3, 2))
case("BatchNorm2d_eval", lambda t: t.nn.BatchNorm2d(3).eval(), input=(2, 3, 3, 2))
case("BatchNorm3d", lambda t: t.nn.BatchNorm3d(2), input=(2, 2, 2, 3, 2))
case("InstanceNorm1d", lambda t: t.nn.InstanceNorm1d(3), input=(3, 5))
case("InstanceNorm2d", lambda t: t.nn.InstanceNorm2d(3, affine=True, track_running_stats=True), input=(2, 3, 3, 2))
case("LayerNorm", lambda t: t.nn.LayerNorm((3, 2)), input=(4, 3, 2))
case("RMSNorm", lambda t: t.nn.RMSNorm(4), input=(2, 4))
case("GroupNorm", lambda t: t.nn.GroupNorm(2, 4), input=(2, 4, 3))
case("PReLU", lambda t: t.nn.PReLU(3), input=(2, 3, 2))
case(
    "Net",
    lambda t: t.nn.Sequential(
        t.nn.Conv2d(1, 4, 3, padding=1),
        t.nn.BatchNorm2d(4),
        t.nn.ReLU(),
        t.nn.MaxPool2d(2),
        t.nn.Flatten(),
        t.nn.Linear(4 * 4, 5),
        t.nn.GELU(),
        t.nn.LayerNorm(5),
        t.nn.LogSoftmax(1),
    ),
    input=(3, 1, 4, 4),
)
for _name, _make in {
    "CrossEntropyLoss": lambda t: t.nn.CrossEntropyLoss(weight=t.tensor(WEIGHT), ignore_index=0, label_smoothing=0.1),
    "NLLLoss": lambda t: t.nn.NLLLoss(weight=t.tensor(WEIGHT), reduction="sum"),
    "MultiMarginLoss": lambda t: t.nn.MultiMarginLoss(margin=0.5, weight=t.tensor(WEIGHT)),
}.items():
    case(_name, _make, input=(4, 5), target=CLASSES)
for _name, _make in {
    "MSELoss": lambda t: t.nn.MSELoss(reduction="sum"),
    "L1Loss": lambda t: t.nn.L1Loss(),
    "SmoothL1Loss": lambda t: t.nn.SmoothL1Loss(beta=0.5),
    "HuberLoss": lambda t: t.nn.HuberLoss(delta=0.5),
    "BCEWithLogitsLoss": lambda t: t.nn.BCEWithLogitsLoss(pos_weight=t.tensor(WEIGHT)),
    "KLDivLoss": lambda t: t.nn.KLDivLoss(reduction="batchmean"),
    "PoissonNLLLoss": lambda t: t.nn.PoissonNLLLoss(),
}.items():
    case(_name, _make, input=(4, 5), target=PROBABILITIES)


if __name__ == "__main__":
    import torch as _torch

    np.savez_compressed(REFERENCE, **record(_torch))  # type: ignore[arg-type]
    print(f"{len(CASES)} cases, {REFERENCE.stat().st_size / 1024:.0f} KiB")
