"""Shapes: splitting, joining, diagonals, small products, ranges, memory; views made in place."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
from tests import parity

RNG = np.random.default_rng(0)
ARRAYS = {
    "x": RNG.standard_normal((3, 4)).astype(np.float32),
    "y": RNG.standard_normal((3, 4)).astype(np.float32),
    "v": RNG.standard_normal(4).astype(np.float32),
    "w": RNG.standard_normal(3).astype(np.float32),
    "z": RNG.standard_normal((2, 3, 4)).astype(np.float32),
    "i": RNG.integers(0, 3, (3, 4)),
    "j": np.array([2, 0, 1]),
    "k": np.array([1, 0, 2, 0]),
    "o": np.array(2.5, np.float32),
    "n": np.array(1),
    "e": np.zeros((0, 3), np.float32),
    "b": RNG.random((3, 4)) > 0.5,
    "c": np.array([True, False, True]),
    "q": RNG.standard_normal((4, 5)).astype(np.float32),
    "u": RNG.standard_normal((2, 4, 5)).astype(np.float32),
    "s": RNG.standard_normal((3, 3)).astype(np.float32),
    "m": RNG.integers(-5, 5, (4, 4)),
    "d": RNG.standard_normal((3, 4)),
}
DOUBLE = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in ARRAYS.items()}

# Values, dtypes, shapes, or the type of the error, as PyTorch has them. T is the library.
EXPRESSIONS = [
    "T.repeat_interleave(x, 2)", "T.repeat_interleave(x, 2, dim=1)", "T.repeat_interleave(x, j, 0)",
    "T.repeat_interleave(j)", "x.repeat_interleave(k, dim=-1)", "x.repeat_interleave(k, dim=0)",
    "x.repeat_interleave(-1)", "x.repeat_interleave(x)", "x.repeat_interleave(n)", "x.repeat_interleave(n, dim=1)",
    "x.repeat_interleave([1, 2, 0], dim=0)", "o.repeat_interleave(3)", "e.repeat_interleave(2, dim=0)",
    "x.repeat_interleave(2, dim=5)", "T.rot90(x)", "T.rot90(z, 1, [1, 2])", "T.rot90(x, -3, (1, 0))", "T.rot90(v)",
    "T.rot90(x, 1, (0, 0))", "T.rot90(x, 1, (0, 1, 1))", "T.tensor_split(x, 2)", "x.tensor_split(3, dim=1)",
    "x.tensor_split((1, 2), dim=1)", "x.tensor_split([1, 9, 2], 1)", "x.tensor_split([-1], 1)", "x.tensor_split(j)",
    "x.tensor_split(n)", "x.tensor_split(0)", "o.tensor_split(2)", "T.hsplit(x, 2)", "T.hsplit(x, 3)",
    "T.hsplit(v, 2)", "T.hsplit(o, 2)", "T.vsplit(x, 3)", "T.vsplit(v, 2)", "T.dsplit(z, 2)", "T.dsplit(x, 2)",
    "T.dsplit(z, [1])", "T.split(x, [1, 3], dim=1)", "T.split(x, [1, 2], dim=1)", "T.split(x, 2)", "x.split(2, 1)",
    "x.split((1, 1, 1))", "x.split(0)", "x.split(-1)", "e.split(2)", "o.split(1)",
    "T.split_with_sizes(x, [2, 2], 1)", "x.split_with_sizes([1, 1])", "x.chunk(2, 1)", "x.chunk(5, 1)", "e.chunk(3)",
    "x.chunk(0)", "o.chunk(1)", "x.unbind(1)", "o.unbind()", "x.unbind(5)", "T.dstack([x, y])", "T.dstack((v, v))",
    "T.dstack([o, o])", "T.column_stack([w, x])", "T.column_stack([o, o])", "T.row_stack([v, x])",
    "T.vstack([v, x])", "T.hstack([v, w])", "T.hstack([o, o])", "T.hstack([])", "T.hstack([x, w])",
    "T.atleast_1d(o)", "T.atleast_1d(o, x)", "T.atleast_2d(v)", "T.atleast_2d([o, v])", "T.atleast_3d(v)",
    "T.atleast_3d(x)", "T.atleast_3d(o, z)", "T.block_diag(x, v, o)", "T.block_diag(x, i)", "T.block_diag(z)",
    "T.block_diag()", "T.cartesian_prod(v, w)", "T.cartesian_prod(v)", "T.cartesian_prod(v, x)",
    "T.cartesian_prod(v, w, v)", "T.combinations(v)", "T.combinations(v, r=3)",
    "T.combinations(v, r=2, with_replacement=True)", "T.combinations(v, 0)", "T.combinations(v, 5)",
    "T.combinations(x)", "T.diag(v)", "T.diag(v, 2)", "T.diag(x)", "T.diag(x, -1)", "T.diag(x, 9)", "x.diag(1)",
    "T.diag(o)", "T.diag(z)", "T.diagflat(x, 1)", "T.diagflat(o)", "T.diag_embed(x)", "T.diag_embed(x, 1, 0, 2)",
    "T.diag_embed(x, -2, 1, -1)", "T.diag_embed(x, 0, 1, 1)", "T.diag_embed(o)", "T.diagonal(z, 0, 1, 2)",
    "T.diagonal(z, offset=5)", "T.diagonal(v)", "T.tril_indices(3, 4)", "T.tril_indices(3, 4, 1)",
    "T.tril_indices(3, 4, -5)", "T.triu_indices(4, 3, -1)", "T.triu_indices(4, 3, 2, dtype=T.int32)",
    "T.triu_indices(0, 3)", "T.triu_indices(-1, 3)", "T.vander(v)", "T.vander(v, N=2, increasing=True)",
    "T.vander(j)", "T.vander(c)", "T.vander(x)", "T.vander(v, 0)", "T.trace(s)", "T.trace(x)", "T.trace(i)",
    "T.trace(v)", "T.kron(x, s)", "T.kron(v, x)", "T.kron(o, x)", "T.kron(i, x)", "T.cross(w, w.flip(0), dim=0)",
    "T.cross(s, s.flip(0), dim=1)", "T.cross(x, y, dim=0)", "T.cross(x, y, dim=1)", "T.cross(x, w[:, None], dim=0)",
    "T.cross(x, w, dim=0)", "T.inner(v, x)", "T.inner(x, y)", "T.inner(o, x)", "T.inner(w, v)", "T.inner(o, i)",
    "T.vdot(v, v)", "T.vdot(x, x)", "T.vdot(v, w)", "T.addr(x, w, v)", "T.addr(x, w, v, beta=0.5, alpha=2)",
    "T.addr(o, w, v)", "T.addr(x, v, w)", "T.addmv(w, x, v, beta=2, alpha=3)", "T.addmv(o, x, v)",
    "T.addmv(v, x, v)", "T.addbmm(x[:, :1].expand(3, 5), z, u)", "T.addbmm(o, z, u, beta=0)", "T.addbmm(s, z, u)",
    "T.addmm(x[:, :1], x, q)", "T.addmm(s, x, q)", "T.addmm(i[:3, :1], i, m)", "T.addmm(i[:3, :1], i, m, alpha=2)",
    "T.addmm(i[:3, :1], i, m, alpha=2.5)", "T.addmm(d[:, :1], x, q)", "T.baddbmm(o, z, u)", "T.baddbmm(s, z, u)",
    "x.clone().addmm_(x, m.float())", "w.clone().addmv_(x, v)", "x.clone().addr_(w, v, alpha=2)",
    "z.clone().baddbmm_(z, m.float()[None].expand(2, 4, 4))", "T.zeros(3, 5).addbmm_(z, u)",
    "w.clone().addmm_(x, q)", "T.ger(v, w)", "T.swapaxes(z, 0, 2)", "z.swapdims(0, -1)", "T.moveaxis(z, 0, 2)",
    "T.movedim(z, (0, 1), (1, 2))", "T.movedim(z, [0, -1], [1, 0])", "T.movedim(z, 0, 5)",
    "T.movedim(z, (0, 0), (1, 2))", "T.movedim(o, 0, 0)", "T.movedim(o, -1, 0)", "z.movedim((0, 1), 2)",
    "T.unravel_index(i, (3, 4))", "T.unravel_index(n, (3, 4))", "T.unravel_index(T.tensor([11, -1]), (3, 4))",
    "T.unravel_index(T.tensor([12]), (3, 4))", "T.unravel_index(v, (3, 4))", "T.unravel_index(j, 4)",
    "T.broadcast_shapes((3, 1), (4, ))", "T.broadcast_shapes(3, (2, 1))", "T.broadcast_shapes((3, ), (2, ))",
    "T.broadcast_shapes()", "z.sum_to_size(3, 1)", "z.sum_to_size((1, 4))", "z.sum_to_size(2)", "x.expand_as(z)",
    "x.view_as(y.T)", "x.reshape_as(z[0].T)", "x.narrow_copy(1, 1, 2)", "x.narrow(1, n, 2)", "x.narrow(1, -2, 2)",
    "x.narrow(0, 2, 5)", "x.narrow(0, 5, 1)", "x.narrow(0, 0, -1)", "o.narrow(0, 0, 1)", "x.narrow(0, 3, 0)",
    "x.narrow(1, v[0], 2)", "x.unfold(1, 2, 1)", "x.unfold(1, 5, 1)", "x.unfold(0, 2, 2)", "o.unfold(0, 1, 1)",
    "x.ravel()", "o.ravel()", "x[:, :1].squeeze((0, 1))", "x[:, :1].squeeze((1, 1))", "x.squeeze(0)", "o.squeeze(0)",
    "o.squeeze(1)", "T.squeeze(x[None], (0, ))", "T.einsum('ij, jk->ik', x, q)", "T.einsum('ij, jk', x, q)",
    "T.einsum('bij, bjk->bik', z, u)", "T.einsum('...ij, ...jk', z, q)", "T.einsum('ii', s)", "T.einsum('ii->i', s)",
    "T.einsum('ij->ji', x)", "T.einsum('ij->', x)", "T.einsum(' i j , j k -> i k ', x, q)",
    "T.einsum('Ab, bC->AC', x, q)", "T.einsum('aB, BC', x, q)", "T.einsum('...', z)", "T.einsum('...->', z)",
    "T.einsum('i...->...', z)", "T.einsum('...i->...', z)", "T.einsum('ij, ij->ij', x, y)",
    "T.einsum('i, j->ij', v, w)", "T.einsum('i, j', v, w)", "T.einsum(x, [0, 1], q, [1, 2], [0, 2])",
    "T.einsum(x, [0, 1], q, [1, 2])", "T.einsum(z, [Ellipsis, 0, 1], [1, 0, Ellipsis])",
    "T.einsum(x, [0, 27], q, [27, 2])", "T.einsum(x, [0, 99])", "T.einsum('ij, jk', x, x)", "T.einsum('ijk', x)",
    "T.einsum('ij, jk->il', x, q)", "T.einsum('ij, jk->ii', x, q)", "T.einsum('i1', x)", "T.einsum('ij')",
    "T.einsum('ij, jk', x)", "T.einsum('ij', x, x)", "T.einsum('', o)", "T.einsum(', ', o, o)",
    "T.einsum('ij, ', x, o)", "T.einsum('ij, jk', [x, q])", "T.einsum('ij, jk, kl->il', x, q, q.T)",
    "T.einsum('ij, ij, ij->i', x, y, x)", "T.einsum('ij, jk', x[:, :1], q)",
    "T.einsum('iij->j', s[:, :, None].expand(3, 3, 2))", "T.einsum('ij, jk', i, m)", "T.einsum('ij->i', i)",
    "T.einsum('ij, jk', x, m)", "T.einsum('ij, jk', d, x.T)", "T.einsum('...ij, ...jk->...ik', z, u[:1])",
    "T.einsum('...ij, jk', e, s)", "T.einsum('..ij', x)", "T.einsum('i...j...', z)", "T.einsum('ij->...ij', x)",
    "T.einsum('b..., ...b->b...', x, x.T)", "T.tensordot(x, q, 1)", "T.tensordot(x, q, dims=1)", "T.tensordot(x, y)",
    "T.tensordot(x, y, 0)", "T.tensordot(x, y, ([0], [0]))", "T.tensordot(x, y, dims=([1, 0], [1, 0]))",
    "T.tensordot(x, y, dims=[[-1], [-1]])", "T.tensordot(x, y, ([0, 1], [0]))",
    "T.tensordot(x, y, ([0, 0], [0, 0]))", "T.tensordot(x, y, 1)", "T.tensordot(x, y, -1)", "T.tensordot(x, y, 3)",
    "T.tensordot(x, y, T.tensor([[0], [0]]))", "T.tensordot(x, y[:1], ([0], [0]))", "T.tensordot(o, o, 0)",
    "T.tensordot(x, d, 0)", "T.matmul(v, v)", "T.matmul(x, v)", "T.matmul(v, q)", "T.matmul(z, q)", "T.matmul(x, u)",
    "T.matmul(v, u)", "T.matmul(z, v)", "T.matmul(z, u)", "T.matmul(z[:, None], u)", "T.matmul(o, x)",
    "T.matmul(x, o)", "T.matmul(x, x)", "T.matmul(x, d.T)", "T.matmul(b, b.T)", "T.matmul(i, m)",
    "T.matmul(z, u[[0, 0, 0]])", "T.mm(x, q)", "T.mm(x, v)", "T.mm(x, x)", "T.mm(z, u)", "T.bmm(z, u)",
    "T.bmm(z, u[:1])", "T.bmm(x, q)", "T.bmm(z, z)", "T.mv(x, v)", "T.mv(x, w)", "T.mv(x, x)", "T.dot(v, v)",
    "T.dot(v, w)", "T.dot(x, x)", "T.dot(v, d[0])", "T.dot(k, k)", "T.outer(v, w)", "T.outer(v, k)", "T.outer(x, v)",
    "T.full((2, 3), 7)", "T.full((2, 3), 7.)", "T.full((2, 3), True)", "T.full([2], 3, dtype=T.float64)",
    "T.full((), 2)", "T.full((2, -1), 2)", "T.full(3, 2)", "T.arange(5)", "T.arange(5.)", "T.arange(1, 5, 0.5)",
    "T.arange(5, 1, -2)", "T.arange(0, 1, 0.1)", "T.arange(end=3)", "T.arange(1, end=4)",
    "T.arange(start=1, end=4, step=2)", "T.arange(3, 1)", "T.arange(1, 3, 0)", "T.arange(0)", "T.arange(-2)",
    "T.arange(n+3)", "T.arange(0.5, 4, dtype=T.int64)", "T.arange(5, dtype=T.float16)", "T.arange(inf)",
    "T.arange(nan)", "T.arange(2.5)", "T.linspace(0, 1, 5)", "T.linspace(0, 10, 4, dtype=T.int64)",
    "T.linspace(10, -3, 7, dtype=T.int32)", "T.linspace(3, 3, 1)", "T.linspace(3, 5, 0)", "T.linspace(3, 5, -1)",
    "T.linspace(o, 5, 4)", "T.linspace(v, 5, 4)", "T.linspace(0, 1, steps=3, dtype=T.float64)",
    "T.logspace(0, 3, 4)", "T.logspace(0, 3, 4, base=2)", "T.logspace(0, 3, 4, 2)", "T.logspace(-3, 3, 1)",
    "T.logspace(0, 3, 4, dtype=T.int64)", "T.logspace(0, 3, -1)", "T.eye(3)", "T.eye(3, 2)", "T.eye(0)", "T.eye(-1)",
    "T.eye(2, dtype=T.int64)", "T.hann_window(7)", "T.hann_window(7, False)",
    "T.hann_window(7, periodic=False, dtype=T.float64)", "T.hann_window(0)", "T.hann_window(1)", "T.hann_window(2)",
    "T.hann_window(-1)", "T.hann_window(5, dtype=T.int64)", "T.hamming_window(7)",
    "T.hamming_window(7, True, 0.5, 0.5)", "T.hamming_window(7, False, alpha=0.6)", "T.bartlett_window(6)",
    "T.bartlett_window(7, False)", "T.blackman_window(6)", "T.blackman_window(7, False)", "T.kaiser_window(6)",
    "T.kaiser_window(7, False, 5.0)", "T.kaiser_window(7, True, beta=2)", "T.kaiser_window(1)", "T.scalar_tensor(5)",
    "T.scalar_tensor(5, dtype=T.int64)", "T.scalar_tensor(True)", "T.asarray([1, 2, 3])", "T.asarray([1.5, 2])",
    "T.asarray(np.arange(3.))", "T.asarray(x)", "T.asarray(x, dtype=T.float64)",
    "T.asarray(x, dtype=T.float64, copy=False)", "T.asarray([1, 2], copy=False)", "T.asarray(3)",
    "T.asarray(np.float64(3))", "T.frombuffer(bytearray(b'abcdefgh'), dtype=T.uint8)",
    "T.frombuffer(bytearray(b'abcdefgh'), dtype=T.int32)",
    "T.frombuffer(bytearray(b'abcdefgh'), dtype=T.int16, offset=2, count=2)",
    "T.frombuffer(bytearray(b'abcdefgh'), dtype=T.int32, offset=1)",
    "T.frombuffer(bytearray(b'abcdefgh'), dtype=T.int32, count=3)", "T.frombuffer(bytearray(b''), dtype=T.int32)",
    "T.frombuffer(bytearray(b'abcdefgh'), dtype=T.int32, count=0)", "T.empty_strided((2, 3), (1, 2)).stride()",
    "T.empty_strided((2, 3), (1, ))", "T.empty_permuted((2, 3, 4), (0, 2, 1)).stride()",
    "T.empty_permuted((2, 3, 4), (2, 2, 1))", "x.view(T.int32)", "x.view(T.float64)", "x.view(T.int16)",
    "x.view(T.uint8)", "x.T.view(T.int32)", "x.T.view(T.int16)", "x[:, :3].view(T.float64)",
    "x[:, 1:3].view(T.float64)", "o.view(T.int32)", "o.view(T.int16)", "i.view(T.float64)", "i.view(T.int32)",
    "e.view(T.int16)", "x.new_full((2, ), 3)", "i.new_full((2, ), 3)", "i.new_full((2, ), 3.5)", "x.new_zeros(2, 3)",
    "x.new_zeros((2, 3), dtype=T.int64)", "x.new_ones(2)", "i.new_ones((2, ), dtype=T.float32)",
    "x.new_tensor([1, 2])", "i.new_tensor([1.5, 2])", "x.new_empty((2, 3)).shape",
    "x.new_empty_strided((2, 3), (1, 2)).stride()", "x.new([1, 2, 3])", "x.new(2, 3).shape", "x.new().shape",
    "T.meshgrid(v, w)", "T.meshgrid(v, w, indexing='ij')", "T.meshgrid([v, w], indexing='xy')", "T.meshgrid(v, o)",
    "T.meshgrid(x, v)", "T.meshgrid(v, k)", "T.meshgrid(v, w, indexing='zz')", "T.view_copy(x, (4, 3))",
    "T.permute_copy(x, (1, 0))", "T.transpose_copy(x, 0, 1)", "T.unsqueeze_copy(x, 0)", "T.squeeze_copy(x[None])",
    "T.expand_copy(w[:, None], (3, 2))", "T.select_copy(x, 0, 1)", "T.slice_copy(x, 0, 1, 3)", "T.diagonal_copy(x)",
    "T.t_copy(x)", "T.unbind_copy(x)", "T.split_copy(x, 2)", "T.as_strided_copy(x, (2, 2), (1, 2))", "T.roll(x, 1)",
    "T.roll(x, 1, 0)", "T.roll(x, (1, 2), (0, 1))", "T.roll(x, (1, 2))", "T.roll(x, (1, 2), 0)", "T.roll(o, 1)",
    "T.roll(o, 1, 0)", "T.roll(x, -5, 1)", "T.flip(x, (0, ))", "x.flip(0, 1)", "x.flip(0, 0)", "T.fliplr(v)",
    "T.flipud(o)", "x.tile(2)", "x.tile(2, 1, 3)", "x.repeat(2, 1)", "x.repeat(2)", "x.repeat(1, 1).add_(1)",
    "x.repeat(0, 1)", "T.tile(o, (2, ))", "T.stack([x, y], 2)", "T.stack([x, v])", "T.stack([])", "T.stack([x, i])",
    "T.cat([x, T.zeros(0)])", "T.cat([x, i])", "T.cat([x, v])", "T.cat([])", "T.cat([o, o])",
    "x.unflatten(1, (2, 2))", "x.unflatten(1, (2, -1))", "x.unflatten(1, (3, 2))", "x.flatten(1, 0)", "o.flatten()",
    "z.flatten(1)", "z.flatten(0, 5)", "x.select(1, -1)", "x.select(1, 4)", "o.select(0, 0)", "x.permute(1, 0)",
    "x.permute((1, 0))", "x.permute(0)", "x.permute(0, 0)", "x.expand(2, 3, 4)", "x.expand(-1, -1)",
    "x.expand(2, -1, -1)", "x.expand(-1, 3, 4)", "x.expand(6, 4)", "x.transpose(0, 5)", "z.t()", "z.mT", "z.T.shape",
    "z.adjoint()", "x.as_strided((2, 2), (1, 2))", "x.as_strided((2, 2), (1, 2), 3)", "x.as_strided((20, ), (1, ))",
    "x.swapaxes(0, 1)",

]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, about functions it will drop
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_as_pytorch(expression, torch):
    parity.check(expression, ARRAYS, torch)


GRADIENTS = [
    "T.repeat_interleave(x, 2)", "T.repeat_interleave(x, j, 0)", "T.rot90(x)", "T.rot90(x, 2)",
    "x.tensor_split((1, 3), 1)[1]", "T.dstack([x, y])", "T.column_stack([w, x])", "T.atleast_3d(x)",
    "T.block_diag(x, v, o)", "T.cartesian_prod(v, w)", "T.combinations(v, 2)", "T.diag(v, 1)", "T.diag(x)",
    "T.diag_embed(x, 1)", "T.trace(s)", "T.kron(x, s)", "T.cross(s, s.flip(0), dim=1)", "T.inner(x, y)",
    "T.addr(x, w, v, beta=0.5, alpha=2)", "T.addmv(w, x, v)", "T.addbmm(o, z, u)", "T.baddbmm(o, z, u)",
    "T.einsum('bij,bjk->bik', z, u)", "T.einsum('ii->i', s)", "T.einsum('ij,ij,ij->i', x, y, x)",
    "T.einsum('...ij,...jk', z, q)", "T.einsum('iij->j', s[:, :, None].expand(3, 3, 2))",
    "T.einsum(x, [0, 1], q, [1, 2], [2, 0])", "T.einsum('ij,jk', x[:, :1], q)", "T.tensordot(x, y[:1], ([0], [0]))",
    "T.tensordot(x, y, ([0], [0]))", "z.sum_to_size(3, 1)", "z.movedim((0, 1), (1, 2))", "T.roll(x, (1, 2), (0, 1))",
    "x.unfold(1, 2, 1)", "T.fill(x, o)", "T.chain_matmul(x, q, q.T)", "x.repeat(2, 1, 3)", "T.permute_copy(x, (1, 0))",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("expression", GRADIENTS)
def test_gradients_as_pytorch(expression, torch):
    used = {k: v for k, v in DOUBLE.items() if k in expression.replace("T.", "").replace("dim", "")}
    parity.gradients(expression, used, torch)


# -- without PyTorch ----------------------------------------------------------------------------


def test_splitting_against_numpy(device):
    x = gg.tensor(ARRAYS["z"], device=device)
    for parts, dim in ((2, 0), (3, 1), (3, 2), ((1, 2), 2), ((0, 9), 1)):
        want = np.array_split(ARRAYS["z"], parts, dim)
        got = gg.tensor_split(x, parts, dim)
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_array_equal(g.cpu().numpy(), w)
            assert g._base is x  # views, all of them


def test_repeat_interleave_stays_on_the_device(device):
    x = gg.tensor(ARRAYS["x"], device=device)
    counts = gg.tensor([2, 0, 3], device=device)
    got = x.repeat_interleave(counts, dim=0, output_size=5)
    assert got.device.type == device
    np.testing.assert_array_equal(got.cpu().numpy(), np.repeat(ARRAYS["x"], [2, 0, 3], 0))


@pytest.mark.parametrize("equation", ["ij,jk->ki", "ij,kj", "iJ->J", "ij,ij->"])
def test_einsum_against_numpy(equation, device):
    arrays = [ARRAYS["s"] for _ in equation.split("->")[0].split(",")]
    got = gg.einsum(equation, *[gg.tensor(a, device=device) for a in arrays])
    np.testing.assert_allclose(got.cpu().numpy(), np.einsum(equation, *arrays), rtol=1e-4, atol=1e-5)


def test_integers_stay_exact_in_einsum():
    x = gg.tensor([[1, 2], [3, 4]], dtype=gg.int32)
    assert gg.einsum("ij->i", x).dtype is gg.int64 and gg.einsum("ij,ij->i", x, x).dtype is gg.int32
    assert gg.einsum("ij,jk", x, x).tolist() == [[7, 10], [15, 22]]


def test_chain_of_matrices_is_cut_where_it_costs_least():
    from gpugrad.ops.products import _best_cuts

    # 30x35, 35x15, 15x5, 5x10, 10x20, 20x25: best as ((A (B C)) ((D E) F)), the textbook's example
    cuts = _best_cuts([30, 35, 15, 5, 10, 20, 25])
    assert (cuts[0, 5], cuts[0, 2], cuts[3, 5]) == (2, 0, 4)
    chain = [gg.tensor(RNG.standard_normal(s)) for s in ((3, 9), (9, 2), (2, 8), (8, 4))]
    want = np.linalg.multi_dot([m.numpy() for m in chain])
    np.testing.assert_allclose(gg.chain_matmul(*chain).numpy(), want, rtol=1e-12)


def test_range_warns():
    with pytest.warns(UserWarning, match="arange"):
        assert gg.range(1, 4).tolist() == [1.0, 2.0, 3.0, 4.0]


def test_windows_against_numpy():
    for ours, theirs in (
        (gg.hann_window, np.hanning),
        (gg.hamming_window, np.hamming),
        (gg.bartlett_window, np.bartlett),
        (gg.blackman_window, np.blackman),
    ):
        got = ours(9, False, dtype=gg.float64)
        np.testing.assert_allclose(got.numpy(), theirs(9), atol=1e-15)
        np.testing.assert_allclose(ours(8, dtype=gg.float64).numpy(), theirs(9)[:-1], atol=1e-15)
    np.testing.assert_allclose(gg.kaiser_window(9, False, 5.0, dtype=gg.float64).numpy(), np.kaiser(9, 5.0), rtol=1e-12)


# -- memory ----------------------------------------------------------------------------------------


def test_view_as_another_dtype_shares_memory(device):
    x = gg.tensor(np.arange(6, dtype=np.int32).reshape(2, 3), device=device)
    narrow = x.view(gg.int16)
    assert narrow.shape == (2, 6)
    narrow[0, 0] = 7
    assert x[0, 0].item() == 7
    assert x.view(gg.float32).view(gg.int32).tolist() == x.tolist()
    assert x.T.view(gg.float32).shape == (3, 2)
    wide = gg.tensor(np.arange(8, dtype=np.int16).reshape(2, 4), device=device).view(gg.int32)
    np.testing.assert_array_equal(wide.cpu().numpy(), np.arange(8, dtype=np.int16).reshape(2, 4).view(np.int32))


def test_frombuffer_and_asarray_share_or_say_so():
    buffer = bytearray(np.arange(4, dtype=np.int32).tobytes())
    t = gg.frombuffer(buffer, dtype=gg.int32)
    t[0] = 9
    assert np.frombuffer(buffer, np.int32)[0] == 9
    with pytest.warns(UserWarning, match="read-only"):
        assert gg.frombuffer(bytes(buffer), dtype=gg.int32).tolist() == [9, 1, 2, 3]
    array = np.arange(3.0)
    gg.asarray(array)[0] = 5
    assert array[0] == 5
    gg.asarray(array, copy=True)[0] = 6
    assert array[0] == 5
    with pytest.raises(ValueError, match="copy"):
        gg.asarray(array, dtype=gg.float32, copy=False)
    x = gg.ones(2, requires_grad=True)
    assert gg.asarray(x) is x and not gg.asarray(x, requires_grad=False).requires_grad


def test_empty_strided(device):
    x = gg.empty_strided((2, 3), (4, 1), device=device)
    x.copy_(gg.tensor(ARRAYS["s"][:2], device=device))
    assert x.stride() == (4, 1) and not x.is_contiguous()
    np.testing.assert_array_equal(x.cpu().to_numpy(), ARRAYS["s"][:2])
    assert x.as_strided((7,), (1,)).shape == (7,)
    with pytest.raises(RuntimeError, match="outside the storage"):
        x.as_strided((8,), (1,))


def test_options_that_change_nothing():
    assert gg.zeros(2, layout=gg.strided, pin_memory=False).tolist() == [0, 0]
    assert gg.zeros(size=(2,)).tolist() == [0, 0]
    assert gg.ones_like(gg.zeros(2), memory_format=gg.preserve_format).tolist() == [1, 1]
    with pytest.raises(TypeError, match="colour"):
        gg.zeros(2, colour="red")
    with pytest.raises(NotImplementedError, match="sparse"):
        gg.zeros(2, layout="sparse_coo")


# -- views made in place -------------------------------------------------------------------------------


def _run(library, make, steps):
    x = make(np.arange(1.0, 7.0).reshape(2, 3), requires_grad=True)
    y = x * 1
    whole, row = y, y[1]
    for step in steps:
        exec(step, {"y": y, "row": row, "T": library})
    weights = make(np.cos(np.arange(y.numel())).reshape(tuple(y.shape)))
    ((y * y * weights).sum() + (row**3).sum()).backward()
    assert y is whole
    return tuple(y.shape), y.detach().numpy(), x.grad.numpy()


IN_PLACE = [
    ("y.t_()",),
    ("y.transpose_(0, 1)", "y.mul_(2)"),
    ("y.swapaxes_(0, -1)", "row.mul_(3)"),
    ("y.swapdims_(0, 1)", "y[0] = 5"),
    ("y.unsqueeze_(1)", "y.squeeze_(1)", "y.t_()", "y.exp_()"),
    ("y.unsqueeze_(0)", "row.add_(1)", "y.squeeze_()"),
    ("y.as_strided_((3, 2), (1, 3))", "y.mul_(y)"),
    ("row.unsqueeze_(0)", "row.t_()", "row.mul_(2)"),
    ("row.as_strided_((3,), (1,), 1)", "row.mul_(2)"),
    ("row.mul_(2)", "y.t_()", "row.mul_(2)", "y.add_(1)"),
]


@pytest.mark.parametrize("steps", IN_PLACE, ids=lambda s: "; ".join(s))
def test_in_place_views_as_pytorch(steps, torch):
    shape, values, gradient = _run(gg, gg.tensor, steps)
    if "y.mul_(y)" in steps:  # PyTorch does not save what it overwrites there
        steps = (*steps[:-1], "y.mul_(y.clone())")
    want = _run(torch, lambda a, **k: parity.to_torch(a, torch, **k), steps)
    assert shape == want[0]
    np.testing.assert_allclose(values, want[1], rtol=1e-12)
    np.testing.assert_allclose(gradient, want[2], rtol=1e-12)


def test_in_place_views_on_each_device(device):
    x = gg.tensor(ARRAYS["x"], device=device, requires_grad=True)
    with pytest.raises(RuntimeError, match="t_: a leaf that requires grad"):
        x.t_()
    y = x * 2
    row = y[0]
    assert y.t_() is y and y.shape == (4, 3)
    row.mul_(3)
    y.sum().backward()
    want = np.full((3, 4), 2.0)
    want[0] = 6.0
    np.testing.assert_allclose(x.grad.cpu().numpy(), want)
    with gg.no_grad():
        z = x * 1
        assert z.unsqueeze_(0).squeeze_(0).t_().shape == (4, 3) and not z.requires_grad


def test_views_of_a_base_that_shows_less_now(device):
    """The view reaches outside the base's new window: no gradient from there, and no memory but its own."""
    x = gg.tensor(ARRAYS["x"], device=device, requires_grad=True)
    y = x * 1
    last = y[2]
    y.as_strided_((2, 2), (4, 1))
    last.mul_(3)
    (y.sum() + last.sum()).backward()
    want = np.zeros((3, 4))
    want[:2, :2] = 1
    np.testing.assert_array_equal(x.grad.cpu().numpy(), want)


