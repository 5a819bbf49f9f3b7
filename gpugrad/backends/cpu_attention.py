"""Attention of the CPU backend, tile by tile: the weights ``[l, s]`` of a head are never held as a whole.

What the routines take and return is in ROUTINES of ``gpugrad/ops/fused.py``. The way is that of FlashAttention (Dao et
al., "FlashAttention: fast and memory-efficient exact attention with IO-awareness", 2022; Dao, "FlashAttention-2",
2023): a tile of queries goes over tiles of keys with a running maximum and sum of its rows; the backward pass computes
the weights anew from the logarithm of that sum. Products are BLAS's. Which tiles there are depends on shapes alone.

Where there are few weights in all (KEPT) they are kept for the backward pass instead: that takes a product and an
exponential less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpugrad.backends import philox
from gpugrad.backends.cpu_blocks import row_maxima, row_sums
from gpugrad.backends.cpu_rows import RowOps, work_dtype

#: scores of a tile, of whole heads where these are smaller: see ROW_BLOCK of cpu_rows.py
TILE = 1 << 18
#: the most keys of a tile
KEYS = 512
#: from how many scores on tiles are shared out among threads: 48 heads of 64 by 64, width 32, take 1.2 times as long on
#: two as on one
SHARED = 1 << 19
#: into how many parts at least a backward pass is cut, each with gradients of keys and values of its own
PARTS = 4

#: up to how many weights, those of all heads together, are kept for the backward pass: 48 heads of 64 by 64, width 32,
#: then take 0.86 of the time
KEPT = 1 << 18
#: queries that are left to the definition
FEW = 4

Dropout = tuple[float, int, int] | None


class _Piece(NamedTuple):
    """Batches, groups of heads (those of one key) and heads of a group that are done together, and their queries."""

    batch: slice
    group: slice
    head: slice
    first: int
    last: int

    @property
    def heads(self) -> tuple[slice, slice, slice]:
        return self.batch, self.group, self.head


class _Call:
    """One call's arrays, with the queries as ``[batch, group, head of the group, l, e]``."""

    def __init__(
        self,
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        mask: np.ndarray | None,
        causal: bool,
        scale: float,
        dropout: Dropout,
    ) -> None:
        self.k, self.v = k, v
        self.groups = k.shape[1]
        self.q = self.in_groups(q)
        self.mask = None if mask is None else self.in_groups(mask)
        self.causal, self.scale, self.dropout = causal, scale, dropout
        self.work = work_dtype(q.dtype)
        self.lengths = q.shape[2], k.shape[2]

    def in_groups(self, x: np.ndarray) -> np.ndarray:
        """``[batch, heads, ...]`` with the heads as groups of those that share a key: always a view."""
        b, h, *rest = x.shape
        sb, sh, *steps = x.strides
        r = h // self.groups
        return np.lib.stride_tricks.as_strided(x, (b, self.groups, r, *rest), (sb, sh * r, sh, *steps))

    def pieces(self) -> Iterator[_Piece]:
        """All heads and queries: several heads at a time where their scores fit into a tile."""
        batches, groups, r = self.q.shape[:3]
        length, keys = self.lengths
        fit = TILE // max(1, length * min(keys, KEYS))  # heads of which all queries fit into a tile
        each, rows = max(1, fit), length if fit else max(1, TILE // min(keys, KEYS))
        if fit >= r * groups:
            step = fit // (r * groups)
            if batches * length * keys * r * groups >= SHARED:
                step = min(step, -(-batches // 2))
            for b in range(0, batches, step):
                yield _Piece(slice(b, b + step), slice(None), slice(None), 0, length)
            return
        step_g = max(1, each // r)
        step_r = min(each, r)
        for b in range(batches):
            for g in range(0, groups, step_g):
                for h in range(0, r, step_r):
                    where = slice(b, b + 1), slice(g, g + step_g), slice(h, h + step_r)
                    for first in range(0, length, rows):
                        yield _Piece(*where, first, min(first + rows, length))

    @property
    def keeps_weights(self) -> bool:
        """Whether the backward pass gets the weights, and not the logarithms of their sums."""
        batches, groups, r, length, _ = self.q.shape
        return self.dropout is None and batches * groups * r * length * self.lengths[1] <= KEPT

    def whole(self) -> _Piece:
        """All heads and queries at once."""
        return _Piece(slice(None), slice(None), slice(None), 0, self.lengths[0])

    def key_tiles(self, piece: _Piece) -> Iterator[tuple[int, int]]:
        """Where the tiles of keys begin and end that some query of the piece sees."""
        end = min(self.lengths[1], piece.last) if self.causal else self.lengths[1]
        for first in range(0, end, KEYS):
            yield first, min(first + KEYS, end)

    def loaded(self, x: np.ndarray) -> np.ndarray:
        """``x`` in the work dtype, of strides that BLAS takes."""
        if x.dtype != self.work:
            return x.astype(self.work)
        size, (outer, inner) = x.itemsize, x.strides[-2:]
        if inner == size and outer >= size * x.shape[-1] and not outer % size:
            return x
        return np.ascontiguousarray(x)

    def hide(self, scores: np.ndarray, piece: _Piece, first: int, last: int) -> None:
        """The mask of the tile's keys, on its scores ``[b, g, r, queries, keys]``."""
        if self.causal and last > piece.first + 1:
            begin = max(first, piece.first)  # the keys before are seen by all of the queries
            after = np.arange(begin, last) > np.arange(piece.first, piece.last)[:, None]
            np.copyto(scores[..., begin - first :], -np.inf, where=after)
        if self.mask is not None:
            part = self.mask[piece.heads][..., piece.first : piece.last, first:last]
            if part.dtype == bool:
                np.copyto(scores, -np.inf, where=~part)
            else:
                scores += part

    def kept(self, piece: _Piece) -> np.ndarray | None:
        """Which weights of the piece dropout leaves, ``[b, g, r, queries, all keys]``, or None if it leaves all."""
        if self.dropout is None:
            return None
        p, seed, stream = self.dropout
        batches, groups, r = self.q.shape[:3]
        length, keys = self.lengths
        numbers = np.arange(batches * groups * r).reshape(batches, groups, r)[piece.heads]
        rows = piece.last - piece.first
        out = np.empty((numbers.size, rows * keys), bool)
        if rows == length and numbers[-1, -1, -1] - numbers[0, 0, 0] == numbers.size - 1:
            _draw(out.reshape(-1), int(numbers[0, 0, 0]) * length * keys, p, seed, stream)
        else:
            for number, part in zip(numbers.flat, out, strict=True):
                _draw(part, (int(number) * length + piece.first) * keys, p, seed, stream)
        return out.reshape(*numbers.shape, rows, keys)


def dropout_limit(p: float) -> int:
    """A weight stays where the 24 bits of its random number are at least this: where the float32 they make is at
    least ``p``."""
    return math.ceil(float(np.float32(p)) * 2.0**24)


def _draw(out: np.ndarray, start: int, p: float, seed: int, stream: int) -> None:
    """Whether elements ``start`` .. of ``philox.random("uniform", ...)`` in float32 are at least ``p``."""
    limit = np.uint32(dropout_limit(p) << 8)
    for at in range(0, out.size, TILE):
        part = out[at : at + TILE]
        before = (start + at) % 8  # a block of four words gives eight elements
        word = philox.words(-(-(before + part.size) // 2), seed, stream, (start + at - before) // 2)
        half = word.astype("<u8", copy=False).view("<u4")[before : before + part.size]
        np.greater_equal(half, limit, out=part)


def beside(empty: Callable[..., Any], like: Any, width: int, dtype: np.dtype) -> Any:
    """``[batch, heads, n, width]`` made by ``empty(shape, dtype)``, with positions outside of heads in memory where
    they are in ``like``: what turns heads into one long vector is then no copy."""
    b, h, n, _ = like.shape
    if h > 1 and like.strides[1] < like.strides[2]:
        return empty((b, n, h, width), dtype).transpose((0, 2, 1, 3))
    return empty((b, h, n, width), dtype)


def _transposed(x: np.ndarray) -> np.ndarray:
    return x.swapaxes(-1, -2)


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, x.shape[-1])


class AttentionOps(RowOps):
    """What the CPU backend offers for attention."""

    #: calls a function with floating-point warnings off; NumPy's BLAS; products that are shared out
    _quietly: Any
    _blas: Any
    _multiply: Any

    def fused_attention_takes(self, dtype: np.dtype, width: int, value_width: int, queries: int) -> bool:
        # The weights of few queries are no more than the keys; the definition takes 0.86 of the time for one.
        return width > 0 and queries > FEW

    def _attention_pieces(self, call: _Call, pieces: Sequence[Any], function: Any) -> list[Any]:
        """``function`` of each piece, on all threads where there is enough to do."""
        b, g, r, length, _ = call.q.shape
        with self._blas:  # which products are BLAS's, one by one
            if b * g * r * length * call.lengths[1] < SHARED:
                return [self._quietly(function, p) for p in pieces]
            return self._workers.each(lambda p: self._quietly(function, p), pieces)

    def fused_attention(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, *how: Any) -> tuple[np.ndarray, np.ndarray]:
        call = _Call(q, k, v, *how)
        out = beside(self._pool.empty, q, v.shape[3], q.dtype)
        if call.keeps_weights:
            return out, self._quietly(self._attend_keeping, call, out)
        logs = self._pool.empty(q.shape[:3], call.work)
        target, target_logs = call.in_groups(out), call.in_groups(logs)

        def piece(p: _Piece) -> None:
            part = (*p.heads, slice(p.first, p.last))
            value, factor, log = self._attended(call, p)
            np.multiply(value, factor, out=target[part], casting="unsafe")
            target_logs[part] = log

        self._attention_pieces(call, list(call.pieces()), piece)
        return out, logs

    def _attend_keeping(self, call: _Call, out: np.ndarray) -> np.ndarray:
        """Fills ``out``; the weights ``[batch, heads, l, s]``."""
        queries = (call.q * call.work.type(call.scale)).astype(call.work, copy=False)
        key, value = (call.loaded(x)[:, :, None] for x in (call.k, call.v))
        (length, keys), heads = call.lengths, call.q.shape[:3]
        weights = self._pool.empty((heads[0], heads[1] * heads[2], length, keys), call.work)
        scores = self._multiply(queries, _transposed(key), call.in_groups(weights))
        call.hide(scores, call.whole(), 0, keys)
        rows = _rows(weights)
        best = row_maxima(rows)
        if call.mask is not None:  # without one a row of -inf is NaN, as in the definition
            blind = best == -np.inf
            best[blind] = 0
        rows -= best[:, None]
        np.exp(rows, out=rows)
        total = row_sums(rows)
        if call.mask is not None:
            total[blind] = 1
        rows *= np.reciprocal(total)[:, None]
        self._product_into(call.in_groups(out), scores, value)
        return weights

    def _attended(self, call: _Call, p: _Piece) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of a piece the sums of values ``[b, g, r, queries, w]``, in scratch memory, what each row of them is to be
        multiplied with, and the logarithms of the sums of weights."""
        queries = call.q[p.heads][..., p.first : p.last, :] * call.work.type(call.scale)
        queries = queries.astype(call.work, copy=False)
        kept = call.kept(p)
        best = total = result = None
        for first, last in call.key_tiles(p):
            key = call.loaded(call.k[p.batch, p.group, first:last])[:, :, None]
            value = call.loaded(call.v[p.batch, p.group, first:last])[:, :, None]
            shape = (*queries.shape[:-1], last - first)
            scores = np.matmul(queries, _transposed(key), out=self._temporary("scores", shape, call.work))
            call.hide(scores, p, first, last)
            rows = _rows(scores)
            top = row_maxima(rows)
            high = top if best is None else np.maximum(best, top)
            base = np.where(high == -np.inf, 0, high)  # of a row that sees nothing yet
            rows -= base[:, None]
            np.exp(rows, out=rows)
            sums = row_sums(rows)
            if kept is not None:
                scores *= kept[..., first:last]
            name = "result" if result is None else "product"
            product = self._product(name, scores, value)
            if result is None:
                result, total = product, sums
            else:
                shrink = np.exp(best - base)
                total = total * shrink + sums
                flat = _rows(result)
                flat *= shrink[:, None]
                result += product
            best = high
        assert result is not None and total is not None and best is not None
        if call.mask is not None:
            blind = best == -np.inf
            total[blind] = 1
            logs = best + np.log(total)
            logs[blind] = np.inf  # weights of exp(-inf) in the backward pass
        else:
            total = np.where(best == -np.inf, np.nan, total)
            logs = best + np.log(total)
        factor = 1 / total
        if call.dropout is not None:
            factor *= 1 / (1 - call.dropout[0])
        shape = result.shape[:-1]
        return result, factor.reshape(*shape, 1), logs.reshape(shape)

    def _product(
        self, name: str, a: np.ndarray, b: np.ndarray, multiply: Callable[..., np.ndarray] = np.matmul
    ) -> np.ndarray:
        """``a @ b`` in scratch memory of that name; the leading dimensions are those of ``a``."""
        return multiply(a, b, self._temporary(name, (*a.shape[:-1], b.shape[-1]), a.dtype))

    def fused_attention_backward(
        self,
        gradient: np.ndarray,
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        out: np.ndarray,
        logs: np.ndarray,
        *options: Any,
    ) -> tuple[np.ndarray | None, ...]:
        *how, wanted = options
        call, needed = _Call(q, k, v, *how), tuple(map(bool, wanted))
        given = [call.in_groups(x) for x in (gradient, out, logs)]
        empty = self._pool.empty
        grads = [beside(empty, x, x.shape[3], x.dtype) if n else None for x, n in zip((q, k, v), needed, strict=True)]
        if logs.ndim == 4:  # the weights
            self._quietly(self._gradients_of_kept, call, *given, grads)
            return tuple(grads)
        dq = None if grads[0] is None else call.in_groups(grads[0])
        groups: dict[Any, list[_Piece]] = {}
        for p in call.pieces():
            groups.setdefault((p.batch.start, p.group.start), []).append(p)
        parts: list[list[_Piece]] = []
        each = -(-PARTS // len(groups))
        for pieces in groups.values():
            count = min(each, len(pieces))
            # Of a causal mask the later queries see more keys: each part takes some of all.
            parts += [pieces[i::count] for i in range(count)]

        def part(pieces: list[_Piece]) -> list[np.ndarray | None]:
            return self._gradients_of(call, pieces, given, dq, needed)

        found: dict[Any, list[np.ndarray | None]] = {}
        for pieces, sums in zip(parts, self._attention_pieces(call, parts, part), strict=True):
            where = pieces[0].batch, pieces[0].group
            before = found.setdefault((where[0].start, where[1].start), sums)
            for i, target in enumerate(grads[1:]):
                if target is None:
                    continue
                if before is not sums:
                    before[i] += sums[i]
        for pieces in groups.values():
            p = pieces[0]
            for target, total in zip(grads[1:], found[p.batch.start, p.group.start], strict=True):
                if target is not None and total is not None:
                    np.copyto(target[p.batch, p.group], total, "unsafe")
        return tuple(grads)

    def _product_into(self, target: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        """Set ``target`` ``[b, g, r or 1, n, m]`` to ``a @ b``, summed over the heads of a group if it has but one."""
        if target.dtype == a.dtype and target.shape[2] == a.shape[2]:
            self._multiply(a, b, target)
            return
        product = self._product("product", a, b, self._multiply)
        np.copyto(target, product.sum(axis=2, keepdims=True) if target.shape[2] < a.shape[2] else product, "unsafe")

    def _gradients_of_kept(
        self,
        call: _Call,
        gradient: np.ndarray,
        out: np.ndarray,
        weights: np.ndarray,
        grads: Sequence[np.ndarray | None],
    ) -> None:
        """Fills ``grads`` where there are weights to go by."""
        dq, dk, dv = grads
        gradient = call.loaded(gradient)
        if dv is not None:
            self._product_into(dv[:, :, None], _transposed(weights), gradient)
        if dq is None and dk is None:
            return
        scale = call.work.type(call.scale)
        key, value = (call.loaded(x)[:, :, None] for x in (call.k, call.v))
        slopes = self._product("slopes", gradient, _transposed(value), self._multiply)
        rows = _rows(slopes)
        rows -= np.vecdot(_rows(gradient), _rows(out.astype(call.work, copy=False)))[:, None]
        rows *= _rows(weights)
        if dk is not None:
            queries = (call.q * scale).astype(call.work, copy=False)
            self._product_into(dk[:, :, None], _transposed(slopes), queries)
        if dq is not None:
            own = self._product("product", slopes, key, self._multiply)
            np.multiply(own, scale, out=call.in_groups(dq), casting="unsafe")

    def _gradients_of(
        self,
        call: _Call,
        pieces: Sequence[_Piece],
        given: Sequence[np.ndarray],
        dq: np.ndarray | None,
        needed: Sequence[bool],
    ) -> list[np.ndarray | None]:
        """The gradients of the pieces' keys and values, as far as these pieces' queries give them; fills ``dq``."""
        first_piece = pieces[0]
        where = first_piece.batch, first_piece.group
        key, value = (call.loaded(x[where])[:, :, None] for x in (call.k, call.v))
        sums = [np.zeros(x[where].shape, call.work) if n else None
                for x, n in zip((call.k, call.v), needed[1:], strict=True)]  # fmt: skip
        dk, dv = (None if x is None else x[:, :, None] for x in sums)
        for p in pieces:
            here = (*p.heads, slice(p.first, p.last))
            queries = (call.q[here] * call.work.type(call.scale)).astype(call.work, copy=False)
            gradient, out, logs = (x[here] for x in given)
            gradient = call.loaded(gradient)
            logs = _rows(logs[..., None].astype(call.work, copy=False))
            delta = np.vecdot(_rows(gradient), _rows(out.astype(call.work, copy=False)))[:, None]
            kept = call.kept(p)
            own: np.ndarray | None = None
            for first, last in call.key_tiles(p):
                shape = (*queries.shape[:-1], last - first)
                k, v = key[..., first:last, :], value[..., first:last, :]
                scores = np.matmul(queries, _transposed(k), out=self._temporary("scores", shape, call.work))
                call.hide(scores, p, first, last)
                rows = _rows(scores)
                rows -= logs
                np.exp(rows, out=rows)
                slopes = np.matmul(gradient, _transposed(v), out=self._temporary("slopes", shape, call.work))
                if kept is not None:
                    factor = call.work.type(1 / (1 - call.dropout[0]))  # type: ignore[index]
                    left = kept[..., first:last]
                    dropped = scores * left
                    dropped *= factor
                    slopes *= left
                    slopes *= factor
                else:
                    dropped = scores
                if dv is not None:
                    _add(dv[..., first:last, :], self._product("product", _transposed(dropped), gradient))
                flat = _rows(slopes)
                flat -= delta
                flat *= rows
                if dk is not None:
                    _add(dk[..., first:last, :], self._product("product", _transposed(slopes), queries))
                if dq is not None:
                    product = self._product("own" if own is None else "product", slopes, k)
                    own = product if own is None else np.add(own, product, out=own)
            if dq is not None and own is not None:
                np.multiply(own, call.work.type(call.scale), out=dq[here], casting="unsafe")
        return sums


def _add(target: np.ndarray, heads: np.ndarray) -> None:
    """Add gradients ``[b, g, r, keys, w]`` to ``target`` ``[b, g, 1, keys, w]``."""
    if heads.shape[2] == 1:
        target += heads
    else:
        target += heads.sum(axis=2, keepdims=True)
