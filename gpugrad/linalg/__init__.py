"""Linear algebra, as ``torch.linalg`` has it, on every device.

The matrices are the last two dimensions, float32 or float64; dimensions before them are a batch. ``cpu`` computes by
LAPACK through NumPy. A device that has no routine for a factorization goes through the host and says so once with a
:class:`gpugrad.errors.HostTripWarning`. Everything is differentiable, twice and more, unless its text says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpugrad import arguments
from gpugrad.errors import LinAlgError
from gpugrad.linalg import decompositions, norms, products, solvers

_NAMES = {
    decompositions: "cholesky cholesky_ex eig eigh eigvals eigvalsh householder_product ldl_factor "
    "ldl_factor_ex ldl_solve lu lu_factor lu_factor_ex qr svd svdvals",
    norms: "cond det matrix_norm norm slogdet vector_norm",
    products: "cross diagonal matmul matrix_exp matrix_power multi_dot vander vecdot",
    solvers: "inv inv_ex lstsq lu_solve matrix_rank pinv solve solve_ex solve_triangular tensorinv tensorsolve",
}

#: their ``out=`` may have another floating dtype than the result
_CONVERT_TO_OUT = "cond householder_product lstsq matrix_power matrix_rank pinv tensorinv tensorsolve".split()

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The functions below, for type checkers."""


for _module, _names in _NAMES.items():
    for _name in _names.split():
        globals()[_name] = arguments.function(
            _name, getattr(_module, _name), _name != "diagonal", _name not in _CONVERT_TO_OUT, "linalg_" + _name
        )

__all__ = ["LinAlgError"]
__all__ += [_name for _names in _NAMES.values() for _name in _names.split()]
