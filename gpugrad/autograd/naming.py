"""What PyTorch calls the node of an operation: ``AddBackward0`` for ``add``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Rows whose call is known by another name there.
_OTHER = {
    "reshape": "View",
    "cast": "ToCopy",
    "matmul": "Mm",
    "linear": "Addmm",
    "matmul_scaled": "Mm",
    "product_sum": "Addmm",
    "square": "Pow",
    "cube": "Pow",
    "clamp_min": "Clamp",
    "clamp_max": "Clamp",
    "power_norm": "LinalgVectorNorm",
    "pad": "ConstantPadNd",
    "cholesky": "LinalgCholeskyEx",
    "inv": "LinalgInvEx",
    "log1p": "Log1P",
    "euclidean_pairs": "Cdist",
    "median_of_all": "Median",
}
_LINALG = frozenset(("det", "eigh", "svd", "qr", "slogdet", "lstsq"))
# Over some dimensions they are another overload than over all.
_BY_DIM = frozenset(("sum", "prod"))


def node_name(title: str, params: Mapping[str, Any], ndim: int) -> str:
    """``title`` (of a row, whose first input has ``ndim`` dimensions) in PyTorch's words. Where this library computes
    with other steps than PyTorch it is the name of the last step."""
    title = title.removesuffix("_fused")
    if title == "accumulate":
        return "AccumulateGrad"
    if title == "slice" and any(isinstance(i, int) for i in params["index"]):
        title = "select"
    camel = _OTHER.get(title) or "".join(part.capitalize() for part in title.split("_"))
    if title in _LINALG:
        camel = "Linalg" + camel
    dim = params.get("dim")
    number = 1 if title in _BY_DIM and isinstance(dim, tuple) and len(dim) < max(ndim, 1) else 0
    return f"{camel}Backward{number}"
