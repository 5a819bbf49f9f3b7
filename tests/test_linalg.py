"""gpugrad.linalg: values, results, errors and derivatives against PyTorch, and against NumPy without it.

The rows of ``gpugrad/ops/factor.py`` and ``orthogonal.py`` are also in tests/test_ops.py, with finite differences on
every device.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.errors import HostTripWarning
from tests import gradients, parity

RNG = np.random.default_rng(5)


def well(*shape):
    """Square matrices far from singular, float32."""
    return (RNG.standard_normal(shape) + 3 * np.eye(shape[-1])).astype(np.float32)


def symmetric(*shape):
    a = RNG.standard_normal(shape).astype(np.float32)
    return a + np.swapaxes(a, -1, -2)


def positive(*shape):
    a = RNG.standard_normal(shape)
    return (a @ np.swapaxes(a, -1, -2) + np.eye(shape[-1])).astype(np.float32)


def some(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


ARRAYS = {
    "a": well(3, 3),
    "b": well(2, 3, 3),
    "c": well(4, 1, 3, 3),
    "s": symmetric(4, 4),
    "t": symmetric(2, 3, 3),
    "p": positive(4, 4),
    "q": positive(2, 3, 3),
    "u": some(5, 3),
    "w": some(3, 5),
    "x": some(3, 2),
    "y": some(2, 3, 4),
    "v": some(3),
    "z": np.zeros((3, 3), np.float32),
    "e": np.zeros((0, 0), np.float32),
    "f": np.zeros((0, 3, 3), np.float32),
    "g": np.zeros((2, 0, 3), np.float32),
    "h": well(3, 3).astype(np.float16),
    "i": np.arange(9).reshape(3, 3),
    "d": well(3, 3).astype(np.float64),
    "r": np.outer([1.0, 2, 3], [2.0, -1, 0.5]).astype(np.float32),
    "n": np.array([[np.nan, 1], [1, 1]], np.float32),
    "m": some(4, 6, 8, 3),
}

VALUES = """
ldl_factor(s); ldl_factor(t); ldl_factor_ex(b); ldl_factor_ex(z); ldl_factor(e); ldl_solve(*L.ldl_factor(s), p)
ldl_solve(*L.ldl_factor(t), x); ldl_factor(s, hermitian=True)
inv(a); inv(b); inv(c); inv(e); inv(f); inv(a.T); inv(d); inv_ex(b); inv_ex(a, check_errors=True); det(a); det(b)
det(e); det(f); det(z); det(r.double()); slogdet(a); slogdet(b); slogdet(z); slogdet(e); solve(a, v); solve(a, x)
solve(b, x); solve(b, v); solve(c, b); solve(a, x.T, left=False); solve(b, y[:, :, :3])
solve(b, x[:2] @ x[:1, :].T @ v.unsqueeze(0)); solve(f, v); solve_ex(b, x); solve_triangular(a, x, upper=True)
solve_triangular(b, x, upper=False); solve_triangular(c, y, upper=True)
solve_triangular(a, x.T, upper=True, left=False); solve_triangular(b, x, upper=False, unitriangular=True)
solve_triangular(f, x, upper=True); solve_triangular(e, e, upper=True); cholesky(p); cholesky(q)
cholesky(p, upper=True); cholesky(e); cholesky_ex(q); cholesky_ex(p, upper=True); qr(u); qr(w); qr(b)
qr(u, mode='complete'); qr(w, 'complete'); qr(u, mode='r'); qr(g); qr(e); qr(g.mT, 'complete'); svdvals(u); svdvals(w)
svdvals(y); svdvals(g); svd(g); svd(g, full_matrices=False); svd(e); eigvalsh(s); eigvalsh(t.mT)
eigvalsh(s[::2, ::2]); eigvalsh(t, UPLO='U'); eigvalsh(e); eigvalsh(a); eigvalsh(a, 'U'); eigh(e); eigh(f); lu(a)
lu(u); lu(w); lu(b); lu(z); lu_factor(a); lu_factor(u); lu_factor(w); lu_factor(f); lu_factor_ex(b); lu_factor_ex(z)
lu_solve(*L.lu_factor(a), x); lu_solve(*L.lu_factor(b), x); lu_solve(*L.lu_factor(c), y)
lu_solve(*L.lu_factor(a), x, adjoint=True); lu_solve(*L.lu_factor(a), x.T, left=False)
lu_solve(*L.lu_factor(b), x.T, left=False, adjoint=True); pinv(u); pinv(w); pinv(y); pinv(r); pinv(s, hermitian=True)
pinv(u, 1e-3); pinv(y, rtol=0.5); pinv(g); pinv(b, atol=2.0); pinv(y, rtol=v[:2].abs() / 4)
pinv(t, rcond=0.3, hermitian=True); matrix_rank(a); matrix_rank(r); matrix_rank(z); matrix_rank(y); matrix_rank(g)
matrix_rank(e); matrix_rank(s, hermitian=True); matrix_rank(u, 1.5); matrix_rank(u, tol=1.5)
matrix_rank(y, atol=1.0, rtol=0.1); matrix_rank(y, atol=v[:2].abs()); cond(a); cond(u); cond(b, 2); cond(y, -2)
cond(b, 1); cond(b, -1); cond(b, inf); cond(b, -inf); cond(b, 'fro'); cond(b, 'nuc'); cond(z, 1); cond(e); cond(f, 1)
vector_norm(u); vector_norm(u, 1); vector_norm(u, 3, dim=0); vector_norm(u, inf)
vector_norm(u, -inf, dim=1, keepdim=True); vector_norm(u, 0); vector_norm(y, 0.5, dim=(0, 2)); vector_norm(u, -1)
vector_norm(h); vector_norm(h, 3); vector_norm(h, dtype=T.float32); vector_norm(v.sum()); vector_norm(g, 2, dim=1)
vector_norm(g, 1); vector_norm(u, dim=()); matrix_norm(u); matrix_norm(y, 'nuc'); matrix_norm(y, inf)
matrix_norm(y, -inf); matrix_norm(y, 1); matrix_norm(y, -1); matrix_norm(y, 2); matrix_norm(y, -2)
matrix_norm(y, 2, dim=(0, 2)); matrix_norm(y, 'nuc', dim=(2, 0), keepdim=True)
matrix_norm(y, 1, dim=(0, 1), keepdim=True); matrix_norm(g); matrix_norm(g, 1); matrix_norm(g, inf); matrix_norm(g, 2)
matrix_norm(g, 'nuc'); matrix_norm(h, 1); matrix_norm(u, dtype=T.float64); norm(u); norm(y); norm(u, 'fro')
norm(u, 'nuc'); norm(u, 2); norm(u, 1, dim=0); norm(y, dim=(0, 1)); norm(y, 1, dim=(0, 2)); norm(v, 3); norm(v, inf)
norm(u, keepdim=True); norm(u, 2, keepdim=True); norm(v, ord=0); norm(u, dtype=T.float64); norm(v.sum())
matrix_power(a, 0); matrix_power(a, 1); matrix_power(a, 5); matrix_power(b, -2); matrix_power(i, 3)
matrix_power(f, 2); matrix_exp(a); matrix_exp(b); matrix_exp(a * 4); matrix_exp(z); matrix_exp(e); matrix_exp(f)
matrix_exp(d); matrix_exp(b * 1e-3); matrix_exp(T.stack((a, a * 1e-4, a * 5))); matrix_exp(-s * 4)
multi_dot([a, u.T, u]); multi_dot([v, a, v]); multi_dot([v, a]); multi_dot((a, v)); multi_dot([w, u, x, x.T, a])
cross(v, v.flip(0)); cross(b, y[:, :, :3]); cross(u, w.T); cross(i, i.flip(0)); cross(x, x.flip(1), dim=0)
cross(a[:1], a); vecdot(u, w.T); vecdot(a, v); vecdot(x, x, dim=0); vander(v); vander(v, N=5); vander(x)
vander(i, N=2); vander(v.double()); diagonal(y); diagonal(y, offset=1); diagonal(y, dim1=0, dim2=1); matmul(a, x)
tensorinv(m); tensorinv(m.reshape(24, 8, 3), ind=1); tensorsolve(m, w.new_ones(4, 6))
tensorsolve(m.permute(0, 2, 1, 3), w.new_ones(4, 6), dims=(1, 3)); householder_product(*T.geqrf(u))
householder_product(*T.geqrf(b)); householder_product(u, v[:2].abs()); lstsq(u, u @ x); lstsq(u, w.T[:, 0])
lstsq(u, w.T, driver='gels'); lstsq(u, w.T, driver='gelsd'); lstsq(y, y @ y.mT)
lstsq(y.mT, b.new_ones(2, 4, 2), driver='gelss'); lstsq(r, x, rcond=1e-5); lstsq(r, x, driver='gelsd', rcond=1e-5)
"""

ERRORS = """
ldl_factor(u); ldl_factor(i); ldl_factor(h); ldl_factor(z); ldl_solve(*L.ldl_factor(t), v); ldl_solve(a, v[:2], x)
inv(v); inv(u); inv(z); inv(b * 0); inv(i); inv(h); inv(5); inv(v.sum()); inv_ex(z, check_errors=True); det(u); det(v)
det(i); slogdet(u); slogdet(h); solve(z, v); solve(a, w); solve(a, v.double()); solve(u, v); solve(b, y[:, :2])
solve(a, v, left=False); solve(c[:, 0], b); solve(a, v.sum()); solve_triangular(a, v, upper=True)
solve_triangular(a, x); solve_triangular(u, x, upper=True); solve_triangular(h, h, upper=True); cholesky(s)
cholesky(u); cholesky(i); cholesky(-q); cholesky(n); cholesky_ex(s, check_errors=True); qr(u, mode='full'); qr(v)
qr(i); svd(v); svd(n); svd(i); svd(h); svdvals(n); eigh(u); eigh(a, 'X'); eigh(i); eigvalsh(h); eig(u); lu(v); lu(h)
lu(i); lu_factor(z); lu_factor_ex(z, check_errors=True); lu_solve(*L.lu_factor(a), v); lu_solve(u, v, x)
lu_solve(a, T.ones(3), x); pinv(v); pinv(i); pinv(h); matrix_rank(v); matrix_rank(i); cond(v); cond(u, 1); cond(a, 3)
cond(a, 'x'); vector_norm(i); vector_norm(u, 'fro'); vector_norm(u, dim=(0, 0)); vector_norm(u, dim=4)
vector_norm(g, inf, dim=1); vector_norm(g, -1); vector_norm(u, dtype=T.int64); vector_norm(u, dtype=T.float16)
matrix_norm(v); matrix_norm(u, 3); matrix_norm(u, 'f'); matrix_norm(u, dim=(0, 0)); matrix_norm(u, dim=(0,))
matrix_norm(u, dim=0); matrix_norm(h, 2); matrix_norm(i); norm(y, 2); norm(y, 2, dim=(0, 1, 2)); norm(v, 'fro')
norm(v, 'nuc'); norm(u, 0); norm(i); norm(u, 'fro', dim=0); norm(u, dim=[]); norm(v.sum(), 2); matrix_power(u, 2)
matrix_power(v, 2); matrix_power(a, 1.5); matrix_power(z, -1); matrix_power(i, -1); matrix_exp(u); matrix_exp(i)
matrix_exp(v); multi_dot([a]); multi_dot([a, u]); multi_dot([a, v, a]); multi_dot(b); multi_dot([a, d]); cross(v, u)
cross(w, w); cross(v, v.double()); vecdot(i, i); vecdot(v, d); vecdot(v, u); vander(v, N=1); vander(h)
vander(v.sum()); vander(v[:1]); householder_product(w, v); householder_product(u, w[0]); householder_product(b, v)
tensorinv(m, ind=3); tensorinv(m, ind=0); tensorsolve(m, v); tensorsolve(w, v); lstsq(u, x); lstsq(u, u, driver='qr')
lstsq(v, v); lstsq(i, i)
"""

CLASSIC = """
T.inverse(a); b.inverse(); T.det(b); a.det(); T.slogdet(b); a.slogdet(); T.logdet(q); T.logdet(-z - 1 + 0 * z)
p.logdet(); T.logdet(z); T.logdet(-a); T.cholesky(p); q.cholesky(True); T.cholesky_inverse(p)
T.cholesky_inverse(q, upper=True); T.cholesky_solve(x, a); x.cholesky_solve(b, True); T.cholesky_solve(y, a); T.qr(u)
u.qr(some=False); T.svd(u)[1]; T.svd(w, some=False)[1]; T.svd(u, compute_uv=False); T.svd(g); T.pinverse(u)
u.pinverse(1e-3); T.matrix_power(a, 3); a.matrix_power(-1); T.matrix_exp(a); b.matrix_exp()
T.lu_solve(x, *T.linalg.lu_factor(a)); x.lu_solve(*T.linalg.lu_factor(b)); T.lu_unpack(*T.linalg.lu_factor(u))
T.lu_unpack(*T.linalg.lu_factor(b)); T.lu_unpack(*T.linalg.lu_factor(w), unpack_data=False)
T.lu_unpack(*T.linalg.lu_factor(w), unpack_pivots=False); T.geqrf(u); T.geqrf(w); T.geqrf(g); b.geqrf()
T.orgqr(*T.geqrf(u)); T.ormqr(*T.geqrf(u), u); T.ormqr(*T.geqrf(u), w, left=False)
T.ormqr(*T.geqrf(u), u, transpose=True); T.ormqr(*T.geqrf(u), w, False, True); T.norm(u, 'nuc')
y.norm('nuc', dim=(0, 1)); T.norm(u, 'nuc', dim=1); T.inverse(z); T.cholesky(s); T.cholesky_inverse(z)
T.cholesky_solve(v, a); T.ormqr(*T.geqrf(u), w); T.logdet(u); T.lu_unpack(a, T.arange(1, 4)); T.inverse(i)
T.inverse(h); T.svd(v); T.qr(i); T.pinverse(v); a.matrix_power(1.5)
"""


def listed(text):
    return [line.strip() for line in text.replace("\n", ";").split(";") if line.strip()]


@pytest.mark.parametrize("expression", listed(VALUES) + listed(ERRORS))
def test_as_pytorch(expression, device, torch):
    if device == "pretend" and any(word in expression for word in ("(d", " d]", "(d,", "d)", "double", "float64")):
        pytest.skip("no float64 there")
    text = f"T.linalg.{expression}".replace("L.", "T.linalg.")
    loose = expression.startswith(("matrix_exp", "pinv", "tensor", "lstsq", "cond", "matrix_power"))
    parity.check(text, ARRAYS, torch, device, rtol=2e-4 if loose else 5e-5, atol=2e-5)


@pytest.mark.filterwarnings("ignore:.*deprecated.*:UserWarning")  # PyTorch's own
@pytest.mark.parametrize("expression", listed(CLASSIC))
def test_classic_names_as_pytorch(expression, torch):
    parity.check(expression, ARRAYS, torch, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["u", "w", "y", "r", "b"])
def test_factors_multiply_back(name, device):
    """Signs of singular vectors differ between LAPACKs; products do not."""
    a = ARRAYS[name]
    x = gg.tensor(a, device=device)
    for full in (True, False):
        u, s, vh = gg.linalg.svd(x, full_matrices=full)
        k = min(a.shape[-2:])
        product = (u[..., :k] * s[..., None, :]) @ vh[..., :k, :]
        np.testing.assert_allclose(product.cpu().numpy(), a, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose((vh @ vh.mT).cpu().numpy() - np.eye(vh.shape[-2]), 0, atol=1e-5)
    q, r = gg.linalg.qr(x)
    np.testing.assert_allclose((q @ r).cpu().numpy(), a, rtol=1e-4, atol=1e-5)
    p, lower, upper = gg.linalg.lu(x)
    np.testing.assert_allclose((p @ lower @ upper).cpu().numpy(), a, rtol=1e-4, atol=1e-5)


def test_eigenvectors(device):
    a = ARRAYS["t"]
    values, vectors = gg.linalg.eigh(gg.tensor(a, device=device))
    expected = np.linalg.eigh(a)
    np.testing.assert_allclose(values.cpu().numpy(), expected[0], rtol=1e-4, atol=1e-5)
    v = vectors.cpu().numpy()
    np.testing.assert_allclose(v * values.cpu().numpy()[..., None, :], a @ v, rtol=1e-4, atol=1e-5)
    values, vectors = gg.linalg.eig(gg.tensor(ARRAYS["q"], device=device))
    v = vectors.cpu().numpy()
    np.testing.assert_allclose(v * values.cpu().numpy()[..., None, :], ARRAYS["q"] @ v, rtol=1e-3, atol=1e-4)
    with pytest.raises(NotImplementedError, match="eigh"):
        gg.linalg.eigvals(gg.tensor([[0.0, 1.0], [-1.0, 0.0]], device=device))


@pytest.mark.parametrize("shape", [(40, 40), (3, 70, 70), (2, 70, 45), (45, 70)])
def test_blocked_lu_and_substitution(shape):
    """Larger than the blocks of our own LU and triangular solution."""
    a = RNG.standard_normal(shape)
    p, lower, upper = gg.linalg.lu(gg.tensor(a))
    np.testing.assert_allclose((p @ lower @ upper).numpy(), a, atol=1e-12)
    assert np.abs(lower.numpy()).max() <= 1
    k = min(shape[-2:])
    t = a[..., :k, :k] + 20 * np.eye(k)
    b = RNG.standard_normal((k, 3))
    for upper_ in (True, False):
        x = gg.linalg.solve_triangular(gg.tensor(t), gg.tensor(b), upper=upper_).numpy()
        np.testing.assert_allclose((np.triu(t) if upper_ else np.tril(t)) @ x - b, 0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 9, 20])
def test_ldl(n, torch):
    """Pivots of both sizes: a zero diagonal asks for blocks of 2."""
    for diagonal in (1, 0):
        a = symmetric(3, n, n).astype(np.float64)
        a *= 1 - (1 - diagonal) * np.eye(n) * (n > 1)
        packed, pivots = gg.linalg.ldl_factor(gg.tensor(a))
        wanted = torch.linalg.ldl_factor(torch.from_numpy(a))
        assert pivots.tolist() == wanted.pivots.tolist()
        np.testing.assert_allclose(np.tril(packed.numpy()), np.tril(wanted.LD.numpy()), rtol=1e-9, atol=1e-10)
        b = gg.tensor(RNG.standard_normal((n, 2)), requires_grad=True)
        x = gg.linalg.ldl_solve(packed, pivots, b)
        np.testing.assert_allclose(a @ x.detach().numpy() - b.detach().numpy(), 0, atol=1e-9)
        x.sum().backward()
        np.testing.assert_allclose(b.grad.numpy(), np.linalg.inv(a).sum((0, 1))[:, None] * [1, 1], rtol=1e-7, atol=1e-8)


def test_lu_without_pivots():
    a = gg.tensor(ARRAYS["a"].astype(np.float64))
    empty, lower, upper = gg.linalg.lu(a, pivot=False)
    assert empty.numel() == 0
    np.testing.assert_allclose((lower @ upper).numpy(), ARRAYS["a"], atol=1e-12)
    assert gg.linalg.lu_factor(a, pivot=False).pivots.tolist() == [1, 2, 3]


# -- derivatives ------------------------------------------------------------------------------------

#: float64 inputs of derivatives; expressions with S make their input symmetric themselves
FIRST = {k: ARRAYS[k].astype(np.float64) for k in "abcstpquwxyvdr"}
SYM = "(p + p.mT)"
SMOOTH = f"""
inv(a); inv(c); det(a); det(b); slogdet(b)[1]; solve(a, v); solve(b, x); solve(c, b); solve(a, x.T, left=False)
solve_triangular(a, x, upper=True); solve_triangular(c, b, upper=False)
solve_triangular(a, x.T, upper=True, left=False); solve_triangular(b, x, upper=True, unitriangular=True)
cholesky({SYM}); cholesky({SYM}, upper=True); cholesky(p); cholesky(q); qr(u)[0]; qr(u)[1]; qr(w)[0]; qr(w)[1]
qr(b)[1]; qr(a, mode='complete')[0]; qr(w, mode='complete')[1]; svdvals(u); svdvals(w); svdvals(y); svd(u)[1]
svd(w, full_matrices=False)[1]; eigvalsh({SYM}); eigvalsh(q); eigh(p)[0]; eigh(p, 'U')[1] ** 2; eigh(t)[1] ** 2
svd(u, full_matrices=False)[0] ** 2; svd(w, full_matrices=False)[2] ** 2; svd(b)[0] ** 2; svd(w)[0] ** 2
svd(y, False)[0] @ svd(y, False)[2]; lu_factor(a)[0]; lu_factor(u)[0]; lu_factor(w)[0]; lu(b)[1]; lu(b)[2]
lu_solve(*lu_factor(a), x); lu_solve(*lu_factor(b), x, adjoint=True); lu_solve(*lu_factor(a), x.T, left=False)
pinv(u); pinv(w); pinv(b); pinv(p + p.mT, hermitian=True); lstsq(u, w.T)[0]; lstsq(u, w.T, driver='gels')[0]; cond(a)
cond(u, -2); vector_norm(u); vector_norm(u, 3, dim=0); vector_norm(u, 1.5); vector_norm(u, inf, dim=1); matrix_norm(y)
matrix_norm(y, 'nuc'); matrix_norm(y, 2); matrix_norm(y, -2); matrix_norm(y, 1); matrix_norm(y, -inf); norm(u, 'nuc')
matrix_power(a, 3); matrix_power(b, -2); matrix_exp(a); matrix_exp(b); matrix_exp(a * 3); multi_dot([w, u, x, x.T, a])
cross(a, b[0]); vecdot(a, v); vander(v, N=4); tensorsolve(a.reshape(3, 1, 3), v.reshape(3, 1))
"""


def both_ways(expression, torch, order):
    """The first or second gradients of a weighted sum, by gpugrad and by PyTorch."""
    import re

    found = []
    names = [k for k in FIRST if re.search(rf"\b{k}\b", expression)]
    text = re.sub(r"\b([a-z_]{2,})\(", lambda m: f"T.linalg.{m[1]}(", expression)
    text = text.replace(".T.linalg.reshape", ".reshape")
    for library, make in ((gg, gg.tensor), (torch, lambda x: parity.to_torch(x, torch))):
        leaves = [make(FIRST[k]).requires_grad_() for k in names]
        out = eval(text, {"T": library, "inf": float("inf"), **dict(zip(names, leaves, strict=True))})
        weights = make(np.cos(1.0 + np.arange(out.numel(), dtype=np.float64)).reshape(tuple(out.shape)))
        grads = library.autograd.grad((out * weights).sum(), leaves, create_graph=order == 2)
        if order == 2:
            total = sum((g * make(np.sin(1.0 + np.arange(g.numel())).reshape(tuple(g.shape)))).sum() for g in grads)
            grads = library.autograd.grad(total, leaves, allow_unused=True)
        found.append([g if g is None else _ndarray(g) for g in grads])
    return found


def _ndarray(g):
    return g.numpy(force=True) if type(g).__module__ == "torch" else g.detach().numpy()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("expression", listed(SMOOTH))
def test_gradients_as_pytorch(expression, order, torch):
    for got, want in zip(*both_ways(expression, torch, order), strict=True):
        if got is None or want is None:
            rest = got if want is None else want
            assert rest is None or not np.any(rest)
        else:
            np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-8 * max(1.0, np.abs(want).max()))


def _symmetrised(function):
    return lambda x: function((x + x.mT) / 2)


SYMMETRIC = {
    "cholesky": lambda x: gg.linalg.cholesky(x @ x.mT + gg.eye(x.shape[-1], dtype=gg.float64)),
    "eigh_values": _symmetrised(lambda x: gg.linalg.eigh(x)[0]),
    "eigh_vectors": _symmetrised(lambda x: gg.linalg.eigh(x)[1] ** 2),
    "eigh_both": _symmetrised(lambda x: (gg.linalg.eigh(x)[1] ** 2) @ gg.linalg.eigh(x, "U")[0].unsqueeze(-1)),
    "eigvalsh": _symmetrised(gg.linalg.eigvalsh),
    "pinv": _symmetrised(lambda x: gg.linalg.pinv(x, hermitian=True)),
    "svd": lambda x: gg.linalg.svd(x)[0] ** 2 @ gg.linalg.svd(x)[2] ** 2,
    "low_rank_pinv": lambda x: gg.linalg.pinv(x[..., :1] @ x[..., 1:2].mT, rtol=1e-8),
    "cond": lambda x: gg.linalg.cond(x, "fro") + gg.linalg.cond(x, 1) + gg.linalg.cond(x, "nuc"),
    "slogdet": lambda x: gg.linalg.slogdet(x)[1],
    "lstsq": lambda x: gg.linalg.lstsq(x[..., :2], x[..., 2:], driver="gels")[1],
    "householder": lambda x: gg.linalg.householder_product(x, x[..., 0, :2]),
    "ormqr": lambda x: gg.ormqr(x, x[..., 0, :2], x, transpose=True),
}


@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3)])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_derivatives_by_finite_differences(name, shape):
    a = np.random.default_rng(3).standard_normal(shape)
    gradients.check_first(SYMMETRIC[name], [a], rtol=1e-4, atol=1e-6)
    gradients.check_second(SYMMETRIC[name], [a], rtol=2e-3, atol=2e-5)


def test_derivative_of_a_singular_determinant():
    """The cofactors, which PyTorch takes to be zero."""
    gradients.check_first(gg.linalg.det, [FIRST["r"]])
    singular = np.array([[1.0, 2, 3], [4, 5, 6], [5, 7, 9]])
    gradients.check_first(gg.linalg.det, [np.stack([singular, FIRST["a"]])])
    gradients.check_second(gg.linalg.det, [np.array([[1.0, 2], [2, 4]])])
    x = gg.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=gg.float64, requires_grad=True)
    gg.linalg.det(x).backward()
    np.testing.assert_allclose(x.grad.numpy(), [[4, -2], [-2, 1]], atol=1e-12)
    zero = gg.zeros(3, 3, requires_grad=True)
    gg.linalg.det(zero).backward()
    assert not zero.grad.numpy().any()


def test_derivatives_that_do_not_exist():
    x = gg.tensor(ARRAYS["u"], requires_grad=True)
    with pytest.raises(RuntimeError, match="reduced"):
        gg.linalg.qr(x, mode="complete").Q.sum().backward()
    with pytest.raises(RuntimeError, match="reduced"):
        gg.linalg.qr(x, mode="r").R.sum().backward()
    q, r = gg.linalg.qr(x)
    q.detach().mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        r.sum().backward()
    s = gg.linalg.svd(x).S.sum()
    s.backward()
    with pytest.raises(RuntimeError, match="retain_graph"):
        s.backward()


# -- results, devices ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "fields"),
    [
        ("slogdet(a)", "sign logabsdet"),
        ("inv_ex(a)", "inverse info"),
        ("solve_ex(a, v)", "result info"),
        ("cholesky_ex(p)", "L info"),
        ("qr(a)", "Q R"),
        ("svd(a)", "U S Vh"),
        ("eigh(a)", "eigenvalues eigenvectors"),
        ("eig(p)", "eigenvalues eigenvectors"),
        ("lu(a)", "P L U"),
        ("lu_factor(a)", "LU pivots"),
        ("lu_factor_ex(a)", "LU pivots info"),
        ("lstsq(a, x)", "solution residuals rank singular_values"),
    ],
)
def test_named_results(call, fields):
    result = eval(f"L.{call}", {"L": gg.linalg, **{k: gg.tensor(v) for k, v in ARRAYS.items()}})
    assert result._fields == tuple(fields.split())
    assert type(result).__name__ == "linalg_" + call.partition("(")[0]


def test_singular_members_of_a_batch(device):
    """The error names the first of them; the _ex forms compute the rest."""
    a = np.stack([np.eye(3), np.ones((3, 3)), 2 * np.eye(3)]).astype(np.float32)
    x = gg.tensor(a, device=device)
    with pytest.raises(gg.linalg.LinAlgError, match=r"\(1,\)"):
        gg.linalg.inv(x)
    inverse, info = gg.linalg.inv_ex(x)
    assert info.tolist() == [0, 2, 0]
    np.testing.assert_allclose(inverse[2].cpu().numpy(), np.eye(3) / 2)
    factor, info = gg.linalg.cholesky_ex(gg.tensor(np.stack([4 * np.eye(3), -a[0]]).astype(np.float32), device=device))
    assert info.tolist() == [0, 1]
    np.testing.assert_allclose(factor[0].cpu().numpy(), 2 * np.eye(3))
    assert issubclass(gg.linalg.LinAlgError, RuntimeError)


def test_out(torch):
    x, y = gg.tensor(ARRAYS["a"]), gg.empty(0)
    assert gg.linalg.inv(x, out=y) is y
    np.testing.assert_allclose(y.numpy(), np.linalg.inv(ARRAYS["a"]), rtol=1e-4)
    q, r = gg.empty(0), gg.empty(0)
    gg.linalg.qr(x, out=(q, r))
    np.testing.assert_allclose((q @ r).numpy(), ARRAYS["a"], rtol=1e-4, atol=1e-6)


def test_a_trip_through_the_host_is_announced_once():
    """In a process of its own, as it is said once per process."""
    code = (
        "import warnings, gpugrad as gg\n"
        "from tests import pretend\n"
        "from gpugrad.errors import HostTripWarning\n"
        "pretend.register()\n"
        "x = gg.eye(2, device='pretend')\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    gg.linalg.inv(x); gg.linalg.inv(x); gg.linalg.qr(x); gg.linalg.inv(gg.eye(2))\n"
        "assert [w.category for w in seen] == [HostTripWarning] * 2, seen\n"
        "assert 'inv' in str(seen[0].message) and 'pretend' in str(seen[0].message), seen[0].message\n"
        "assert seen[0].filename == '<string>', seen[0].filename\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert issubclass(HostTripWarning, UserWarning)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (2, 12, 9)])
def test_low_rank(shape, device):
    """Of a matrix of rank 3, three random vectors find everything."""
    a = (some(*shape[:-1], 3) @ some(*shape[:-2], 3, shape[-1])).astype(np.float32)
    x = gg.tensor(a, device=device)
    u, s, v = gg.svd_lowrank(x, 4)
    np.testing.assert_allclose(((u * s[..., None, :]) @ v.mT).cpu().numpy(), a, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(s.cpu().numpy()[..., :3], np.linalg.svd(a, compute_uv=False)[..., :3], rtol=1e-4)
    u, s, v = gg.pca_lowrank(x, 5)
    centred = a - a.mean(-2, keepdims=True)
    np.testing.assert_allclose(((u * s[..., None, :]) @ v.mT).cpu().numpy(), centred, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="pca_lowrank"):
        gg.pca_lowrank(x, 100)


# -- programs -----------------------------------------------------------------------------------------


def regression(T, x, y):
    """Coefficients of a linear model, and its error."""
    design = T.cat((x, T.ones_like(x[:, :1])), 1)
    fit = T.linalg.lstsq(design, y, driver="gelsd")
    return fit.solution, fit.residuals, fit.rank


def principal_components(T, x, y):
    """Variances along the principal axes, and the part of x in the plane of the first two."""
    centred = x - x.mean(0)
    u, s, vh = T.linalg.svd(centred, full_matrices=False)
    return s**2 / (x.shape[0] - 1), (u[:, :2] * s[:2]) @ vh[:2]


def gaussian_process(T, x, y):
    """Minus the log marginal likelihood under a squared exponential covariance."""
    gap = x.unsqueeze(1) - x.unsqueeze(0)
    covariance = T.exp(-(gap**2).sum(-1) / 2) + 0.1 * T.eye(x.shape[0], dtype=x.dtype)
    factor = T.linalg.cholesky(covariance)
    weights = T.cholesky_solve(y, factor)
    return 0.5 * (y * weights).sum(), factor.diagonal().log().sum()


def mahalanobis(T, x, y):
    """Squared distances from the mean, in units of the covariance."""
    centred = x - x.mean(0)
    factor = T.linalg.cholesky(centred.T @ centred / x.shape[0])
    return (T.linalg.solve_triangular(factor, centred.T, upper=False) ** 2).sum(0)


def gaussian_entropy(T, x, y):
    """Of the normal distribution with the covariance of x; and a matrix logarithm through eigenvectors."""
    covariance = x.T @ x / x.shape[0] + T.eye(x.shape[1], dtype=x.dtype)
    values, vectors = T.linalg.eigh(covariance)
    return 0.5 * T.logdet(covariance), (vectors * values.log()) @ vectors.mT, T.matrix_exp(-covariance)


PROGRAMS = [regression, principal_components, gaussian_process, mahalanobis, gaussian_entropy]


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs(program, torch):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((12, 3)), rng.standard_normal((12, 1))
    results = []
    for library, make in ((gg, gg.tensor), (torch, lambda a: parity.to_torch(a, torch))):
        leaves = [make(x).requires_grad_(), make(y).requires_grad_()]
        out = program(library, *leaves)
        out = out if isinstance(out, tuple) else (out,)
        total = sum(t.sum() * (i + 1) for i, t in enumerate(out) if t.requires_grad and not _residual(program, i))
        grads = library.autograd.grad(total, leaves, allow_unused=True)
        results.append([*out, *(g for g in grads if g is not None)])
    assert len(results[0]) == len(results[1])
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-8, atol=1e-9)


def _residual(program, i):
    return program is regression and i == 1  # differentiable here, not in PyTorch


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_on_devices(program, device):
    rng = np.random.default_rng(2)
    x, y = (rng.standard_normal(s).astype(np.float32) for s in ((12, 3), (12, 1)))
    here = program(gg, gg.tensor(x), gg.tensor(y))
    with gg.device(device):
        there = program(gg, gg.tensor(x), gg.tensor(y))
    pairs = zip(here, there, strict=True) if isinstance(here, tuple) else [(here, there)]
    for a, b in pairs:
        assert b.device.type == device
        np.testing.assert_allclose(b.cpu().numpy(), a.numpy(), rtol=2e-3, atol=1e-4)
