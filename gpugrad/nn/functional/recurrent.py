"""Recurrent networks as functions: one step (cells), and whole layers over padded or packed sequences.

A layer multiplies the inputs of all time steps by its input weights at once; each step then costs one
product, with the hidden state, and the gates. The functions here have the names and arguments of
PyTorch's ``torch.lstm``, ``torch.lstm_cell`` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gpugrad.nn.functional.dropout import dropout as _dropout
from gpugrad.ops import elementwise as e
from gpugrad.ops.autocast import listed
from gpugrad.ops.joining import cat
from gpugrad.ops.linear import linear, matmul
from gpugrad.ops.movement import narrow
from gpugrad.tensor import Tensor

State = tuple[Tensor, ...]  # (h,) or (h, c)
Step = Callable[[Tensor, State], State]


class Weights(NamedTuple):
    """Of one layer in one direction: ``w_ih`` ``[gates * hidden, in]``, ``w_hh`` ``[gates * hidden, h]``, biases
    ``[gates * hidden]``, and of an LSTM with projections ``w_hr`` ``[h, hidden]``."""

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None = None
    b_hh: Tensor | None = None
    w_hr: Tensor | None = None


# -- gates ----------------------------------------------------------------------


def _lstm_gates(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The next (h, c) (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000)."""
    i, f, g, o = gates.split(c.shape[-1], -1)
    c = e.add(e.mul(e.sigmoid(f), c), e.mul(e.sigmoid(i), e.tanh(g)))
    return e.mul(e.sigmoid(o), e.tanh(c)), c


def _gru_gates(x: Tensor, h_part: Tensor, h: Tensor) -> Tensor:
    """The next h (Cho et al. 2014, with the reset gate after the product, as cuDNN has it)."""
    width = h.shape[-1]
    x_rz, x_n = x.split([2 * width, width], -1)
    h_rz, h_n = h_part.split([2 * width, width], -1)
    r, z = e.sigmoid(e.add(x_rz, h_rz)).split(width, -1)
    n = e.tanh(e.add(x_n, e.mul(r, h_n)))
    return e.add(n, e.mul(z, e.sub(h, n)))


def _input_part(kind: str, x: Tensor, w: Weights) -> Tensor:
    """What the inputs of all steps contribute to the gates, both biases included where they only add."""
    bias = w.b_ih
    if kind != "gru" and bias is not None and w.b_hh is not None:
        bias = e.add(bias, w.b_hh)
    return linear(x, w.w_ih, bias)


def _step(kind: str, w: Weights) -> Step:
    """One time step: (input part, state) to the next state."""
    turned = w.w_hh.t()
    if kind == "lstm":
        shrink = None if w.w_hr is None else w.w_hr.t()

        def lstm_step(x: Tensor, state: State) -> State:
            h, c = _lstm_gates(e.add(x, matmul(state[0], turned)), state[1])
            return (h if shrink is None else matmul(h, shrink)), c

        return lstm_step
    if kind == "gru":

        def gru_step(x: Tensor, state: State) -> State:
            part = matmul(state[0], turned)
            return (_gru_gates(x, part if w.b_hh is None else e.add(part, w.b_hh), state[0]),)

        return gru_step
    activation = e.tanh if kind == "rnn_tanh" else e.relu

    def plain_step(x: Tensor, state: State) -> State:
        return (activation(e.add(x, matmul(state[0], turned))),)

    return plain_step


# -- sequences ---------------------------------------------------------------------