def test_views_of_a_base_that_moved(device):
    x, w = gg.zeros(2, 3, device=device), gg.ones(3, device=device, requires_grad=True)
    row = x[0]
    x.resize_(4, 4)
    row.add_(w)
    assert row.requires_grad and not x.requires_grad
    row.sum().backward()
    assert w.grad.tolist() == [1, 1, 1]


def test_resize(device):
    x = gg.tensor(np.arange(6, dtype=np.float32), device=device)
    same = x.detach()
    assert x.resize_(2, 2) is x and x.tolist() == [[0, 1], [2, 3]]
    x[0, 0] = 9
    assert same[0].item() == 9  # smaller: the same memory
    assert x.resize_(6).tolist() == [9, 1, 2, 3, 4, 5]
    x.resize_((3, 3))
    assert x.flatten()[:6].tolist() == [9, 1, 2, 3, 4, 5]
    assert x.resize_as_(gg.zeros(1, 2, device=device)).tolist() == [[9, 1]]
    with pytest.raises(RuntimeError, match="requires grad"):
        gg.ones(2, requires_grad=True).resize_(3)


def test_set(device):
    x, y = gg.zeros(3, device=device), gg.tensor(np.arange(6, dtype=np.float32), device=device)
    assert x.set_(y) is x and x.tolist() == [0, 1, 2, 3, 4, 5]
    x[0] = 7
    assert y[0].item() == 7
    assert x.set_(y, 1, (2, 2), (2, 1)).tolist() == [[1, 2], [3, 4]]
    assert x.set_().shape == (0,)
    with pytest.raises(RuntimeError, match="dtype"):
        x.set_(gg.zeros(2, dtype=gg.int64, device=device))


def test_broadcast_shapes_is_a_size():
    shape = gg.broadcast_shapes((3, 1), (4,), 1)
    assert shape == (3, 4) and isinstance(shape, gg.Size)
