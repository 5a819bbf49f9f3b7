"""A scalar that differentiates itself: :class:`Value`, to see how autograd works with nothing in the way.

In the manner of Andrej Karpathy's micrograd (2020): one Python float, what it was computed from, and
``backward()``. A Value is a node of the graph, so the walk back is the one that tensors use
(``gpugrad/autograd/engine.py``), and chains of any length work. For anything larger use tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad.autograd.engine import walk
from gpugrad.autograd.graph import Node
from gpugrad.autograd.modes import mode

_NUMBERS = (int, float, np.number, np.bool_)


class Value(Node):
    """A number with its gradient: ``Value(2.0)``, ``Value(2.0, label="a")``.

    ``data`` and ``grad`` are Python floats and can be assigned (``p.data -= 0.1 * p.grad``,
    ``p.grad = 0``). Arithmetic with Values and numbers on either side makes new Values, which remember
    their operands unless made under ``no_grad()``. Every Value that ``backward()`` passes has its
    ``grad`` added to, not leaves alone. Division by zero, overflow and logarithms of numbers below zero give
    infinity or NaN as they do for tensors. Raises TypeError for what is no number."""

    __slots__ = ("_data", "_grad", "_local", "_op", "label")

    def __init__(self, data: Any, *, label: str = "") -> None:
        Node.__init__(self, ())
        self._data = _number("data", data)
        self._grad = 0.0
        self._local: tuple[float, ...] = ()  # the derivative with respect to each operand
        self._op = ""
        self.label = label

    @property
    def data(self) -> float:
        """The number."""
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        self._data = _number("data", value)

    @property
    def grad(self) -> float:
        """The derivative of what ``backward()`` was called on with respect to this number, summed over all calls."""
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        self._grad = _number("grad", value)

    @property
    def title(self) -> str:  # type: ignore[override]
        return self._op or "value"

    @property
    def _prev(self) -> set[Any]:
        """The Values it was computed from."""
        return set(self.edges)

    def item(self) -> float:
        """The number, as of a tensor of one element."""
        return self._data

    # -- differentiation -------------------------------------------------------
    def backward(self) -> None:
        """Add to ``grad`` of this and of every Value it was computed from."""
        walk([(self, 1.0)], retain_graph=True, create_graph=False)

    def apply(self, gradient: Any, create_graph: bool) -> tuple[Any, ...]:
        self._grad += gradient
        return tuple([gradient * local for local in self._local])

    def zero_grad(self) -> None:
        """Set ``grad`` to 0."""
        self._grad = 0.0

    # -- arithmetic --------------------------------------------------------------
    def __add__(self, other: Any) -> Value:
        return _binary(self, other, "+", lambda a, b: (a + b, (1.0, 1.0)))

    def __radd__(self, other: Any) -> Value:
        return _binary(other, self, "+", lambda a, b: (a + b, (1.0, 1.0)))

    def __sub__(self, other: Any) -> Value:
        return _binary(self, other, "-", lambda a, b: (a - b, (1.0, -1.0)))

    def __rsub__(self, other: Any) -> Value:
        return _binary(other, self, "-", lambda a, b: (a - b, (1.0, -1.0)))

    def __mul__(self, other: Any) -> Value:
        return _binary(self, other, "*", lambda a, b: (a * b, (b, a)))

    def __rmul__(self, other: Any) -> Value:
        return _binary(other, self, "*", lambda a, b: (a * b, (b, a)))

    def __truediv__(self, other: Any) -> Value:
        return _binary(self, other, "/", _divided)

    def __rtruediv__(self, other: Any) -> Value:
        return _binary(other, self, "/", _divided)

    def __pow__(self, other: Any) -> Value:
        if isinstance(other, _NUMBERS):  # a constant: no node of its own, no logarithm of the base
            exponent = float(other)
            value, slope = _power(self._data, exponent), _power_slope(self._data, exponent)
            return _made(value, (self,), (slope,), f"**{other}")
        return _binary(self, other, "**", _raised)

    def __rpow__(self, other: Any) -> Value:
        return _binary(other, self, "**", _raised)

    def __neg__(self) -> Value:
        return _made(-self._data, (self,), (-1.0,), "neg")

    def __pos__(self) -> Value:
        return self

    def __abs__(self) -> Value:
        return self._unary("abs", abs, lambda x, y: float((x > 0) - (x < 0)))

    # -- functions ---------------------------------------------------------------
    def _unary(self, op: str, function: Callable[[float], float], slope: Callable[[float, float], float]) -> Value:
        x = self._data
        y = function(x)
        return _made(y, (self,), (slope(x, y),), op)

    def relu(self) -> Value:
        """The number, or 0 if it is negative."""
        return self._unary("ReLU", lambda x: 0.0 if x <= 0 else x, lambda x, y: 1.0 if x > 0 else 0.0)

    def tanh(self) -> Value:
        """Hyperbolic tangent."""
        return self._unary("tanh", math.tanh, lambda x, y: 1.0 - y * y)

    def sigmoid(self) -> Value:
        """1 / (1 + exp(-x))."""
        return self._unary("sigmoid", _sigmoid, lambda x, y: y * (1.0 - y))

    def exp(self) -> Value:
        """e to the power of the number."""
        return self._unary("exp", _exp, lambda x, y: y)

    def log(self) -> Value:
        """Natural logarithm."""
        return self._unary("log", _log, lambda x, y: _quotient(1.0, x))

    def sqrt(self) -> Value:
        """Square root."""
        return self._unary("sqrt", lambda x: math.nan if x < 0 else math.sqrt(x), lambda x, y: _quotient(0.5, y))

    def sin(self) -> Value:
        """Sine, of radians."""
        return self._unary("sin", lambda x: _trigonometric(math.sin, x), lambda x, y: _trigonometric(math.cos, x))

    def cos(self) -> Value:
        """Cosine, of radians."""
        return self._unary("cos", lambda x: _trigonometric(math.cos, x), lambda x, y: -_trigonometric(math.sin, x))

    # -- as a number ---------------------------------------------------------------
    def __lt__(self, other: Any) -> Any:
        return _compared(other, lambda b: self._data < b)

    def __le__(self, other: Any) -> Any:
        return _compared(other, lambda b: self._data <= b)

    def __gt__(self, other: Any) -> Any:
        return _compared(other, lambda b: self._data > b)

    def __ge__(self, other: Any) -> Any:
        return _compared(other, lambda b: self._data >= b)

    def __eq__(self, other: Any) -> Any:
        return _compared(other, lambda b: self._data == b)

    __hash__ = object.__hash__  # as a tensor: a key stands for itself, whatever number it holds

    def __bool__(self) -> bool:
        return self._data != 0

    def __float__(self) -> float:
        return self._data

    def __int__(self) -> int:
        return int(self._data)

    def __format__(self, spec: str) -> str:
        return format(self._data, spec) if spec else repr(self)

    def __repr__(self) -> str:
        return f"Value(data={self._data}, grad={self._grad})"

    def __reduce__(self) -> Any:
        if self.edges:
            raise RuntimeError(
                f"this Value was computed ({self._op}) and cannot be copied or pickled with its graph; copy what it "
                "was computed from, or Value(v.data)"
            )
        return _restored, (self._data, self._grad, self.label)


def _made(data: float, edges: tuple[Value, ...], local: tuple[float, ...], op: str) -> Value:
    """A result. Not by way of ``Value(data)``: this is what networks of Values spend their time on."""
    result = object.__new__(Value)
    recording = mode.enabled
    Node.__init__(result, edges if recording else ())
    result._data = data
    result._grad = 0.0
    result._local = local if recording else ()
    result._op = op if recording else ""
    result.label = ""
    return result


def _restored(data: float, grad: float, label: str) -> Value:
    result = Value(data, label=label)
    result._grad = grad
    return result


def _binary(a: Any, b: Any, op: str, compute: Callable[[float, float], tuple[float, tuple[float, float]]]) -> Any:
    """The Value of ``compute``, which returns the result and its two derivatives."""
    if not isinstance(a, Value):
        if not isinstance(a, _NUMBERS):
            return NotImplemented
        a = Value(a)
    elif not isinstance(b, Value):
        if not isinstance(b, _NUMBERS):
            return NotImplemented
        b = Value(b)
    data, local = compute(a._data, b._data)
    return _made(data, (a, b), local, op)


def _compared(other: Any, compare: Callable[[float], bool]) -> Any:
    if isinstance(other, Value):
        return compare(other._data)
    return compare(float(other)) if isinstance(other, _NUMBERS) else NotImplemented


def _number(what: str, x: Any) -> float:
    if type(x) is float:
        return x
    if isinstance(x, (str, bytes)) or not hasattr(x, "__float__") and not isinstance(x, _NUMBERS):
        raise TypeError(f"Value: {what} must be a number, not {type(x).__name__}")
    return float(x)


# -- floating-point arithmetic as IEEE 754 has it, where Python's raises -------------


def _quotient(a: float, b: float) -> float:
    try:
        return a / b
    except ZeroDivisionError:
        return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _divided(a: float, b: float) -> tuple[float, tuple[float, float]]:
    y = _quotient(a, b)
    return y, (_quotient(1.0, b), -_quotient(y, b))


def _power(a: float, b: float) -> float:
    odd = b % 2 == 1 if math.isfinite(b) else False
    try:
        return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and odd else math.inf
    except ValueError:  # a root of a negative number, or zero to a negative power
        return math.nan if a else math.copysign(math.inf, a) if odd else math.inf


def _power_slope(a: float, b: float) -> float:
    """By the base."""
    return b * _power(a, b - 1.0) if b else 0.0


def _raised(a: float, b: float) -> tuple[float, tuple[float, float]]:
    y = _power(a, b)
    by_exponent = 0.0 if a == 0 and b >= 0 else y * _log(a)
    return y, (_power_slope(a, b), by_exponent)


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def _sigmoid(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)  # no overflow on this side
    return e / (1.0 + e)


def _trigonometric(function: Callable[[float], float], x: float) -> float:
    return math.nan if math.isinf(x) else function(x)
