"""Recurrent layers: RNN, LSTM and GRU over sequences, and their cells for single steps."""

from __future__ import annotations

import math
import warnings
from typing import Any, overload

from gpugrad.nn import init
from gpugrad.nn.functional import recurrent as R
from gpugrad.nn.module import Module
from gpugrad.nn.parameter import Parameter
from gpugrad.nn.utils.rnn import PackedSequence
from gpugrad.ops import creation
from gpugrad.tensor import Tensor

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


class RNNBase(Module):
    """What RNN, LSTM and GRU share: parameters, options, checks.

    Of layer k in a direction (suffix ``_reverse`` for the second): ``weight_ih_lk`` ``[gates * hidden, in]``,
    ``weight_hh_lk`` ``[gates * hidden, hidden or proj]``, ``bias_ih_lk``, ``bias_hh_lk`` ``[gates * hidden]``,
    ``weight_hr_lk`` ``[proj, hidden]``; all start uniform within 1/sqrt(hidden).

    Raises ValueError or TypeError for sizes and options that make no sense."""

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._check_options()
        self.dropout = float(dropout)
        directions = 2 if bidirectional else 1
        rows = _GATES[mode] * hidden_size
        state = proj_size or hidden_size
        self._all_weights: list[list[str]] = []
        for layer in range(num_layers):
            width = input_size if layer == 0 else state * directions
            for suffix in ("", "_reverse")[:directions]:
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, width), "weight_hh": (rows, state)}
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                names = []
                for name, shape in shapes.items():
                    names.append(f"{name}_l{layer}{suffix}")
                    setattr(self, names[-1], Parameter(creation.empty(shape, device=device, dtype=dtype)))
                self._all_weights.append(names)
        self.reset_parameters()

    def _check_options(self) -> None:
        name = type(self).__name__
        dropout: Any = self.dropout
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout={dropout!r} is not a probability; it is a number in [0, 1]")
        if dropout > 0 and self.num_layers == 1:
            warnings.warn(
                f"{name}: dropout={dropout} acts between layers, and num_layers=1 has no such place", stacklevel=4
            )
        for option in ("bias", "batch_first"):
            if not isinstance(getattr(self, option), bool):
                raise TypeError(f"{name}: {option} must be a bool, not {type(getattr(self, option)).__name__}")
        if not isinstance(self.hidden_size, int):
            raise TypeError(f"{name}: hidden_size must be an int, not {type(self.hidden_size).__name__}")
        for option in ("hidden_size", "input_size", "num_layers"):
            if getattr(self, option) <= 0:
                raise ValueError(f"{name}: {option}={getattr(self, option)} must be greater than 0")
        if not 0 <= self.proj_size < self.hidden_size:
            raise ValueError(
                f"{name}: proj_size={self.proj_size} must be smaller than hidden_size={self.hidden_size}, or 0 for no "
                "projection"
            )
        if self.mode not in _GATES:
            raise ValueError(f"{name}: mode {self.mode!r} is unknown; there are {', '.join(_GATES)}")

    def reset_parameters(self) -> None:
        """Draw initial values anew."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Does nothing: no layout of the weights is better than another here."""

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Tensor]:
        return [getattr(self, name) for name in self._flat_weights_names]

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters, a list for each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    # -- checks -----------------------------------------------------------------
    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """Raise ValueError or RuntimeError unless ``input`` fits the parameters."""
        name = type(self).__name__
        weight = self._flat_weights[0]
        if input.dtype is not weight.dtype:
            raise ValueError(
                f"{name}: the input is {input.dtype.name} and the parameters are {weight.dtype.name}; convert one with "
                ".to(dtype)"
            )
        if input.dim() != (2 if batch_sizes is not None else 3):
            raise RuntimeError(f"{name}: the input has the wrong number of dimensions, its shape {tuple(input.shape)}")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"{name}: the last size of the input of shape {tuple(input.shape)} must be input_size={self.input_size}"
            )

    def get_expected_hidden_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """The shape of the hidden state for ``input``: ``[layers * directions, batch, hidden or proj]``."""
        if batch_sizes is not None:
            batch = int(batch_sizes[0].item())
        else:
            batch = input.shape[0 if self.batch_first else 1]
        return self.num_layers * (2 if self.bidirectional else 1), batch, self.proj_size or self.hidden_size

    def check_hidden_size(self, hx: Tensor, expected_hidden_size: tuple[int, ...], msg: str = "hx") -> None:
        """Raise RuntimeError unless ``hx`` has the expected shape."""
        if tuple(hx.shape) != tuple(expected_hidden_size):
            raise RuntimeError(
                f"{type(self).__name__}: {msg} of shape {tuple(hx.shape)} must have shape {tuple(expected_hidden_size)}"
            )

    def check_forward_args(self, input: Tensor, hidden: Any, batch_sizes: Tensor | None) -> None:
        """Raise ValueError or RuntimeError unless input and hidden state fit."""
        self.check_input(input, batch_sizes)
        self.check_hidden_size(hidden, self.get_expected_hidden_size(input, batch_sizes))

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        """The hidden state with its batch in another order."""
        return hx if permutation is None else hx.index_select(1, permutation)

    # -- forward ----------------------------------------------------------------
    def _forward(self, input: Any, hx: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Output and last states, for states as a tuple (None: zeros)."""
        packed = isinstance(input, PackedSequence)
        data, batch_sizes, order, back = input if packed else (input, None, None, None)
        if not packed and data.dim() not in (2, 3):
            raise ValueError(
                f"{type(self).__name__}: input must be [steps, in], or 3-d with a batch, got shape {tuple(data.shape)}"
            )
        single = not packed and data.dim() == 2
        if hx is not None and not packed and any(h.dim() != data.dim() for h in hx):
            raise RuntimeError(
                f"{type(self).__name__}: for an input of shape {tuple(data.shape)} the initial state must be "
                f"{data.dim()}-d too, got {', '.join(str(tuple(h.shape)) for h in hx)}"
            )
        if single:
            data = data.unsqueeze(0 if self.batch_first else 1)
            hx = None if hx is None else tuple(h.unsqueeze(1) for h in hx)
        if hx is None:
            self.check_input(data, batch_sizes)
            hx = self._zeros(data, batch_sizes)
        elif order is not None:
            hx = tuple(h.index_select(1, order) for h in hx)
        self.check_forward_args(data, hx if len(hx) > 1 else hx[0], batch_sizes)
        run = getattr(R, self.mode.lower())
        lead = (data,) if batch_sizes is None else (data, batch_sizes)
        options = (self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        tail = (self.batch_first,) if batch_sizes is None else ()
        out, *last = run(*lead, hx if len(hx) > 1 else hx[0], self._flat_weights, *options, *tail)
        if back is not None:
            last = [h.index_select(1, back) for h in last]
        if packed:
            return PackedSequence(out, batch_sizes, order, back), tuple(last)
        if single:
            return out.squeeze(0 if self.batch_first else 1), tuple(h.squeeze(1) for h in last)
        return out, tuple(last)

    def _zeros(self, data: Tensor, batch_sizes: Tensor | None) -> tuple[Tensor, ...]:
        return (data.new_zeros(self.get_expected_hidden_size(data, batch_sizes)),)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0,
            "bidirectional": False,
        }
        for name, default in defaults.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text


def _no_projection(name: str, kwargs: dict[str, Any]) -> None:
    if "proj_size" in kwargs:
        raise ValueError(f"{name}: only an LSTM has projections; leave proj_size away")


class RNN(RNNBase):
    """``h' = tanh(w_ih x + b_ih + w_hh h + b_hh)``, or with ReLU (Elman 1990).

    ``RNN(input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True, batch_first=False,
    dropout=0.0, bidirectional=False, device=None, dtype=None)``.

    ``forward(input, hx=None)``: ``input`` ``[steps, batch, in]`` (``batch_first``: ``[batch, steps, in]``),
    ``[steps, in]`` or a packed sequence; ``hx`` ``[layers * directions, batch, hidden]``, without the batch for
    a 2-d input, default 0. Gives the output of the last layer ``[steps, batch, directions * hidden]`` and the
    last ``hx``. Raises ValueError or RuntimeError where they do not fit."""

    @overload
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None: ...

    @overload
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _no_projection("RNN", kwargs)
        if len(args) > 3:
            nonlinearity = args[3]
            args = (*args[:3], *args[4:])
        else:
            nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity {nonlinearity!r} is unknown; use 'tanh' or 'relu'")
        super().__init__(f"RNN_{nonlinearity.upper()}", *args, **kwargs)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        out, (last,) = self._forward(input, None if hx is None else (hx,))
        return out, last


class GRU(RNNBase):
    """Gated recurrent units (Cho et al. 2014): r, z and n are sigmoid, sigmoid and tanh of linear maps of input
    and state, r weighing the state's part in n; ``h' = (1 - z) n + z h``.

    ``GRU(input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
    bidirectional=False, device=None, dtype=None)``. ``forward`` takes and gives what :class:`RNN` does."""

    @overload
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None: ...

    @overload
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _no_projection("GRU", kwargs)
        super().__init__("GRU", *args, **kwargs)

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        out, (last,) = self._forward(input, None if hx is None else (hx,))
        return out, last


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with projections of the hidden state for
    ``proj_size`` > 0 (Sak et al. 2014).

    ``LSTM(input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
    bidirectional=False, proj_size=0, device=None, dtype=None)``.

    ``forward(input, hx=None)``: as :class:`RNN`, with ``hx`` a pair of ``h`` ``[layers * directions, batch,
    proj or hidden]`` and ``c`` ``[layers * directions, batch, hidden]``. Gives the output and the last pair."""

    @overload
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None: ...

    @overload
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def get_expected_cell_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """The shape of the cell state for ``input``: ``[layers * directions, batch, hidden]``."""
        return (*self.get_expected_hidden_size(input, batch_sizes)[:2], self.hidden_size)

    def check_forward_args(self, input: Tensor, hidden: Any, batch_sizes: Tensor | None) -> None:
        self.check_input(input, batch_sizes)
        self.check_hidden_size(hidden[0], self.get_expected_hidden_size(input, batch_sizes), "hx[0]")
        self.check_hidden_size(hidden[1], self.get_expected_cell_size(input, batch_sizes), "hx[1]")

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        return hx if permutation is None else tuple(h.index_select(1, permutation) for h in hx)

    def _zeros(self, data: Tensor, batch_sizes: Tensor | None) -> tuple[Tensor, ...]:
        sizes = self.get_expected_hidden_size(data, batch_sizes), self.get_expected_cell_size(data, batch_sizes)
        return tuple(data.new_zeros(size) for size in sizes)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, tuple[Tensor, Tensor]]:
        if hx is not None:
            h, c = hx
            hx = (h, c)
        out, last = self._forward(input, hx)
        return out, (last[0], last[1])


