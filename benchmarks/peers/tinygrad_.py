"""tinygrad: everything under ``TinyJit``, which replays the captured kernels from the third call on."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.peers import Run, Unavailable

_NAMES = {"cpu": "CPU", "cuda": "CUDA", "opencl": "CL"}


def _find_clang() -> None:
    """tinygrad's CPU device calls ``clang``, which distributions also install as ``clang-15`` alone."""
    if "CC" not in os.environ and shutil.which("clang") is None:
        numbered = sorted(glob.glob("/usr/bin/clang-[0-9]*"))
        if numbered:
            os.environ["CC"] = numbered[-1]


class Peer(peers.Peer):
    def __init__(self, device: str, threads: int) -> None:
        kind = device.split(":")[0]
        if kind not in _NAMES:
            raise Unavailable(f"has no device {device}")
        os.environ["DEV"] = _NAMES[kind]
        os.environ["NUM_CPU_THREADS"] = str(threads)
        _find_clang()
        try:
            import tinygrad
            from tinygrad.helpers import TRAINING
        except ImportError as error:
            raise Unavailable(f"not installed ({error})") from error
        self.lib, self.name, self.threads = tinygrad, _NAMES[kind], threads
        TRAINING.value = 1
        try:
            self.lib.Device[self.name]
        except (RuntimeError, OSError, AttributeError, ImportError) as error:
            raise Unavailable(f"has no device {device} here: {error}") from error

    def wait(self, result: Any) -> None:
        self.lib.Device[self.name].synchronize()

    def about(self) -> dict[str, Any]:
        from importlib.metadata import version

        device = getattr(self.lib.Device[self.name], "device_name", self.name)
        return {"tinygrad": version("tinygrad"), "device": device, "threads": self.threads}

    def tensor(self, array: Any) -> Any:
        array = np.asarray(array)
        if array.dtype == np.int64:
            array = array.astype(np.int32)
        return self.lib.Tensor(array, device=self.name).clone().realize()  # clone: a scalar would be a constant

    def call(self, function: Callable[..., Any], *arrays: Any) -> Run:
        """``function`` returns a tuple of tensors."""
        inputs = [self.tensor(a) for a in arrays]
        Tensor = self.lib.Tensor

        def realized(*tensors: Any) -> Any:
            results = function(*tensors)
            Tensor.realize(*results)
            return results

        jitted = self.lib.TinyJit(realized)
        return Run(lambda: jitted(*inputs), lambda results: [t.numpy() for t in results])

    def with_gradients(self, function: Callable[..., Any], leaves: list[Any], g: Any) -> Run:
        def both(*tensors: Any) -> Any:
            *inputs, incoming = tensors
            y = function(*inputs)
            return y, *y.gradient(*inputs, gradient=incoming)

        return self.call(both, *leaves, g)

    def optimizer(self, kind: str, parameters: list[Any], options: dict[str, Any]) -> Any:
        options = dict(options)
        if "betas" in options:
            options["b1"], options["b2"] = options.pop("betas")
        return getattr(self.lib.nn.optim, kind)(parameters, **options)

    def training(self, parameters: list[Any], loss_of: Callable[[], Any], optimizer: tuple[str, dict]) -> Run:
        optim = self.optimizer(optimizer[0], parameters, optimizer[1])

        @self.lib.TinyJit
        def step() -> Any:
            optim.zero_grad()
            loss = loss_of().backward()
            return loss.realize(*optim.schedule_step())

        return Run(step, lambda loss: [t.numpy() for t in (loss, *parameters)])

    # -- small -----------------------------------------------------------------------------

    def one_op(self, a: np.ndarray, b: np.ndarray) -> Run:
        return self.call(lambda x, y: (x + y,), a, b)

    def small_backward(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Run:
        return self.with_gradients(lambda x, y, z: (x * y + z).tanh().sum(), [a, b, c], np.float32(1))

    def scalar_chain(self, x: np.float32, ops: int) -> Run:
        raise NotImplementedError("unrolls the loop into one expression and does not come back")

    # -- networks ----------------------------------------------------------------------------

    def network(
        self, x: np.ndarray, target: np.ndarray, layers: Any, weights: Any, loss: str, optimizer: tuple[str, dict]
    ) -> Run:
        images, labels = self.tensor(x), self.tensor(target)
        parameters = [self.tensor(w) for w in weights]

        def model() -> Any:
            y, given = images, iter(parameters)
            for kind, *shape in layers:
                if kind == "linear":
                    y = y.linear(next(given).T, next(given))
                elif kind == "conv":
                    y = y.conv2d(next(given), next(given), padding=shape[3])
                elif kind == "relu":
                    y = y.relu()
                elif kind == "flatten":
                    y = y.flatten(1)
                else:
                    y = y.max_pool2d((shape[0], shape[0]))
            return y

        if loss == "margin":

            def loss_of() -> Any:
                return (1 - labels * model().squeeze(1)).relu().mean()
        else:

            def loss_of() -> Any:
                return model().sparse_categorical_crossentropy(labels)

        return self.training(parameters, loss_of, optimizer)

    def gpt(self, tokens: np.ndarray, target: np.ndarray, layers: int, heads: int, weights: Any, optimizer: Any) -> Run:
        index, wanted = self.tensor(tokens), self.tensor(target)
        w = {name.removesuffix(".weight"): self.tensor(array) for name, array in weights.items()}

        def attention(x: Any, qkv: Any) -> Any:
            batch, time, channels = x.shape
            split = x.linear(qkv.T).reshape(batch, time, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
            y = split[0].scaled_dot_product_attention(split[1], split[2], is_causal=True)
            return y.transpose(1, 2).reshape(batch, time, channels)

        def loss_of() -> Any:
            x = w["tokens"][index] + w["positions"][: tokens.shape[1]]
            for i in range(layers):
                b = {name: w[f"blocks.{i}.{name}"] for name in ("norm1", "qkv", "out", "norm2", "up", "down")}
                x = x + attention(x.layernorm() * b["norm1"], b["qkv"]).linear(b["out"].T)
                up = (x.layernorm() * b["norm2"]).linear(b["up"].T)
                x = x + up.gelu(approximate="none").linear(b["down"].T)
            logits = (x.layernorm() * w["norm"]).linear(w["tokens"].T)
            return logits.sparse_categorical_crossentropy(wanted)

        return self.training(list(w.values()), loss_of, optimizer)

    # -- large -------------------------------------------------------------------------------

    def elementwise(self, x: np.ndarray, y: np.ndarray) -> Run:
        return self.call(lambda a, b: ((a * 2 + b).tanh() * (-a * a).exp(),), x, y)

    def elementwise_backward(self, x: np.ndarray, y: np.ndarray, g: np.ndarray) -> Run:
        return self.with_gradients(lambda a, b: (a * 2 + b).tanh() * (-a * a).exp(), [x, y], g)

    def softmax(self, x: np.ndarray, g: np.ndarray) -> Run:
        return self.with_gradients(lambda a: a.softmax(-1), [x], g)

    def layer_norm(self, x: np.ndarray, g: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Run:
        return self.with_gradients(lambda a, w, b: a.layernorm() * w + b, [x, weight, bias], g)

    def sum(self, x: np.ndarray, dim: int | None) -> Run:
        return self.call(lambda a: (a.sum(dim),), x)

    def matmul(self, a: np.ndarray, b: np.ndarray) -> Run:
        return self.call(lambda x, y: (x @ y,), a, b)

    def adamw(self, parameters: list[np.ndarray], gradients: list[np.ndarray], options: dict[str, Any]) -> Run:
        leaves = [self.tensor(a) for a in parameters]
        optim = self.optimizer("AdamW", leaves, options)
        for leaf, g in zip(leaves, gradients, strict=True):
            leaf.grad = self.tensor(g)
        return Run(self.lib.TinyJit(optim.step), lambda _: [leaf.numpy() for leaf in leaves])

    def embedding(self, weight: np.ndarray, index: np.ndarray, g: np.ndarray) -> Run:
        rows = self.tensor(index)
        return self.with_gradients(lambda table: table[rows], [weight], g)

    def convolution(self, x: np.ndarray, weight: np.ndarray, g: np.ndarray, **options: int) -> Run:
        return self.with_gradients(lambda a, w: a.conv2d(w, **options), [x, weight], g)
