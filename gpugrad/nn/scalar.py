"""Networks of single numbers: Neuron, Layer and MLP over :class:`gpugrad.Value`, in the manner of micrograd.

To look at, not to be fast: every weight is a Value, every multiplication a node of the graph. The same
network of tensors is ``Sequential(Linear(...), ReLU(), ...)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpugrad.devices import Device
from gpugrad.dtypes import float64
from gpugrad.ops import creation
from gpugrad.tensor import Tensor
from gpugrad.value import Value


class _Scalars:
    """What the three share."""

    def parameters(self) -> list[Value]:
        """All weights and biases."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to 0."""
        for p in self.parameters():
            p.grad = 0.0


class Neuron(_Scalars):
    """``relu(w . x + b)``, or without the ReLU where ``nonlin`` is False.

    Called with ``nin`` numbers or Values (a list, an array, a 1-d tensor) it returns a Value. The weights ``w``
    are drawn uniformly from [-1, 1) by the generator that ``gpugrad.manual_seed`` seeds; the bias ``b`` is 0.
    Raises ValueError for another count of inputs."""

    def __init__(self, nin: int, nonlin: bool = True) -> None:
        drawn = creation.empty(nin, dtype=float64, device=Device("cpu")).uniform_(-1, 1)
        self.w = [Value(x) for x in drawn.tolist()]
        self.b = Value(0.0)
        self.nonlin = nonlin

    def __call__(self, x: Iterable[Any]) -> Value:
        inputs = _scalars(x)
        if len(inputs) != len(self.w):
            raise ValueError(f"{self!r} takes {len(self.w)} inputs, got {len(inputs)}")
        total = self.b
        for w, xi in zip(self.w, inputs, strict=True):
            total = total + w * xi
        return total.relu() if self.nonlin else total

    def parameters(self) -> list[Value]:
        """The weights, then the bias."""
        return [*self.w, self.b]

    def __repr__(self) -> str:
        return f"{'ReLU' if self.nonlin else 'Linear'}Neuron({len(self.w)})"


class Layer(_Scalars):
    """``nout`` neurons over the same ``nin`` inputs; options go to :class:`Neuron`.

    Returns the list of their Values, a single Value if ``nout`` is 1."""

    def __init__(self, nin: int, nout: int, **kwargs: Any) -> None:
        self.neurons = [Neuron(nin, **kwargs) for _ in range(nout)]

    def __call__(self, x: Iterable[Any]) -> Value | list[Value]:
        inputs = _scalars(x)
        outputs = [neuron(inputs) for neuron in self.neurons]
        return outputs[0] if len(outputs) == 1 else outputs

    def parameters(self) -> list[Value]:
        """Those of all neurons, in order."""
        return [p for neuron in self.neurons for p in neuron.parameters()]

    def __repr__(self) -> str:
        return f"Layer of [{', '.join(map(repr, self.neurons))}]"


class MLP(_Scalars):
    """Layers of the sizes ``nouts`` over ``nin`` inputs: ``MLP(2, [16, 16, 1])``. All are ReLU but the last.

    Returns the last layer's list of Values, a single Value if that has one neuron."""

    def __init__(self, nin: int, nouts: Iterable[int]) -> None:
        sizes = [nin, *nouts]
        last = len(sizes) - 2
        self.layers = [Layer(sizes[i], sizes[i + 1], nonlin=i != last) for i in range(last + 1)]

    def __call__(self, x: Iterable[Any]) -> Value | list[Value]:
        result: Any = x
        for layer in self.layers:
            result = layer([result] if isinstance(result, Value) else result)
        return result

    def parameters(self) -> list[Value]:
        """Those of all layers, in order."""
        return [p for layer in self.layers for p in layer.parameters()]

    def __repr__(self) -> str:
        return f"MLP of [{', '.join(map(repr, self.layers))}]"


def _scalars(x: Iterable[Any]) -> list[Any]:
    """The inputs as numbers and Values."""
    if not isinstance(x, Tensor):
        return list(x)
    if x.requires_grad:
        raise RuntimeError(
            f"a network of Values passes no gradient on to a tensor (shape {tuple(x.shape)}); call .detach(), or build "
            "the network of nn.Linear"
        )
    return x.tolist()
