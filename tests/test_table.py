"""How rows are declared, and what a call keeps of its inputs."""

from __future__ import annotations

import pytest

import gpugrad as gg
from gpugrad.errors import DeviceError
from gpugrad.ops import OPS

#: rows that users reach through another one, which has the samples, or whose results samples cannot be compared with
BEHIND_OTHERS = set(
    """overwrite to_device gelu_exact gelu_exact_backward gelu_tanh gelu_tanh_backward silu_value silu_backward spread
    softmax_fused log_softmax_fused cross_entropy_fused matmul_scaled product_sum attention_fused as_strided place pick
    diagonal_scatter_into_zeros as_strided_scatter wrap_index wrap_take index_add_into_zeros power_norm euclidean_pairs
    as_probability as_weight layer_norm_fused rms_norm_fused add_layer_norm_fused add_rms_norm_fused batch_norm_fused
    nextafter multinomial_weight multinomial_total standard_deviation median_of_all airy_ai poisson_rate max_pool_grad
    cholesky eigh eigvalsh ldl_factor ldl_solve""".split()
)
#: compositions without a gradient: of places, counts and comparisons
STEPS = set(
    "count_nonzero isclose mode searchsorted bucketize unique unique_consecutive isin bincount histc histogram".split()
)


def test_what_users_call_has_samples():
    """Most tests are drawn from the samples of the rows: one that lost its own would pass them all."""
    bare = {name for name, op in OPS.items() if not op.samples and op.function.__module__.startswith("gpugrad.")}
    assert bare <= BEHIND_OTHERS, bare - BEHIND_OTHERS


def test_compositions_have_gradients_unless_they_say_otherwise():
    ours = [op for op in OPS.values() if op.kind == "composite" and op.function.__module__.startswith("gpugrad.")]
    assert {op.name for op in ours if not op.differentiable} == STEPS


@pytest.mark.parametrize(("needed", "key"), [((True, False), 1), ((False, True), 2), ((True, True), 3)])
def test_the_plan_of_a_call_follows_its_edges(needed, key):
    """Of a product, an input is kept for the other's gradient alone."""
    op = OPS["matmul"]
    plan = op.plan([object() if n else None for n in needed])
    assert plan is op.plans[key]
    assert sorted(plan.saves) == sorted(1 - i for i, n in enumerate(needed) if n)


def test_rows_refuse_operands_of_two_devices():
    x, y = gg.ones(2, 2), gg.ones(2, 2, device="pretend")
    with pytest.raises(DeviceError, match="product_sum: operands are on different devices"):
        OPS["product_sum"].function(x, y, axes=(0,))
