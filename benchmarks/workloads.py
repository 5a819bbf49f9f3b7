"""What is timed: each workload's name, its sizes, its inputs and how closely the peers have to agree on it.

A workload names the method of a peer that builds it (``kind``) and makes the arguments of that method from NumPy's
random numbers, so that everyone starts from the same bits. ``tiny`` sizes are for tests.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Sizes = Mapping[str, Any]
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """``make(rng, **sizes)`` gives the arguments of the peers' method ``kind``.

    ``tolerance``: largest allowed distance of two results, as a part of their length (Euclidean norm).
    ``eager_goal``, ``compiled_goal``: largest wanted ratio of gpugrad's time to eager PyTorch's, and of compiled
    gpugrad's to the best peer's, on the CPU; None where there is no goal."""

    name: str
    title: str
    kind: str
    make: Callable[..., Arguments]
    sizes: Sizes
    tiny: Sizes
    tolerance: float = 1e-5
    eager_goal: float | None = None
    compiled_goal: float | None = 1.0

    def arguments(self, tiny: bool = False) -> Arguments:
        """The same arrays whenever and wherever it is called."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        return self.make(rng, **(self.tiny if tiny else self.sizes))

    def compared(self, numbers: list[np.ndarray], tiny: bool = False) -> list[np.ndarray]:
        """What is compared of a peer's numbers: of parameters only what the steps added, as a wrong gradient would hide
        behind the size of what was there before."""
        arguments = self.arguments(tiny)
        before = arguments.get("weights" if self.kind in ("network", "gpt") else "parameters", [])
        before = list(before.values()) if isinstance(before, dict) else list(before)
        split = len(numbers) - len(before)
        return [*numbers[:split], *(after - b for after, b in zip(numbers[split:], before, strict=True))]


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _vectors(rng: np.random.Generator, names: str, n: int) -> Arguments:
    return {name: _normal(rng, n) for name in names}


def _scalar_chain(rng: np.random.Generator, ops: int) -> Arguments:
    return {"x": np.float32(rng.random()), "ops": ops}


# -- networks ------------------------------------------------------------------------------

# A layer is ("linear", in, out), ("conv", in, out, kernel, padding), ("pool", size), ("relu",) or ("flatten",).
Layer = tuple[Any, ...]


def _mlp(*widths: int) -> list[Layer]:
    pairs = zip(widths, widths[1:], strict=False)
    layers: list[Layer] = [layer for i, o in pairs for layer in (("linear", i, o), ("relu",))]
    return layers[:-1]


def _weights(rng: np.random.Generator, layers: list[Layer]) -> list[np.ndarray]:
    """Weight and bias of every layer that has them, uniform in +-1/sqrt(fan_in)."""
    arrays = []
    for kind, *shape in layers:
        if kind not in ("linear", "conv"):
            continue
        inputs, outputs, *kernel = shape
        weight = (outputs, inputs, kernel[0], kernel[0]) if kernel else (outputs, inputs)
        bound = 1 / np.sqrt(np.prod(weight[1:]))
        arrays += [rng.uniform(-bound, bound, s).astype(np.float32) for s in (weight, (outputs,))]
    return arrays


def _moons(rng: np.random.Generator, samples: int, widths: tuple[int, ...]) -> Arguments:
    upper = np.arange(samples) % 2 == 0
    angle = rng.random(samples) * np.pi
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    points = (np.stack([x, y], 1) + 0.1 * rng.standard_normal((samples, 2))).astype(np.float32)
    layers = _mlp(*widths)
    return {
        "x": points,
        "target": np.where(upper, 1, -1).astype(np.float32),
        "layers": layers,
        "weights": _weights(rng, layers),
        "loss": "margin",  # mean of max(0, 1 - target * score)
        "optimizer": ("SGD", {"lr": 0.05}),
    }


def _classifier(
    rng: np.random.Generator, shape: tuple[int, ...], layers: list[Layer], optimizer: tuple[str, dict[str, Any]]
) -> Arguments:
    return {
        "x": rng.random(shape, dtype=np.float32),
        "target": rng.integers(0, layers[-1][2], shape[0]),
        "layers": layers,
        "weights": _weights(rng, layers),
        "loss": "cross_entropy",
        "optimizer": optimizer,
    }


