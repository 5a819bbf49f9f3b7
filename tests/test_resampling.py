"""Resizing, sampling, folding, padding and unpooling against PyTorch, and on every device against the CPU."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn import functional as F
from tests import gradients, parity

RNG = np.random.RandomState(5)
ARRAYS = {
    "line": RNG.standard_normal((2, 3, 7)),
    "image": RNG.standard_normal((2, 3, 5, 6)),
    "square": RNG.standard_normal((1, 8, 4, 4)),
    "body": RNG.standard_normal((1, 2, 3, 4, 5)),
    "grid": RNG.uniform(-1.4, 1.4, (2, 4, 3, 2)),
    "solid": RNG.uniform(-1.4, 1.4, (1, 2, 3, 2, 3)),
    "flat": RNG.standard_normal((2, 2, 3)),
    "full": RNG.standard_normal((1, 3, 4)),
    "columns": RNG.standard_normal((2, 12, 6)),
    "u": RNG.uniform(0, 1, (2, 3, 2)),
    "v": RNG.uniform(0, 1, (1, 2, 3)),
}


def _interpolations():
    sizes = {
        "line": ["size=4", "size=(11,)", "scale_factor=2", "scale_factor=1.7", "scale_factor=0.6"],
        "image": ["size=(8, 3)", "size=5", "scale_factor=(2, 1.5)", "scale_factor=0.5", "scale_factor=2.0"],
        "body": ["size=(2, 6, 7)", "scale_factor=1.5"],
    }
    modes = {
        "line": ("nearest", "nearest-exact", "area", "linear"),
        "image": ("nearest", "nearest-exact", "area", "bilinear", "bicubic"),
        "body": ("nearest", "nearest-exact", "area", "trilinear"),
    }
    for name, options in sizes.items():
        for size, mode in itertools.product(options, modes[name]):
            for corners in ("None",) if mode in ("nearest", "nearest-exact", "area") else ("False", "True"):
                yield f"{name}, {size}, mode={mode!r}, align_corners={corners}"
    yield "line, scale_factor=1.3, mode='linear', recompute_scale_factor=True"
    for mode, size in itertools.product(("bilinear", "bicubic"), ("size=(3, 9)", "scale_factor=0.4", "size=(7, 2)")):
        yield f"image, {size}, mode={mode!r}, antialias=True"


CALLS = [f"T.nn.functional.interpolate({arguments})" for arguments in _interpolations()]
for _mode, _padding, _corners in itertools.product(
    ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (True, False)
):
    CALLS.append(f"T.nn.functional.grid_sample(image, grid, {_mode!r}, {_padding!r}, {_corners})")
    if _mode != "bicubic":
        CALLS.append(f"T.nn.functional.grid_sample(body, solid, {_mode!r}, {_padding!r}, {_corners})")
for _corners in (True, False):
    CALLS += [
        f"T.nn.functional.affine_grid(flat, (2, 3, 4, 5), {_corners})",
        f"T.nn.functional.affine_grid(full, (1, 2, 2, 3, 4), {_corners})",
    ]
CALLS += [
    "T.nn.functional.affine_grid(flat, (2, 3, 1, 5), False)",
    "T.nn.functional.fold(columns, (3, 4), 2)",
    "T.nn.functional.fold(columns[0], (3, 4), 2)",
    "T.nn.functional.fold(columns, (5, 6), (2, 3), dilation=(2, 1), padding=(0, 1), stride=(2, 2))",
    "T.nn.functional.unfold(image, (2, 3), dilation=(2, 1), padding=1, stride=(1, 2))",
    "T.nn.functional.unfold(image[0], 2)",
    "T.nn.functional.pixel_shuffle(square, 2)",
    "T.nn.functional.pixel_shuffle(square[0], 2)",
    "T.nn.functional.pixel_unshuffle(square, 2)",
    "T.nn.functional.channel_shuffle(square, 4)",
    "T.nn.functional.fractional_max_pool2d(image, 2, output_size=(2, 3), _random_samples=u)",
    "T.nn.functional.fractional_max_pool2d(image, (2, 1), output_ratio=(0.5, 0.4), _random_samples=u)",
    "T.nn.functional.fractional_max_pool3d(body, (1, 2, 2), output_size=(2, 2, 3), _random_samples=v)",
    "T.nn.functional.lp_pool1d(line.abs(), 3.0, 2)",
    "T.nn.functional.lp_pool3d(body.abs(), 2.0, 2, stride=1)",
    "T.nn.functional.lp_pool2d(image, inf, 2)",
    "T.nn.functional.lp_pool1d(line, -inf, 3, stride=2)",
    "T.nn.functional.max_unpool1d(*T.nn.functional.max_pool1d(line, 2, return_indices=True), 2)",
    "T.nn.functional.max_unpool2d(*T.nn.functional.max_pool2d(image, 2, return_indices=True), 2, "
    "output_size=image.shape)",
    "T.nn.functional.max_unpool2d(*T.nn.functional.max_pool2d(image, 3, 2, 1, return_indices=True), 3, 2, 1, "
    "image.shape)",
    "T.nn.functional.max_unpool3d(*T.nn.functional.max_pool3d(body, 2, return_indices=True), 2, output_size=(3, 4, 5))",
]
for _mode in ("reflect", "replicate", "circular"):
    CALLS += [
        f"T.nn.functional.pad(line, (2, 1), {_mode!r})",
        f"T.nn.functional.pad(image, (2, 1, 0, 3), {_mode!r})",
        f"T.nn.functional.pad(body, (1, 1, 2, 0, 1, 2), {_mode!r})",
    ]
CALLS += [
    "T.nn.functional.pad(image, (1, -2, -1, 3), value=2.5)",
    "T.nn.functional.pad(body, (1, 0, 0, 0, 0, 0, 2, 1))",
    "T.nn.functional.pad(line, (0, 1), 'constant', 3)",
]


def _used(call):
    inside = call.replace("T.nn.functional", "")
    return {name: array for name, array in ARRAYS.items() if name in inside}


@pytest.mark.parametrize("call", CALLS)
def test_values_and_gradients_are_pytorchs(call, torch):
    arrays = {k: v for k, v in _used(call).items() if k not in ("u", "v")}
    fixed = {k: ARRAYS[k] for k in ("u", "v") if f"={k})" in call}
    for name, array in fixed.items():
        call = call.replace(f"={name})", f"=T.tensor(np.array({array.tolist()})))")
    parity.gradients(call, arrays, torch, atol=1e-8)


MODULES = {
    "line": [
        "ZeroPad1d((1, 2))",
        "ConstantPad1d(2, 1.5)",
        "ReflectionPad1d(2)",
        "ReplicationPad1d((1, 2))",
        "CircularPad1d(2)",
        "Upsample(scale_factor=2)",
        "Upsample(9, mode='linear')",
    ],
    "image": [
        "ZeroPad2d(1)",
        "ZeroPad2d((1, -1, 0, 2))",
        "ConstantPad2d((1, 2, 0, 1), 3)",
        "ReflectionPad2d((1, 2, 3, 0))",
        "ReplicationPad2d(1)",
        "CircularPad2d((1, 2, 3, 0))",
        "Upsample((7, 8), mode='bicubic', align_corners=True)",
        "Upsample(scale_factor=(2, 3), mode='nearest')",
        "UpsamplingNearest2d(scale_factor=2)",
        "UpsamplingBilinear2d((4, 9))",
        "Unfold((2, 3), padding=1)",
        "ChannelShuffle(3)",
        "MaxPool2d(2, return_indices=True)",
        "AdaptiveMaxPool2d((2, 3), return_indices=True)",
        "LPPool2d(2, 2, ceil_mode=True)",
    ],
    "body": [
        "ZeroPad3d(1)",
        "ConstantPad3d((1, 2, 0, 1, 1, 1), 3.5)",
        "ReflectionPad3d(1)",
        "ReplicationPad3d((1, 2, 3, 0, 1, 1))",
        "CircularPad3d(1)",
        "LPPool3d(2, 2)",
        "MaxPool3d(2, return_indices=True)",
    ],
    "square": ["PixelShuffle(2)", "PixelUnshuffle(2)"],
    "columns": ["Fold((3, 4), 2)"],
}
_ALL_MODULES = [(name, text) for name, texts in MODULES.items() for text in texts]


@pytest.mark.parametrize("name, text", _ALL_MODULES, ids=[text for _, text in _ALL_MODULES])
def test_modules_are_pytorchs(name, text, torch, device):
    ours, theirs = eval(f"nn.{text}", {"nn": nn}), eval(f"nn.{text}", {"nn": torch.nn})
    assert repr(ours) == repr(theirs)
    x = ARRAYS[name].astype(np.float32)
    parity.same(ours(gg.tensor(x, device=device)), theirs(torch.tensor(x)), rtol=1e-4)


def test_max_unpool_modules(torch, device):
    for n, name in ((1, "line"), (2, "image"), (3, "body")):
        results = []
        for library, options in ((gg, {"device": device}), (torch, {})):
            x = library.tensor(ARRAYS[name].astype(np.float32), **options)
            pool = getattr(library.nn, f"MaxPool{n}d")(2, stride=2, return_indices=True)
            unpool = getattr(library.nn, f"MaxUnpool{n}d")(2, stride=2)
            results.append((unpool(*pool(x), output_size=x.shape), repr(unpool)))
        parity.same(results[0][0], results[1][0])
        assert results[0][1] == results[1][1]


_ON_DEVICES = [c for i, c in enumerate(CALLS) if i % 4 == 0 or "fold" in c or "fractional" in c]


@pytest.mark.parametrize("call", _ON_DEVICES)
def test_every_device_agrees_with_the_cpu(call, device):
    found = []
    for where in ("cpu", device):
        leaves = {
            k: gg.tensor(v.astype(np.float32), device=where, requires_grad=k not in ("u", "v"))
            for k, v in _used(call).items()
        }
        out = eval(call, {"T": gg, "inf": float("inf"), **leaves})
        (out * gg.cos(gg.arange(out.numel(), device=where).float()).reshape(out.shape)).sum().backward()
        found.append([out.detach(), *(x.grad for x in leaves.values() if x.grad is not None)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b.cpu().numpy(), a.numpy(), rtol=1e-4, atol=2e-5)


_SECOND = {
    "bicubic": (lambda x: F.interpolate(x, size=(3, 5), mode="bicubic") ** 2, [ARRAYS["square"][:, :1]]),
    "grid_sample": (
        lambda x, g: F.grid_sample(x, g, align_corners=False) ** 2,
        [ARRAYS["image"][:, :1], ARRAYS["grid"] * 0.5],
    ),
    "fold": (lambda x: F.fold(x, (3, 4), 2) ** 2, [ARRAYS["columns"][:1, :4]]),
}


@pytest.mark.parametrize("name", list(_SECOND))
def test_first_and_second_derivative(name):
    function, arrays = _SECOND[name]
    gradients.check_first(function, arrays)
    gradients.check_second(function, arrays)


def test_known_values(device):
    x = gg.tensor([[[1.0, 2.0, 4.0]]], device=device)
    assert F.interpolate(x, scale_factor=2).tolist() == [[[1, 1, 2, 2, 4, 4]]]
    assert F.interpolate(x, size=5, mode="linear", align_corners=True).tolist() == [[[1, 1.5, 2, 3, 4]]]
    assert F.interpolate(x, size=6, mode="linear").tolist() == [[[1, 1.25, 1.75, 2.5, 3.5, 4]]]
    image = gg.arange(4.0, device=device).reshape(1, 1, 2, 2)
    middle = gg.zeros(1, 1, 1, 2, device=device)
    assert F.grid_sample(image, middle, align_corners=True).item() == 1.5
    ones = gg.ones(1, 4, 4, device=device)
    assert F.fold(ones, (3, 3), 2).tolist() == [[[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]]
    assert F.pixel_shuffle(gg.arange(4.0, device=device).reshape(4, 1, 1), 2).tolist() == [[[0, 1], [2, 3]]]


def test_infinity_stays_where_it_is(device):
    x = gg.tensor([[[0.0, float("inf"), 0.0, 0.0, 0.0]]], device=device)
    y = F.interpolate(x, size=10, mode="linear").cpu().numpy()[0, 0]
    assert np.isfinite(y[6:]).all()


def test_images_of_bytes(torch, device):
    x = RNG.randint(0, 256, (1, 3, 6, 5)).astype(np.uint8)
    for mode, exact in (("nearest", True), ("bilinear", False), ("bicubic", False)):
        got = F.interpolate(gg.tensor(x, device=device), size=(4, 9), mode=mode)
        want = torch.nn.functional.interpolate(torch.tensor(x), size=(4, 9), mode=mode)
        assert got.dtype is gg.uint8
        difference = np.abs(got.cpu().numpy().astype(int) - want.numpy().astype(int))
        assert difference.max() <= (0 if exact else 1)


def test_half(device):
    for dtype in (gg.float16, gg.bfloat16):
        x = gg.tensor(ARRAYS["image"], device=device, dtype=gg.float32)
        y = F.interpolate(x.to(dtype), size=(8, 3), mode="bilinear")
        assert y.dtype is dtype
        want = F.interpolate(x, size=(8, 3), mode="bilinear").cpu().numpy()
        np.testing.assert_allclose(y.float().cpu().numpy(), want, atol=3e-2)


def test_averages_of_integers_are_pytorchs(torch, device):
    x = np.arange(36).reshape(1, 1, 6, 6) - 12
    for call in ("avg_pool2d(x, 2)", "avg_pool2d(x, 3, 2, 1)", "avg_pool2d(x, 2, divisor_override=3)"):
        parity.check(f"T.nn.functional.{call}", {"x": x}, torch, device)
    parity.check("T.nn.functional.avg_pool2d(x.int(), 2)", {"x": x}, torch, device)


def test_random_pooling_stays_inside():
    x = gg.randn(2, 3, 9, 8)
    values, where = F.fractional_max_pool2d(x, 2, output_ratio=(0.5, 0.6), return_indices=True)
    assert values.shape == (2, 3, 4, 4)
    assert (x.reshape(2, 3, -1).gather(2, where.reshape(2, 3, -1)).reshape(values.shape) == values).all().item()
    assert nn.FractionalMaxPool3d(2, output_size=2)(gg.randn(1, 2, 5, 5, 5)).shape == (1, 2, 2, 2, 2)


@pytest.mark.parametrize(
    "call",
    [
        "T.nn.functional.interpolate(line)",
        "T.nn.functional.interpolate(line, 3, 2)",
        "T.nn.functional.interpolate(line, (3, 4))",
        "T.nn.functional.interpolate(line, 3, mode='bilinear')",
        "T.nn.functional.interpolate(line, 3, mode='cubic')",
        "T.nn.functional.interpolate(line, 3, align_corners=True)",
        "T.nn.functional.interpolate(line, 3, mode='linear', antialias=True)",
        "T.nn.functional.interpolate(line, 3, recompute_scale_factor=True)",
        "T.nn.functional.interpolate(line, 0)",
        "T.nn.functional.interpolate(line.long(), 3)",
        "T.nn.functional.grid_sample(image, grid, 'cubic', align_corners=True)",
        "T.nn.functional.grid_sample(image, grid, padding_mode='wrap', align_corners=True)",
        "T.nn.functional.grid_sample(image, solid, align_corners=True)",
        "T.nn.functional.grid_sample(body, solid, 'bicubic', align_corners=True)",
        "T.nn.functional.affine_grid(flat, (2, 3, 4), align_corners=True)",
        "T.nn.functional.affine_grid(full, (2, 3, 4, 4), align_corners=True)",
        "T.nn.functional.fold(columns, (3, 5), 2)",
        "T.nn.functional.fold(columns, (3, 4), 5)",
        "T.nn.functional.unfold(image, 9)",
        "T.nn.functional.pixel_shuffle(image, 2)",
        "T.nn.functional.pixel_unshuffle(image, 2)",
        "T.nn.functional.channel_shuffle(image, 2)",
        "T.nn.functional.pad(line, (1,))",
        "T.nn.functional.pad(line, (8, 0), 'reflect')",
        "T.nn.functional.pad(line, (1, 0), 'mirror')",
        "T.nn.functional.max_unpool2d(image, image.long()[:1], 2)",
        "T.nn.functional.max_unpool2d(image, image, 2)",
        "T.nn.functional.max_unpool2d(image, image.long() * 0, 2, output_size=(50, 2))",
        "T.nn.functional.max_unpool2d(image, image.long() * 0 + 200, 2)",
        "T.nn.functional.fractional_max_pool2d(image, 2)",
        "T.nn.functional.fractional_max_pool2d(image, 5, output_size=4)",
        "T.nn.CircularPad1d(1)(body)",
        "T.nn.FractionalMaxPool2d(2)",
        "T.nn.FractionalMaxPool2d(2, output_ratio=2.0)",
    ],
)
def test_errors_have_pytorchs_types(call, torch):
    parity.check(call, ARRAYS, torch)


def test_older_names_warn():
    x = gg.tensor(ARRAYS["image"])
    with pytest.warns(UserWarning, match="interpolate"):
        y = F.upsample(x, scale_factor=2)
    assert y.shape == (2, 3, 10, 12)
    with pytest.warns(UserWarning, match="bilinear"):
        F.upsample_bilinear(x, scale_factor=2)
    with pytest.warns(UserWarning, match="nearest"):
        F.upsample_nearest(x, scale_factor=2)
    with pytest.warns(UserWarning, match="align_corners"):
        F.grid_sample(x, gg.tensor(ARRAYS["grid"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        F.interpolate(x, scale_factor=2, mode="bilinear")
