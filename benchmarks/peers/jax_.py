"""JAX: everything under ``jax.jit``; a training step is one jitted function that takes over its parameters' memory.

Images have their channels last, as in JAX's network libraries: convolutions are up to twice as fast that way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import peers
from benchmarks.peers import Run, Unavailable

Update = Callable[[Any, Any, Any], tuple[Any, Any]]


class Peer(peers.Peer):
    def __init__(self, device: str, threads: int) -> None:
        kind = device.split(":")[0]
        if kind not in ("cpu", "cuda"):
            raise Unavailable(f"has no device {device} (jax@cpu times it on the CPU instead)")
        jax.config.update("jax_default_matmul_precision", "highest")  # no TF32
        try:
            self.device = jax.devices(kind)[0]
        except RuntimeError as error:
            raise Unavailable(f"has no device {device} here") from error
        jax.config.update("jax_default_device", self.device)
        self.threads = threads  # through the processors this process may use, set before it started

    def wait(self, result: Any) -> None:
        jax.block_until_ready(result)

    def about(self) -> dict[str, Any]:
        return {"jax": jax.__version__, "device": self.device.device_kind, "threads": self.threads}

    def put(self, *arrays: Any) -> list[Any]:
        return [jax.device_put(a, self.device) for a in arrays]

    def call(self, function: Callable[..., Any], *arrays: Any) -> Run:
        jitted, inputs = jax.jit(function), self.put(*arrays)
        return Run(lambda: jitted(*inputs), lambda result: [np.asarray(a) for a in jax.tree.leaves(result)])

    def with_gradients(self, function: Callable[..., Any], leaves: list[Any], g: Any) -> Run:
        def both(*arrays: Any) -> Any:
            y, back = jax.vjp(function, *arrays[:-1])
            return y, back(arrays[-1])

        return self.call(both, *leaves, g)

    def training(self, parameters: Any, loss_of: Callable[[Any], Any], optimizer: tuple[str, dict[str, Any]]) -> Run:
        start, update = _optimizer(*optimizer)
        state = [parameters, start(parameters)]

        def step_of(parameters: Any, memory: Any) -> Any:
            loss, gradients = jax.value_and_grad(loss_of)(parameters)
            return loss, *update(parameters, gradients, memory)

        jitted = jax.jit(step_of, donate_argnums=(0, 1))

        def step() -> Any:
            loss, *state[:] = jitted(*state)
            return loss, state[0]

        return Run(step, lambda result: [np.asarray(a) for a in jax.tree.leaves(result)])

    # -- small -----------------------------------------------------------------------------

    def one_op(self, a: np.ndarray, b: np.ndarray) -> Run:
        return self.call(lambda x, y: x + y, a, b)

    def small_backward(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Run:
        return self.with_gradients(lambda x, y, z: jnp.tanh(x * y + z).sum(), [a, b, c], np.float32(1))

    def scalar_chain(self, x: np.float32, ops: int) -> Run:
        """A loop that is not unrolled, as JAX asks for."""

        def chain(leaf: Any) -> Any:
            return lax.scan(lambda y, _: (y * 0.9995 + leaf, None), leaf, length=ops // 2)[0]

        return self.with_gradients(chain, [x], np.float32(1))

    # -- networks ----------------------------------------------------------------------------

    def network(
        self, x: np.ndarray, target: np.ndarray, layers: Any, weights: Any, loss: str, optimizer: tuple[str, dict]
    ) -> Run:
        arranged = list(_channels_last(layers, x.shape[1:], weights))
        images, labels = self.put(
            x.transpose(0, 2, 3, 1) if x.ndim == 4 else x, target.astype(np.float32 if loss == "margin" else np.int32)
        )

        def model(parameters: Any) -> Any:
            y, given = images, iter(parameters)
            for kind, *shape in layers:
                if kind == "linear":
                    y = y @ next(given).T + next(given)
                elif kind == "conv":
                    y = _conv(y, next(given), padding=shape[3]) + next(given)
                elif kind == "relu":
                    y = jax.nn.relu(y)
                elif kind == "flatten":
                    y = y.reshape(len(y), -1)
                else:
                    window = (1, shape[0], shape[0], 1)
                    y = lax.reduce_window(y, -jnp.inf, lax.max, window, window, "VALID")
            return y

        if loss == "margin":

            def loss_of(parameters: Any) -> Any:
                return jax.nn.relu(1 - labels * model(parameters)[:, 0]).mean()
        else:

            def loss_of(parameters: Any) -> Any:
                return _cross_entropy(model(parameters), labels)

        run = self.training(self.put(*(a.array for a in arranged)), loss_of, optimizer)

        def numbers(result: Any) -> list[np.ndarray]:
            loss, *parameters = run.numbers(result)
            return [loss, *(a.back(p) for a, p in zip(arranged, parameters, strict=True))]

        return Run(run.step, numbers)

    def gpt(self, tokens: np.ndarray, target: np.ndarray, layers: int, heads: int, weights: Any, optimizer: Any) -> Run:
        index, wanted = self.put(tokens.astype(np.int32), target.astype(np.int32))

        def loss_of(parameters: list[Any]) -> Any:
            w = dict(zip(weights, parameters, strict=True))
            x = w["tokens.weight"][index] + w["positions.weight"][: tokens.shape[1]]
            for i in range(layers):
                block = {
                    name: w[f"blocks.{i}.{name}.weight"] for name in ("norm1", "qkv", "out", "norm2", "up", "down")
                }
                x = x + _attention(_norm(x) * block["norm1"], block["qkv"], heads) @ block["out"].T
                x = x + jax.nn.gelu((_norm(x) * block["norm2"]) @ block["up"].T, approximate=False) @ block["down"].T
            return _cross_entropy((_norm(x) * w["norm.weight"]) @ w["tokens.weight"].T, wanted)

        # A list, not a dictionary: its leaves keep the weights' order.
        return self.training(self.put(*weights.values()), loss_of, optimizer)

    # -- large -------------------------------------------------------------------------------

    def elementwise(self, x: np.ndarray, y: np.ndarray) -> Run:
        return self.call(lambda a, b: jnp.tanh(a * 2 + b) * jnp.exp(-a * a), x, y)

    def elementwise_backward(self, x: np.ndarray, y: np.ndarray, g: np.ndarray) -> Run:
        return self.with_gradients(lambda a, b: jnp.tanh(a * 2 + b) * jnp.exp(-a * a), [x, y], g)

    def softmax(self, x: np.ndarray, g: np.ndarray) -> Run:
        return self.with_gradients(lambda a: jax.nn.softmax(a, -1), [x], g)

    def layer_norm(self, x: np.ndarray, g: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Run:
        return self.with_gradients(lambda a, w, b: _norm(a) * w + b, [x, weight, bias], g)

    def sum(self, x: np.ndarray, dim: int | None) -> Run:
        return self.call(lambda a: a.sum(dim), x)

    def matmul(self, a: np.ndarray, b: np.ndarray) -> Run:
        return self.call(lambda x, y: x @ y, a, b)

    def adamw(self, parameters: list[np.ndarray], gradients: list[np.ndarray], options: dict[str, Any]) -> Run:
        start, update = _optimizer("AdamW", options)
        leaves, given = self.put(*parameters), self.put(*gradients)
        state = [leaves, start(leaves)]
        jitted = jax.jit(update, donate_argnums=(0, 2))

        def step() -> Any:
            state[:] = jitted(state[0], given, state[1])
            return state[0]

        return Run(step, lambda result: [np.asarray(a) for a in result])

    def embedding(self, weight: np.ndarray, index: np.ndarray, g: np.ndarray) -> Run:
        (rows,) = self.put(index.astype(np.int32))
        return self.with_gradients(lambda table: table[rows], [weight], g)

    def convolution(self, x: np.ndarray, weight: np.ndarray, g: np.ndarray, **options: int) -> Run:
        run = self.with_gradients(
            lambda a, w: _conv(a, w, **options),
            [x.transpose(0, 2, 3, 1), weight.transpose(2, 3, 1, 0)],
            g.transpose(0, 2, 3, 1),
        )

        def numbers(result: Any) -> list[np.ndarray]:
            y, gx, gw = run.numbers(result)
            return [y.transpose(0, 3, 1, 2), gx.transpose(0, 3, 1, 2), gw.transpose(3, 2, 0, 1)]

        return Run(run.step, numbers)


class _Arranged(NamedTuple):
    """A parameter as JAX has it, and the way back."""

    array: np.ndarray
    back: Callable[[np.ndarray], np.ndarray] = lambda a: a


def _columns(matrix: np.ndarray, shape: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray:
    """The columns, which count through ``shape``, in another order of its axes."""
    return matrix.reshape(-1, *shape).transpose(order).reshape(len(matrix), -1)


def _channels_last(layers: Any, shape: tuple[int, ...], weights: list[np.ndarray]) -> Iterator[_Arranged]:
    """The parameters for images of ``shape`` (channels, height, width) with their channels last: kernels, and the
    columns of the linear layer behind ``flatten``."""
    given = iter(weights)
    flattened = None
    for kind, *sizes in layers:
        if kind == "conv":
            kernel, padding = sizes[2:]
            shape = (sizes[1], *(n + 2 * padding - kernel + 1 for n in shape[1:]))
            yield _Arranged(next(given).transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))
        elif kind == "linear" and flattened is not None:
            c, h, w = flattened
            matrix = _columns(next(given), (c, h, w), (0, 2, 3, 1))
            yield _Arranged(matrix, functools.partial(_columns, shape=(h, w, c), order=(0, 3, 1, 2)))
            flattened = None
        elif kind == "linear":
            yield _Arranged(next(given))
        elif kind == "pool":
            shape = (shape[0], *(n // sizes[0] for n in shape[1:]))
        elif kind == "flatten":
            flattened = shape
        if kind in ("conv", "linear"):
            yield _Arranged(next(given))  # the bias


def _conv(x: Any, weight: Any, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
    return lax.conv_general_dilated(
        x, weight, (stride, stride), [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )  # fmt: skip


def _norm(x: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)


def _attention(x: Any, qkv: Any, heads: int) -> Any:
    batch, time, channels = x.shape
    q, k, v = jnp.moveaxis((x @ qkv.T).reshape(batch, time, 3, heads, channels // heads), 2, 0)
    return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(batch, time, channels)


def _cross_entropy(logits: Any, target: Any) -> Any:
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], -1)
    return -chosen.mean()


def _optimizer(kind: str, options: dict[str, Any]) -> tuple[Callable[[Any], Any], Update]:
    """``start(parameters)`` makes the optimizer's memory, ``update(parameters, gradients, memory)`` steps."""
    lr, decay = options["lr"], options.get("weight_decay", 0.0)
    zeros = lambda parameters: jax.tree.map(jnp.zeros_like, parameters)  # noqa: E731
    if kind == "SGD":
        momentum = options.get("momentum", 0.0)

        def descend(parameters: Any, gradients: Any, memory: Any) -> tuple[Any, Any]:
            if momentum:
                gradients = memory = jax.tree.map(lambda v, g: momentum * v + g, memory, gradients)
            return jax.tree.map(lambda p, g: p - lr * g, parameters, gradients), memory

        return zeros if momentum else lambda parameters: (), descend

    first, second = options.get("betas", (0.9, 0.999))

    def update(parameters: Any, gradients: Any, memory: Any) -> tuple[Any, Any]:
        """Kingma and Ba, "Adam", 2015; with decay, Loshchilov and Hutter, "Decoupled weight decay", 2019."""
        steps, m, v = memory
        steps = steps + 1
        m = jax.tree.map(lambda m, g: first * m + (1 - first) * g, m, gradients)
        v = jax.tree.map(lambda v, g: second * v + (1 - second) * g * g, v, gradients)
        rate, scale = lr / (1 - first**steps), 1 / jnp.sqrt(1 - second**steps)

        def moved(p: Any, m: Any, v: Any) -> Any:
            return p * (1 - lr * decay) - rate * m / (jnp.sqrt(v) * scale + 1e-8)

        return jax.tree.map(moved, parameters, m, v), (steps, m, v)

    return lambda parameters: (jnp.float32(0), zeros(parameters), zeros(parameters)), update
