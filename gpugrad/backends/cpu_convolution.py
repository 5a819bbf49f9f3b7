"""Convolution on the CPU: matrix products over columns that are gathered a few images at a time.

Where nothing is strided, a *run* stands for all windows of an image at one place of the kernel: the flattened image
from that place on, as far as the last window. It is one contiguous piece, so gathering copies long pieces instead of
rows, at the price of a few columns too many where one row of windows ends and the next begins (26 for 24 in a 3x3
convolution of 26x26). Forward they are left out when the result is taken; backward the gradient is zero there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpugrad import layout

#: bytes of columns at a time
COLUMNS = 1 << 21
#: multiply-adds below which a batch is one block: handing work to threads costs more than it saves
SMALL = 1 << 21

#: ``share(function, count)``: calls ``function(i)`` for each i below ``count``, on all threads
Share = Callable[[Callable[[int], None], int], None]
#: ``multiply(a, b, out)``: the product of matrices, in ``out`` unless that is left out
Multiply = Callable[..., np.ndarray]


def _at(place: Sequence[Any]) -> Any:
    """An index behind the first dimension."""
    return (slice(None), *place)


class Geometry:
    """Where the windows of ``[n, channels, *size]`` lie: ``out`` windows per dimension of ``kernel`` elements."""

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
    ) -> None:
        self.channels = channels
        self.size = tuple(size)
        self.kernel = tuple(kernel)
        self.stride = tuple(stride)
        self.dilation = tuple(dilation)
        self.out = layout.window_counts(size, kernel, stride, dilation)
        self.depth = channels * prod(kernel)
        self.steps = [prod(self.size[i + 1 :]) for i in range(len(self.size))]  # elements from one row to the next
        self.length = sum((n - 1) * s for n, s in zip(self.out, self.steps, strict=True)) + 1
        self.windows = prod(self.out)
        self.runs = all(s == 1 for s in stride) and self.windows * 4 >= self.length * 3
        if not self.runs:
            self.length = self.windows
        self.pointwise = self.runs and self.depth == channels

    def blocks(self, n: int, itemsize: int, flops_per_image: int) -> list[slice]:
        """Slices of the batch: by shapes alone, so that sums do not depend on the number of threads."""
        step = max(1, COLUMNS // max(self.depth * self.length * itemsize, 1))
        if n * flops_per_image <= SMALL:
            step = n
        return [slice(i, min(i + step, n)) for i in range(0, n, step)]

    def gathered(self, x: np.ndarray) -> np.ndarray:
        """View of ``x`` ``[b, channels, *size]``, C-contiguous: ``[channels, *kernel, b, *positions]``."""
        item = x.itemsize
        plane = x.strides[1]
        inner = [d * s * item for d, s in zip(self.dilation, self.steps, strict=True)]
        shape: tuple[int, ...] = (self.length,)
        strides: tuple[int, ...] = (item,)
        if not self.runs:
            shape = self.out
            strides = tuple(t * s * item for t, s in zip(self.stride, self.steps, strict=True))
        return as_strided(x, (self.channels, *self.kernel, len(x), *shape), (plane, *inner, x.strides[0], *strides))

    def columns(self, x: np.ndarray) -> np.ndarray:
        """``[depth, b * length]``: the elements of the windows, a column each."""
        if self.pointwise and len(x) == 1:
            return x.reshape(self.channels, -1)
        view = self.gathered(x)
        columns = np.empty(view.shape, x.dtype)
        np.copyto(columns, view)
        return columns.reshape(self.depth, len(x) * self.length)

    def taken(self, y: np.ndarray, images: int) -> np.ndarray:
        """View of a product ``[o, b * length]``: ``[b, o, *out]``."""
        o, item = y.shape[0], y.itemsize
        inner = self.steps if self.runs else [prod(self.out[i + 1 :]) for i in range(len(self.out))]
        strides = (self.length * item, images * self.length * item, *(s * item for s in inner))
        return as_strided(y, (images, o, *self.out), strides)

    def spread(self, gradient: np.ndarray) -> np.ndarray:
        """``[b, o, *out]`` as ``[o, b * length]``, zero where a run has no window."""
        b, o = gradient.shape[:2]
        if b == 1 and self.length == self.windows and gradient.flags.c_contiguous:
            return gradient.reshape(o, self.length)
        make = np.empty if self.length == self.windows else np.zeros
        full = make((o, b * self.length), gradient.dtype)
        np.copyto(self.taken(full, b), gradient)
        return full

    def fold(self, columns: np.ndarray, out: np.ndarray) -> None:
        """Add ``[depth, b * length]`` into ``out`` ``[b, channels, *size]``, C-contiguous and zero."""
        cube = columns.reshape(self.channels, -1, len(out) * self.length)
        for k, place in enumerate(self.places()):
            self.add_at(place, cube[:, k], out)

    def places(self) -> Iterable[tuple[int, ...]]:
        """The elements of the kernel."""
        return product(*(range(n) for n in self.kernel))

    def add_at(self, place: tuple[int, ...], values: np.ndarray, out: np.ndarray) -> None:
        """Add ``values`` ``[channels, b * length]`` to what the windows have at ``place``."""
        images = len(out)
        part = values.reshape(self.channels, images, self.length).transpose(1, 0, 2)
        if self.runs:
            first = sum(i * d * s for i, d, s in zip(place, self.dilation, self.steps, strict=True))
            out.reshape(images, self.channels, -1)[:, :, first : first + self.length] += part
        else:
            cut = tuple(
                slice(i * d, i * d + (n - 1) * t + 1, t)
                for i, d, n, t in zip(place, self.dilation, self.out, self.stride, strict=True)
            )
            out[_at((slice(None), *cut))] += part.reshape(images, self.channels, *self.out)


def forward(x: np.ndarray, weight: np.ndarray, g: Geometry, out: np.ndarray, multiply: Multiply) -> None:
    """``out[n, o, *out]`` = ``x`` correlated with ``weight`` ``[o, channels, *kernel]``."""
    flat = weight.reshape(weight.shape[0], g.depth)

    for part in g.blocks(len(x), x.itemsize, flat.size * g.windows):
        images = part.stop - part.start
        columns = g.columns(x[part])
        if images == 1 and g.length == g.windows:
            multiply(flat, columns, out[part.start].reshape(len(flat), g.length))
        else:
            np.copyto(out[part], g.taken(multiply(flat, columns), images))


def input_grad(gradient: np.ndarray, weight: np.ndarray, g: Geometry, out: np.ndarray, multiply: Multiply) -> None:
    """``out[n, channels, *size]``: the adjoint of :func:`forward` in ``x``."""
    flat = weight.reshape(weight.shape[0], g.depth)
    turned = np.ascontiguousarray(flat.T)

    for part in g.blocks(len(out), out.itemsize, flat.size * g.windows):
        spread = g.spread(gradient[part])
        if g.pointwise and part.stop - part.start == 1:
            multiply(turned, spread, out[part.start].reshape(g.channels, g.length))
        else:
            out[part] = 0
            g.fold(multiply(turned, spread), out[part])


def weight_grad(gradient: np.ndarray, x: np.ndarray, g: Geometry, multiply: Multiply) -> np.ndarray:
    """``[o, depth]``: the adjoint of :func:`forward` in ``weight``."""
    total: Any = 0
    for part in g.blocks(len(x), x.itemsize, gradient.shape[1] * g.depth * g.windows):
        total += multiply(g.spread(gradient[part]), g.columns(x[part]).T)
    return total


# -- one input channel for each output channel -----------------------------------------------------------


def depthwise(x: np.ndarray, weight: np.ndarray, g: Geometry, out: np.ndarray, share: Share) -> None:
    """``out[n, c, *out]``, each channel correlated with its own ``weight[c, *kernel]``, by shifted products."""
    places = list(g.places())
    parts = _parts(g, len(x), x.itemsize)

    def block(i: int) -> None:
        part = parts[i]
        images = part.stop - part.start
        view = g.gathered(x[part])  # [c, *kernel, b, ...]
        total = scratch = None
        for place in places:
            factor = weight[_at(place)].reshape((-1,) + (1,) * (view.ndim - len(g.kernel) - 1))
            shifted = view[_at(place)]
            if total is None:
                total = shifted * factor
                scratch = np.empty_like(total)
            else:
                np.multiply(shifted, factor, out=scratch)
                total += scratch
        assert total is not None
        np.copyto(out[part], g.taken(total.reshape(g.channels, -1), images))

    share(block, len(parts))


def depthwise_input_grad(gradient: np.ndarray, weight: np.ndarray, g: Geometry, out: np.ndarray, share: Share) -> None:
    """``out[n, c, *size]``: the adjoint of :func:`depthwise` in ``x``."""
    factors = weight.reshape(g.channels, -1)
    parts = _parts(g, len(out), out.itemsize)

    def block(i: int) -> None:
        part = parts[i]
        spread = g.spread(gradient[part])
        out[part] = 0
        scratch = np.empty_like(spread)
        for k, place in enumerate(g.places()):
            np.multiply(spread, factors[:, k, None], out=scratch)
            g.add_at(place, scratch, out[part])

    share(block, len(parts))


def depthwise_weight_grad(gradient: np.ndarray, x: np.ndarray, g: Geometry, share: Share) -> np.ndarray:
    """``[c, prod(kernel)]``: the adjoint of :func:`depthwise` in ``weight``."""
    places = list(g.places())
    parts = _parts(g, len(x), x.itemsize)
    totals = np.empty((len(parts), g.channels, len(places)), x.dtype)

    def block(i: int) -> None:
        part = parts[i]
        images = part.stop - part.start
        spread = g.spread(gradient[part]).reshape(g.channels, images * g.length)
        view = g.gathered(x[part])
        shifted = np.empty((g.channels, images * g.length), x.dtype)
        for k, place in enumerate(places):
            np.copyto(shifted.reshape(view.shape[:1] + view.shape[1 + len(g.kernel) :]), view[_at(place)])
            np.multiply(shifted, spread, out=shifted)
            np.add.reduce(shifted, axis=1, out=totals[i, :, k])

    share(block, len(parts))
    return totals.sum(axis=0)  # in the order of the batch, whichever thread was first


def _parts(g: Geometry, n: int, itemsize: int) -> list[slice]:
    """Slices of the batch that stay in a core's cache."""
    step = max(1, (COLUMNS >> 2) // max(g.channels * g.length * itemsize, 1))
    if n * g.depth * g.windows <= SMALL:
        step = n
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]
