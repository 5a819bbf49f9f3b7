"""NumPy: the arithmetic written out by hand, gradients included, and no framework. What the interpreter and one ufunc
after another cost at least; the tests take it as the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.peers import Run, Unavailable


class Peer(peers.Peer):
    def __init__(self, device: str, threads: int) -> None:
        if device != "cpu":
            raise Unavailable(f"has no device {device} (numpy@cpu times it on the CPU instead)")
        self.threads = threads

    def wait(self, result: Any) -> None:
        pass  # it is there

    def about(self) -> dict[str, Any]:
        return {"numpy": np.__version__, "device": "cpu", "threads of BLAS": self.threads}

    def call(self, step: Callable[[], tuple[Any, ...]]) -> Run:
        return Run(step, lambda result: [np.asarray(a) for a in result])

    # -- small -----------------------------------------------------------------------------

    def one_op(self, a: np.ndarray, b: np.ndarray) -> Run:
        return self.call(lambda: (a + b,))

    def small_backward(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Run:
        def step() -> Any:
            t = np.tanh(a * b + c)
            g = 1 - t * t
            return t.sum(), g * b, g * a, g

        return self.call(step)

    def scalar_chain(self, x: np.float32, ops: int) -> Run:
        def step() -> Any:
            y = x
            for _ in range(ops // 2):
                y = y * np.float32(0.9995)
                y = y + x
            g, gradient = np.float32(1), np.float32(0)
            for _ in range(ops // 2):
                gradient = gradient + g
                g = g * np.float32(0.9995)
            return y, gradient + g

        return self.call(step)

    # -- networks ----------------------------------------------------------------------------

    def network(
        self, x: np.ndarray, target: np.ndarray, layers: Any, weights: Any, loss: str, optimizer: tuple[str, dict]
    ) -> Run:
        if any(kind not in ("linear", "relu") for kind, *_ in layers):
            raise NotImplementedError("convolutions are not written out by hand")
        parameters = [w.copy() for w in weights]
        update = _optimizer(optimizer[0], parameters, optimizer[1])

        def step() -> Any:
            inputs = [x]  # of each linear layer, then the scores
            for i in range(0, len(parameters), 2):
                y = inputs[-1] @ parameters[i].T + parameters[i + 1]
                inputs.append(np.maximum(y, 0) if i + 2 < len(parameters) else y)
            value, g = (_margin if loss == "margin" else _cross_entropy)(inputs.pop(), target)
            gradients: list[Any] = []
            for i in reversed(range(0, len(parameters), 2)):
                a = inputs.pop()
                gradients = [g.T @ a, g.sum(0), *gradients]
                if i:
                    g = (g @ parameters[i]) * (a > 0)
            update(gradients)
            return value, *parameters

        return self.call(step)

    # -- large -------------------------------------------------------------------------------

    def elementwise(self, x: np.ndarray, y: np.ndarray) -> Run:
        return self.call(lambda: (np.tanh(x * 2 + y) * np.exp(-x * x),))

    def elementwise_backward(self, x: np.ndarray, y: np.ndarray, g: np.ndarray) -> Run:
        def step() -> Any:
            t, e = np.tanh(x * 2 + y), np.exp(-x * x)
            gy = g * e * (1 - t * t)
            return t * e, 2 * (gy - g * t * e * x), gy

        return self.call(step)

    def softmax(self, x: np.ndarray, g: np.ndarray) -> Run:
        def step() -> Any:
            e = np.exp(x - x.max(-1, keepdims=True))
            y = e / e.sum(-1, keepdims=True)
            return y, y * (g - (g * y).sum(-1, keepdims=True))

        return self.call(step)

    def layer_norm(self, x: np.ndarray, g: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Run:
        def step() -> Any:
            centred = x - x.mean(-1, keepdims=True)
            scale = 1 / np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(1e-5))
            n = centred * scale
            gn = g * weight
            gx = scale * (gn - gn.mean(-1, keepdims=True) - n * (gn * n).mean(-1, keepdims=True))
            return n * weight + bias, gx, (g * n).sum(0), g.sum(0)

        return self.call(step)

    def sum(self, x: np.ndarray, dim: int | None) -> Run:
        return self.call(lambda: (x.sum(dim),))

    def matmul(self, a: np.ndarray, b: np.ndarray) -> Run:
        return self.call(lambda: (a @ b,))

    def adamw(self, parameters: list[np.ndarray], gradients: list[np.ndarray], options: dict[str, Any]) -> Run:
        leaves = [p.copy() for p in parameters]
        update = _optimizer("AdamW", leaves, options)

        def step() -> Any:
            update(gradients)
            return leaves

        return self.call(step)

    def embedding(self, weight: np.ndarray, index: np.ndarray, g: np.ndarray) -> Run:
        def step() -> Any:
            gradient = np.zeros_like(weight)
            np.add.at(gradient, index, g)
            return weight[index], gradient

        return self.call(step)


def _margin(scores: np.ndarray, target: np.ndarray) -> tuple[Any, np.ndarray]:
    missing = 1 - target * scores[:, 0]
    g = np.where(missing > 0, -target / np.float32(len(target)), np.float32(0))
    return np.maximum(missing, 0).mean(), g[:, None]


def _cross_entropy(logits: np.ndarray, target: np.ndarray) -> tuple[Any, np.ndarray]:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    rows = np.arange(len(target))
    value = -np.log(p[rows, target]).mean()
    p[rows, target] -= 1
    return value, p / np.float32(len(target))


def _optimizer(kind: str, parameters: list[np.ndarray], options: dict[str, Any]) -> Callable[[list[Any]], None]:
    """SGD with momentum; Adam, AdamW."""
    lr, decay = options["lr"], options.get("weight_decay", 0.0)
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    if kind == "SGD":
        momentum = options.get("momentum", 0.0)

        def descend(gradients: list[Any]) -> None:
            for p, g, v in zip(parameters, gradients, first, strict=True):
                v *= momentum
                v += g
                p -= lr * v

        return descend
    beta1, beta2 = options.get("betas", (0.9, 0.999))
    steps = 0

    def update(gradients: list[Any]) -> None:
        nonlocal steps
        steps += 1
        rate, scale = lr / (1 - beta1**steps), (1 - beta2**steps) ** -0.5
        for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
            m += (1 - beta1) * (g - m)
            v += (1 - beta2) * (g * g - v)
            p *= 1 - lr * decay
            p -= rate * m / (np.sqrt(v) * scale + 1e-8)

    return update