def _cnn(*, channels: tuple[int, int], size: int, hidden: int) -> list[Layer]:
    first, second = channels
    flat = second * ((size - 4) // 2) ** 2
    convolutions = [("conv", 1, first, 3, 0), ("relu",), ("conv", first, second, 3, 0), ("relu",), ("pool", 2)]
    return [*convolutions, ("flatten",), *_mlp(flat, hidden, 10)]


def _cnn_5x5(first: int, second: int, size: int) -> list[Layer]:
    """The model of examples/train_mnist.py."""
    layers: list[Layer] = []
    for i, o in ((1, first), (first, second)):
        layers += [("conv", i, o, 5, 2), ("relu",), ("pool", 2)]
    return [*layers, ("flatten",), ("linear", second * (size // 4) ** 2, 10)]


def _gpt(
    rng: np.random.Generator, *, layers: int, heads: int, channels: int, context: int, batch: int, vocabulary: int
) -> Arguments:
    """Pre-norm blocks without biases, output weights shared with the embedding, as in small GPT trainers.

    No biases also because the loss does not depend on those of the keys: Adam would divide rounding noise by itself."""

    def matrix(*shape: int) -> np.ndarray:
        return (0.02 * _normal(rng, *shape)).astype(np.float32)

    ones = np.ones(channels, np.float32)
    weights = {"tokens.weight": matrix(vocabulary, channels), "positions.weight": matrix(context, channels)}
    for i in range(layers):
        block = {
            "norm1.weight": ones,
            "qkv.weight": matrix(3 * channels, channels),
            "out.weight": matrix(channels, channels),
            "norm2.weight": ones,
            "up.weight": matrix(4 * channels, channels),
            "down.weight": matrix(channels, 4 * channels),
        }
        weights |= {f"blocks.{i}.{name}": array for name, array in block.items()}
    weights["norm.weight"] = ones
    text = rng.integers(0, vocabulary, (batch, context + 1))
    return {
        "tokens": np.ascontiguousarray(text[:, :-1]),
        "target": np.ascontiguousarray(text[:, 1:]),
        "layers": layers,
        "heads": heads,
        "weights": weights,
        "optimizer": ("AdamW", {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.1}),
    }


# -- single operations -----------------------------------------------------------------------


def _softmax(rng: np.random.Generator, rows: int, columns: int) -> Arguments:
    return {"x": _normal(rng, rows, columns), "g": _normal(rng, rows, columns)}


def _layer_norm(rng: np.random.Generator, rows: int, columns: int) -> Arguments:
    affine = {"weight": 1 + 0.1 * _normal(rng, columns), "bias": 0.1 * _normal(rng, columns)}
    return _softmax(rng, rows, columns) | {name: a.astype(np.float32) for name, a in affine.items()}


def _sum(rng: np.random.Generator, shape: tuple[int, ...], dim: int | None) -> Arguments:
    return {"x": rng.random(shape, dtype=np.float32), "dim": dim}


def _matmul(rng: np.random.Generator, n: int, batch: tuple[int, ...] = ()) -> Arguments:
    return {name: _normal(rng, *batch, n, n) for name in "ab"}


def _adamw(rng: np.random.Generator, tensors: int, elements: int) -> Arguments:
    """The first step is +-lr whatever the gradient; so its magnitude is kept away from zero."""
    parameters = [_normal(rng, elements) for _ in range(tensors)]
    gradients = [(np.sign(p) * (0.1 + rng.random(elements))).astype(np.float32) for p in parameters]
    return {"parameters": parameters, "gradients": gradients, "options": {"lr": 1e-3, "weight_decay": 0.01}}


def _embedding(rng: np.random.Generator, rows: int, columns: int, indices: int) -> Arguments:
    return {
        "weight": _normal(rng, rows, columns),
        "index": rng.integers(0, rows, indices),
        "g": _normal(rng, indices, columns),
    }


def _convolution(
    rng: np.random.Generator,
    shape: tuple[int, int, int, int],
    outputs: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Arguments:
    images, channels, height, width = shape
    fan = channels // groups * kernel * kernel
    out = [(n + 2 * padding - kernel) // stride + 1 for n in (height, width)]
    return {
        "x": _normal(rng, *shape),
        "weight": (_normal(rng, outputs, channels // groups, kernel, kernel) / np.sqrt(fan)).astype(np.float32),
        "g": _normal(rng, images, outputs, *out),
        "stride": stride,
        "padding": padding,
        "groups": groups,
    }


_MOMENTUM = ("SGD", {"lr": 0.01, "momentum": 0.9})
_ADAM = ("Adam", {"lr": 1e-3})
_M = 1 << 20


def _conv_row(name: str, title: str, tiny: Sizes, **sizes: Any) -> Workload:
    return Workload(
        f"conv-{name}",
        f"convolution {title}, forward and backward",
        "convolution",
        _convolution,
        sizes,
        tiny,
        2e-5,
        None,
        None,
    )


WORKLOADS: tuple[Workload, ...] = (
    Workload("one-op", "one addition, 16 elements, one of them a leaf with gradient", "one_op",
             lambda rng, n: _vectors(rng, "ab", n), {"n": 16}, {"n": 16}, 1e-6, 1.1, None),
    Workload("small-backward", "((a*b+c).tanh()).sum(), forward and backward, 16 elements", "small_backward",
             lambda rng, n: _vectors(rng, "abc", n), {"n": 16}, {"n": 16}, 1e-4, 0.7),
    Workload("scalar-chain", "chain of 10,000 scalar operations, forward and backward", "scalar_chain",
             _scalar_chain, {"ops": 10_000}, {"ops": 100}, 1e-4, None, None),
    Workload("moons", "moons MLP 2-16-16-1, 100 samples, training step, SGD", "network",
             _moons, {"samples": 100, "widths": (2, 16, 16, 1)}, {"samples": 20, "widths": (2, 4, 1)}, 1e-4, 0.5),
    Workload("mnist-mlp", "MLP 784-256-128-10, batch 128, training step, Adam", "network", _classifier,
             {"shape": (128, 784), "layers": _mlp(784, 256, 128, 10), "optimizer": _ADAM},
             {"shape": (8, 20), "layers": _mlp(20, 12, 10), "optimizer": _ADAM}, 1e-3, 1.0),
    Workload("cnn", "CNN (conv 32, conv 64, pool, linear 9216-128-10), batch 64, training step, SGD with momentum",
             "network", _classifier,
             {"shape": (64, 1, 28, 28), "layers": _cnn(channels=(32, 64), size=28, hidden=128), "optimizer": _MOMENTUM},
             {"shape": (4, 1, 10, 10), "layers": _cnn(channels=(3, 4), size=10, hidden=8), "optimizer": _MOMENTUM},
             3e-3, 1.3),
    Workload("cnn-5x5", "CNN of the MNIST example (conv 5x5 16, 32), batch 128, training step, Adam",
             "network", _classifier,
             {"shape": (128, 1, 28, 28), "layers": _cnn_5x5(16, 32, 28), "optimizer": _ADAM},
             {"shape": (4, 1, 8, 8), "layers": _cnn_5x5(2, 3, 8), "optimizer": _ADAM}, 5e-3, None, None),
    Workload("gpt", "GPT, 4 layers, 4 heads, 128 channels, context 64, batch 12, training step, AdamW", "gpt", _gpt,
             {"layers": 4, "heads": 4, "channels": 128, "context": 64, "batch": 12, "vocabulary": 65},
             {"layers": 2, "heads": 2, "channels": 8, "context": 6, "batch": 2, "vocabulary": 11}, 2e-3, 1.2),
    Workload("elementwise", "tanh(x*2+y)*exp(-x*x), 16M elements, forward", "elementwise",
             lambda rng, n: _vectors(rng, "xy", n), {"n": 16 * _M}, {"n": 100}, 1e-4, 0.8),
    Workload("elementwise-backward", "tanh(x*2+y)*exp(-x*x), 4M elements, forward and backward",
             "elementwise_backward", lambda rng, n: _vectors(rng, "xyg", n), {"n": 4 * _M}, {"n": 100}, 1e-4, 0.8),
    Workload("softmax", "softmax 4096x1024, forward and backward", "softmax", _softmax,
             {"rows": 4096, "columns": 1024}, {"rows": 5, "columns": 7}, 1e-5, 1.2),
    Workload("layer-norm", "layer norm 4096x1024, forward and backward", "layer_norm", _layer_norm,
             {"rows": 4096, "columns": 1024}, {"rows": 5, "columns": 7}, 1e-5, 1.2),
    Workload("sum", "sum of 16M elements", "sum", _sum,
             {"shape": (16 * _M,), "dim": None}, {"shape": (100,), "dim": None}, 1e-5, 1.0),
    Workload("sum-axis0", "sum over axis 0 of 4096x4096", "sum", _sum,
             {"shape": (4096, 4096), "dim": 0}, {"shape": (5, 7), "dim": 0}, 1e-5, 1.0),
    Workload("sum-axis1", "sum over axis 1 of 4096x4096", "sum", _sum,
             {"shape": (4096, 4096), "dim": 1}, {"shape": (5, 7), "dim": 1}, 1e-5, 1.0),
    Workload("matmul-1024", "matrix product 1024", "matmul", _matmul, {"n": 1024}, {"n": 8}, 1e-5, None, None),
    Workload("matmul-2048", "matrix product 2048", "matmul", _matmul, {"n": 2048}, {"n": 9}, 1e-5, None, None),
    Workload("matmul-batched", "matrix products, 64 of 256x256", "matmul", _matmul,
             {"n": 256, "batch": (64,)}, {"n": 4, "batch": (3,)}, 1e-5, None, None),
    Workload("adamw", "AdamW step, 10M parameters in 50 tensors", "adamw", _adamw,
             {"tensors": 50, "elements": 200_000}, {"tensors": 3, "elements": 20}, 2e-4, 0.7),
    Workload("embedding", "embedding, 8192 indices into 32768x256, forward and backward", "embedding", _embedding,
             {"rows": 32768, "columns": 256, "indices": 8192}, {"rows": 12, "columns": 4, "indices": 9},
             1e-5, None, None),
    _conv_row("1x1", "1x1, 64 to 256 channels, 8 images 56x56", {"shape": (2, 3, 6, 6), "outputs": 4, "kernel": 1},
              shape=(8, 64, 56, 56), outputs=256, kernel=1),
    _conv_row("3x3", "3x3, 64 to 64 channels, 8 images 56x56",
              {"shape": (2, 3, 6, 6), "outputs": 4, "kernel": 3, "padding": 1},
              shape=(8, 64, 56, 56), outputs=64, kernel=3, padding=1),
    _conv_row("7x7", "7x7 stride 2, 3 to 64 channels, 4 images 224x224",
              {"shape": (2, 3, 12, 12), "outputs": 4, "kernel": 7, "stride": 2, "padding": 3},
              shape=(4, 3, 224, 224), outputs=64, kernel=7, stride=2, padding=3),
    _conv_row("depthwise", "3x3 depthwise, 128 channels, 8 images 56x56",
              {"shape": (2, 3, 6, 6), "outputs": 3, "kernel": 3, "padding": 1, "groups": 3},
              shape=(8, 128, 56, 56), outputs=128, kernel=3, padding=1, groups=128),
)  # fmt: skip


def chosen(names: list[str] | None) -> list[Workload]:
    """The workloads of these names, in the table's order; all without names. Raises ValueError for an unknown one."""
    known = {w.name for w in WORKLOADS}
    if unknown := set(names or ()) - known:
        raise ValueError(f"no workload is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    return [w for w in WORKLOADS if not names or w.name in names]


def disagreement(mine: list[np.ndarray], theirs: list[np.ndarray], tolerance: float) -> str | None:
    """None if the results are the same numbers to ``tolerance``, else one sentence about the first that is not.

    Each array's distance is taken relative to its length; no single element may be off by more than a hundred times
    the tolerance of the largest, so that an error in one place does not drown in ten million right ones."""
    if len(mine) != len(theirs):
        return f"{len(mine)} results against {len(theirs)}"
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        if a.shape != b.shape:
            return f"result {i} has shape {a.shape} against {b.shape}"
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return f"result {i} is not finite"
        if a.size == 0:
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        distance = float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-30)
        worst = float(np.abs(a - b).max()) / max(float(np.abs(b).max()), 1e-30)
        if distance > tolerance or worst > 100 * tolerance:
            off = f"off by {distance:.1e} (largest element {worst:.1e}), allowed {tolerance:.0e}"
            return f"result {i} of shape {a.shape} is {off}"
    return None
