"""The workloads in PyTorch's names: one text, run by PyTorch and by gpugrad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.peers import Run

Step = Callable[[], Any]


class TorchShaped(peers.Peer):
    """``lib`` is the framework. ``part`` wraps a forward computation or an optimizer's step, ``whole`` a complete step:
    where a framework compiles, it does so in one of the two."""

    lib: Any
    device: Any
    fused = False

    def part(self, function: Step) -> Step:
        return function

    def whole(self, step: Step) -> Step:
        return step

    def tensor(self, array: Any, grad: bool = False) -> Any:
        return self.lib.tensor(array, device=self.device, requires_grad=grad)

    def array(self, tensor: Any) -> np.ndarray:
        return tensor.detach().cpu().numpy()

    def forward_only(self, function: Step) -> Run:
        return Run(self.whole(self.part(function)), lambda y: [self.array(y)])

    def with_gradients(self, forward: Step, leaves: list[Any], g: Any = None) -> Run:
        """Forward and backward from the incoming gradient ``g``; compared are the result and the leaves' gradients."""
        forward = self.part(forward)

        def step() -> Any:
            for leaf in leaves:
                leaf.grad = None
            y = forward()
            y.backward(g)
            return y

        return Run(self.whole(step), lambda y: [self.array(t) for t in (y, *(leaf.grad for leaf in leaves))])

    def optimizer(self, kind: str, parameters: list[Any], options: dict[str, Any]) -> Any:
        fused = {"fused": True} if self.fused else {}
        return getattr(self.lib.optim, kind)(parameters, **options, **fused)

    def training(self, model: Any, loss_of: Step, optimizer: tuple[str, dict[str, Any]]) -> Run:
        parameters = list(model.parameters())
        optim = self.optimizer(optimizer[0], parameters, optimizer[1])
        forward, update = self.part(loss_of), self.part(optim.step)

        def step() -> Any:
            optim.zero_grad()
            loss = forward()
            loss.backward()
            update()
            return loss

        return Run(self.whole(step), lambda loss: [self.array(t) for t in (loss, *parameters)])

    # -- small -----------------------------------------------------------------------------

    def one_op(self, a: np.ndarray, b: np.ndarray) -> Run:
        x, y = self.tensor(a, grad=True), self.tensor(b)
        return self.forward_only(lambda: x + y)

    def small_backward(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Run:
        x, y, z = (self.tensor(array, grad=True) for array in (a, b, c))
        return self.with_gradients(lambda: ((x * y + z).tanh()).sum(), [x, y, z])

    def scalar_chain(self, x: np.float32, ops: int) -> Run:
        leaf = self.tensor(x, grad=True)

        def chain() -> Any:
            y = leaf
            for _ in range(ops // 2):
                y = y * 0.9995
                y = y + leaf
            return y

        return self.with_gradients(chain, [leaf])

    # -- networks ----------------------------------------------------------------------------

    def network(
        self, x: np.ndarray, target: np.ndarray, layers: Any, weights: Any, loss: str, optimizer: tuple[str, dict]
    ) -> Run:
        nn = self.lib.nn
        made = {
            "linear": nn.Linear,
            "conv": lambda i, o, kernel, padding: nn.Conv2d(i, o, kernel, padding=padding),
            "pool": nn.MaxPool2d,
            "relu": nn.ReLU,
            "flatten": nn.Flatten,
        }
        model = nn.Sequential(*(made[kind](*shape) for kind, *shape in layers)).to(self.device)
        with self.lib.no_grad():
            for parameter, array in zip(model.parameters(), weights, strict=True):
                parameter.copy_(self.tensor(array))
        images, labels = self.tensor(x), self.tensor(target)

        if loss == "margin":

            def loss_of() -> Any:
                return (1 - labels * model(images).squeeze(1)).relu().mean()
        else:

            def loss_of() -> Any:
                return nn.functional.cross_entropy(model(images), labels)

        return self.training(model, loss_of, optimizer)

    def gpt(self, tokens: np.ndarray, target: np.ndarray, layers: int, heads: int, weights: Any, optimizer: Any) -> Run:
        model = _gpt(self.lib, weights, layers, heads).to(self.device)
        model.load_state_dict({name: self.tensor(array) for name, array in weights.items()})
        index, wanted = self.tensor(tokens), self.tensor(target)
        positions = self.lib.arange(tokens.shape[1], device=self.device)

        def loss_of() -> Any:
            logits = model(index, positions)
            return self.lib.nn.functional.cross_entropy(logits.view(-1, logits.size(-1)), wanted.view(-1))

        return self.training(model, loss_of, optimizer)

    # -- large -------------------------------------------------------------------------------

    def elementwise(self, x: np.ndarray, y: np.ndarray) -> Run:
        torch, a, b = self.lib, self.tensor(x), self.tensor(y)
        return self.forward_only(lambda: torch.tanh(a * 2 + b) * torch.exp(-a * a))

    def elementwise_backward(self, x: np.ndarray, y: np.ndarray, g: np.ndarray) -> Run:
        torch, a, b = self.lib, self.tensor(x, grad=True), self.tensor(y, grad=True)
        return self.with_gradients(lambda: torch.tanh(a * 2 + b) * torch.exp(-a * a), [a, b], self.tensor(g))

    def softmax(self, x: np.ndarray, g: np.ndarray) -> Run:
        a = self.tensor(x, grad=True)
        return self.with_gradients(lambda: a.softmax(-1), [a], self.tensor(g))

    def layer_norm(self, x: np.ndarray, g: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Run:
        leaves = [self.tensor(array, grad=True) for array in (x, weight, bias)]
        norm = self.lib.nn.functional.layer_norm
        return self.with_gradients(lambda: norm(leaves[0], bias.shape, *leaves[1:]), leaves, self.tensor(g))

    def sum(self, x: np.ndarray, dim: int | None) -> Run:
        a = self.tensor(x)
        return self.forward_only(lambda: a.sum(dim))

    def matmul(self, a: np.ndarray, b: np.ndarray) -> Run:
        x, y = self.tensor(a), self.tensor(b)
        return self.forward_only(lambda: x @ y)

    def adamw(self, parameters: list[np.ndarray], gradients: list[np.ndarray], options: dict[str, Any]) -> Run:
        leaves = [self.tensor(array, grad=True) for array in parameters]
        for leaf, g in zip(leaves, gradients, strict=True):
            leaf.grad = self.tensor(g)
        step = self.whole(self.part(self.optimizer("AdamW", leaves, options).step))
        return Run(step, lambda _: [self.array(leaf) for leaf in leaves])

    def embedding(self, weight: np.ndarray, index: np.ndarray, g: np.ndarray) -> Run:
        table, rows = self.tensor(weight, grad=True), self.tensor(index)
        lookup = self.lib.nn.functional.embedding
        return self.with_gradients(lambda: lookup(rows, table), [table], self.tensor(g))

    def convolution(self, x: np.ndarray, weight: np.ndarray, g: np.ndarray, **options: int) -> Run:
        images, kernel = self.tensor(x, grad=True), self.tensor(weight, grad=True)
        conv2d = self.lib.nn.functional.conv2d
        return self.with_gradients(lambda: conv2d(images, kernel, None, **options), [images, kernel], self.tensor(g))


def _gpt(lib: Any, weights: dict[str, np.ndarray], layers: int, heads: int) -> Any:
    nn, functional = lib.nn, lib.nn.functional
    (vocabulary, channels), context = weights["tokens.weight"].shape, len(weights["positions.weight"])

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1 = nn.LayerNorm(channels, bias=False)
            self.qkv = nn.Linear(channels, 3 * channels, bias=False)
            self.out = nn.Linear(channels, channels, bias=False)
            self.norm2 = nn.LayerNorm(channels, bias=False)
            self.up = nn.Linear(channels, 4 * channels, bias=False)
            self.down = nn.Linear(4 * channels, channels, bias=False)

        def attention(self, x: Any) -> Any:
            batch, time, _ = x.shape
            split = self.qkv(x).view(batch, time, 3, heads, channels // heads)
            q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(y.transpose(1, 2).reshape(batch, time, channels))

        def forward(self, x: Any) -> Any:
            x = x + self.attention(self.norm1(x))
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, channels)
            self.positions = nn.Embedding(context, channels)
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.norm = nn.LayerNorm(channels, bias=False)

        def forward(self, index: Any, positions: Any) -> Any:
            x = self.tokens(index) + self.positions(positions)
            for block in self.blocks:
                x = block(x)
            return functional.linear(self.norm(x), self.tokens.weight)

    return GPT()