def _joined(pieces: list[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else cat(pieces)


def _forwards(parts: Sequence[Tensor], sizes: Sequence[int], state: State, step: Step) -> tuple[list[Tensor], State]:
    """Outputs of all steps in order, and the last state of every sequence. Sequences end where sizes fall."""
    outputs, ended = [], []
    held = state[0].shape[0]
    for part, n in zip(parts, sizes, strict=True):
        if n < held:
            ended.append(tuple(narrow(s, 0, n, held - n) for s in state))
            state = tuple(narrow(s, 0, 0, n) for s in state)
            held = n
        state = step(part, state)
        outputs.append(state[0])
    ended.append(state)
    return outputs, tuple(_joined(list(pieces)) for pieces in zip(*ended[::-1], strict=True))


def _backwards(parts: Sequence[Tensor], sizes: Sequence[int], state: State, step: Step) -> tuple[list[Tensor], State]:
    """:func:`_forwards` from the last step to the first: sequences join where sizes grow."""
    outputs = []
    whole, held = state, sizes[-1]
    state = tuple(narrow(s, 0, 0, held) for s in whole)
    for part, n in zip(parts[::-1], sizes[::-1], strict=True):
        if n > held:
            state = tuple(cat([s, narrow(w, 0, held, n - held)]) for s, w in zip(state, whole, strict=True))
            held = n
        state = step(part, state)
        outputs.append(state[0])
    return outputs[::-1], state


def _layers(
    kind: str,
    x: Tensor,
    sizes: Sequence[int],
    hx: State,
    params: Sequence[Weights],
    num_layers: int,
    dropout: float,
    train: bool,
    directions: int,
) -> tuple[Tensor, State]:
    """All layers over rows ``x`` ``[sum(sizes), in]``, ``sizes[t]`` of them for step t. ``hx``: states
    ``[layers * directions, batch, *]``. Gives rows and the last states."""
    states = [s.unbind(0) for s in hx]
    last: list[State] = []
    for layer in range(num_layers):
        if layer and dropout > 0:
            x = _dropout(x, dropout, train)
        results = []
        for run in (_forwards, _backwards)[:directions]:
            k = len(last)
            w = params[k]
            parts = _input_part(kind, x, w).split(list(sizes), 0)
            outputs, final = run(parts, sizes, tuple(s[k] for s in states), _step(kind, w))
            results.append(_joined(outputs))
            last.append(final)
        x = results[0] if directions == 1 else cat(results, 1)
    return x, tuple(cat([s.unsqueeze(0) for s in of]) for of in zip(*last, strict=True))


def _weights(kind: str, params: Sequence[Tensor], biases: bool, projected: bool) -> list[Weights]:
    """The flat list of tensors, as modules hold it, by layer and direction."""
    per = (4 if biases else 2) + projected
    if len(params) % per:
        raise RuntimeError(f"{kind}: {len(params)} weights cannot be shared out in groups of {per}")
    result = []
    for i in range(0, len(params), per):
        group = list(params[i : i + per])
        w_hr = group.pop() if projected else None
        b_ih, b_hh = group[2:] if biases else (None, None)
        result.append(Weights(group[0], group[1], b_ih, b_hh, w_hr))
    return result


_COMMON = ("hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional")
_PADDED = ("input", *_COMMON, "batch_first")
_PACKED = ("data", "batch_sizes", *_COMMON)


def _arguments(op: str, packed: bool, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    names = _PACKED if packed else _PADDED
    given = dict(zip(names, args, strict=False))
    if len(args) > len(names) or set(given) & set(named) or {*given, *named} != set(names):
        raise TypeError(f"{op}: expected the arguments ({', '.join(_PADDED)}) or ({', '.join(_PACKED)})")
    return given | named


def _run(kind: str, packed: bool, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Tensor, ...]:
    a = _arguments(kind, packed, args, named)
    hx = tuple(a["hx"]) if kind == "lstm" else (a["hx"],)
    projected = kind == "lstm" and hx[0].shape[2] != hx[1].shape[2]
    params = _weights(kind, a["params"], a["has_biases"], projected)
    directions = 2 if a["bidirectional"] else 1
    if len(params) != a["num_layers"] * directions:
        raise RuntimeError(
            f"{kind}: {len(params)} groups of weights for {a['num_layers']} layers in {directions} directions"
        )
    options = (hx, params, a["num_layers"], a["dropout"], a["train"], directions)
    if packed:
        out, last = _layers(kind, a["data"], a["batch_sizes"].tolist(), *options)
        return out, *last
    x = a["input"].transpose(0, 1) if a["batch_first"] else a["input"]
    steps, batch, width = x.shape
    if not steps:
        raise RuntimeError(f"{kind}: the sequence of shape {tuple(a['input'].shape)} has no time step; it needs 1")
    rows, last = _layers(kind, x.reshape(steps * batch, width), [batch] * steps, *options)
    out = rows.reshape(steps, batch, rows.shape[1])
    return out.transpose(0, 1) if a["batch_first"] else out, *last


def _is_packed(args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether ``hx``, a tensor, comes third: the form for packed sequences."""
    return "batch_sizes" in named or len(args) > 2 and isinstance(args[2], Tensor)


@listed("lstm")
def lstm(*args: Any, **named: Any) -> tuple[Tensor, Tensor, Tensor]:
    """All layers of a long short-term memory (Hochreiter and Schmidhuber 1997): output, last h, last c.

    ``lstm(input, (h, c), params, has_biases, num_layers, dropout, train, bidirectional, batch_first)`` with
    ``input`` ``[steps, batch, in]``, or ``lstm(data, batch_sizes, (h, c), params, ...)`` for the parts of a
    packed sequence. :class:`gpugrad.nn.LSTM` holds the parameters. Raises TypeError, RuntimeError."""
    packed = "batch_sizes" in named or len(args) > 1 and isinstance(args[1], Tensor)
    return _run("lstm", packed, args, named)  # type: ignore[return-value]


@listed("gru")
def gru(*args: Any, **named: Any) -> tuple[Tensor, Tensor]:
    """All layers of gated recurrent units (Cho et al. 2014): output, last h. Arguments as of :func:`lstm`, with
    a tensor ``hx``."""
    return _run("gru", _is_packed(args, named), args, named)  # type: ignore[return-value]


@listed("rnn_tanh")
def rnn_tanh(*args: Any, **named: Any) -> tuple[Tensor, Tensor]:
    """All layers of a recurrent network ``h' = tanh(w_ih x + b_ih + w_hh h + b_hh)`` (Elman 1990): output, last
    h. Arguments as of :func:`lstm`, with a tensor ``hx``."""
    return _run("rnn_tanh", _is_packed(args, named), args, named)  # type: ignore[return-value]


@listed("rnn_relu")
def rnn_relu(*args: Any, **named: Any) -> tuple[Tensor, Tensor]:
    """:func:`rnn_tanh` with ReLU."""
    return _run("rnn_relu", _is_packed(args, named), args, named)  # type: ignore[return-value]


# -- cells ----------------------------------------------------------------------------


def _check_cell(op: str, input: Tensor, states: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor) -> None:
    if input.shape[-1] != w_ih.shape[1]:
        raise RuntimeError(f"{op}: input of shape {tuple(input.shape)} must have a last size of {w_ih.shape[1]}")
    for h in states:
        if h.shape[-1] != w_hh.shape[1]:
            raise RuntimeError(f"{op}: a state of shape {tuple(h.shape)} must have a last size of {w_hh.shape[1]}")
        if h.shape[:-1] != input.shape[:-1]:
            raise RuntimeError(
                f"{op}: input of shape {tuple(input.shape)} and a state of shape {tuple(h.shape)} differ in batch size"
            )


@listed("lstm_cell")
def lstm_cell(
    input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: ``input`` ``[n, in]``, ``hx`` = (h, c), each ``[n, hidden]``, to the next (h, c).
    Raises RuntimeError where shapes do not fit."""
    h, c = hx
    _check_cell("lstm_cell", input, (h, c), w_ih, w_hh)
    w = Weights(w_ih, w_hh, b_ih, b_hh)
    return _step("lstm", w)(_input_part("lstm", input, w), (h, c))  # type: ignore[return-value]


def _one_state(kind: str, input: Tensor, hx: Tensor, w: Weights) -> Tensor:
    _check_cell(f"{kind}_cell", input, (hx,), w.w_ih, w.w_hh)
    return _step(kind, w)(_input_part(kind, input, w), (hx,))[0]


@listed("gru_cell")
def gru_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """One step of a GRU: ``input`` ``[n, in]``, ``hx`` ``[n, hidden]``, to the next ``hx``."""
    return _one_state("gru", input, hx, Weights(w_ih, w_hh, b_ih, b_hh))


@listed("rnn_tanh_cell")
def rnn_tanh_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """``tanh(w_ih x + b_ih + w_hh h + b_hh)``: ``[n, in]`` and ``[n, hidden]`` to ``[n, hidden]``."""
    return _one_state("rnn_tanh", input, hx, Weights(w_ih, w_hh, b_ih, b_hh))


@listed("rnn_relu_cell")
def rnn_relu_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """:func:`rnn_tanh_cell` with ReLU."""
    return _one_state("rnn_relu", input, hx, Weights(w_ih, w_hh, b_ih, b_hh))
