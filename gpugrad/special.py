"""Special functions, as ``torch.special`` has them, on every device.

Elementwise; integers are promoted to the default floating dtype. Differentiable, twice and more, but for the first
arguments of :func:`gammainc`, :func:`gammaincc` and :func:`zeta`, and :func:`airy_ai`.
"""

from __future__ import annotations

from gpugrad import arguments
from gpugrad.ops import elementwise, fused, polynomials, reductions, special_functions

_NAMES = {
    elementwise: "erf erfc exp2 expm1 log1p round",
    fused: "log_softmax softmax",
    reductions: "logsumexp",
    special_functions: "airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 digamma entr erfcx erfinv expit gammainc "
    "gammaincc gammaln i0 i0e i1 i1e log_ndtr logit modified_bessel_i0 modified_bessel_i1 modified_bessel_k0 "
    "modified_bessel_k1 multigammaln ndtr ndtri polygamma psi scaled_modified_bessel_k0 "
    "scaled_modified_bessel_k1 sinc spherical_bessel_j0 xlog1py xlogy zeta",
    polynomials: "chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v chebyshev_polynomial_w "
    "hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l legendre_polynomial_p "
    "shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v "
    "shifted_chebyshev_polynomial_w",
}

for _module, _names in _NAMES.items():
    for _name in _names.split():
        globals()[_name] = arguments.function(_name, getattr(_module, _name), True)

__all__ = [_name for _names in _NAMES.values() for _name in _names.split()]