# -- single steps -------------------------------------------------------------------


class RNNCellBase(Module):
    """What the cells share: ``weight_ih`` ``[gates * hidden, in]``, ``weight_hh`` ``[gates * hidden, hidden]``,
    ``bias_ih``, ``bias_hh`` ``[gates * hidden]``, all uniform within 1/sqrt(hidden) at first."""

    nonlinearity = "tanh"

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        self.weight_ih = Parameter(creation.empty((rows, input_size), device=device, dtype=dtype))
        self.weight_hh = Parameter(creation.empty((rows, hidden_size), device=device, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            value = Parameter(creation.empty((rows,), device=device, dtype=dtype)) if bias else None
            self.register_parameter(name, value)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw initial values anew."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0.0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if not self.bias:
            text += ", bias=False"
        return text if self.nonlinearity == "tanh" else f"{text}, nonlinearity={self.nonlinearity}"

    def _step(self, run: Any, input: Tensor, states: tuple[Tensor, ...] | None, count: int) -> tuple[Tensor, ...]:
        """``run`` on an input ``[n, in]`` or ``[in]`` and ``count`` states, zeros unless given."""
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: input must be [in] or [batch, in], got shape {tuple(input.shape)}")
        for h in states or ():
            if h.dim() not in (1, 2):
                raise ValueError(f"{name}: a state must be [hidden] or [batch, hidden], got shape {tuple(h.shape)}")
        single = input.dim() == 1
        if single:
            input = input.unsqueeze(0)
            states = None if states is None else tuple(h.unsqueeze(0) for h in states)
        if states is None:
            states = (input.new_zeros(input.shape[0], self.hidden_size),) * count
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        result = run(input, states if count > 1 else states[0], *weights)
        result = result if count > 1 else (result,)
        return tuple(h.squeeze(0) for h in result) if single else result


class RNNCell(RNNCellBase):
    """One step of an :class:`RNN`: ``input`` ``[batch, in]`` (or ``[in]``) and ``hx`` ``[batch, hidden]`` to the
    next ``hx``. Raises ValueError or RuntimeError where shapes do not fit."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"RNNCell: nonlinearity {self.nonlinearity!r} is unknown; use 'tanh' or 'relu'")
        run = R.rnn_tanh_cell if self.nonlinearity == "tanh" else R.rnn_relu_cell
        return self._step(run, input, None if hx is None else (hx,), 1)[0]


class LSTMCell(RNNCellBase):
    """One step of an :class:`LSTM`: ``input`` ``[batch, in]`` (or ``[in]``) and ``hx`` = (h, c), each ``[batch,
    hidden]``, to the next (h, c)."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        h, c = self._step(R.lstm_cell, input, None if hx is None else tuple(hx), 2)
        return h, c


class GRUCell(RNNCellBase):
    """One step of a :class:`GRU`: ``input`` ``[batch, in]`` (or ``[in]``) and ``hx`` ``[batch, hidden]`` to the
    next ``hx``."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(R.gru_cell, input, None if hx is None else (hx,), 1)[0]
