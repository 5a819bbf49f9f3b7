"""Kernels with one fault each, and what ``tools/check_oclgrind.py`` has to say of them: the proof that it would."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

GROUP = 16
ITEMS = 2 * GROUP

HEAD = """
__kernel void {name}(__global const int *x, __global int *out) {{
    __local int shared[16];
    int i = get_global_id(0), j = get_local_id(0);
    {text}
}}
"""


class Fault(NamedTuple):
    """A launch, as the record has them, and what is to be found in the log."""

    job: tuple[str, list[str], str, int, int, list[Any]]
    sign: str

    def named_in(self, log: str) -> bool:
        """Whether the log names fault and kernel."""
        return re.search(self.sign, log, re.IGNORECASE) is not None and self.job[2] in log


def _fault(name: str, sign: str, text: str, unwritten: bool = False) -> Fault:
    x = np.arange(ITEMS, dtype=np.int32)
    if unwritten:
        x[5] = np.uint32(0xFFF6FFA9).view(np.int32)  # tests/poison.py
    source = HEAD.format(name=name, text=text.strip())
    return Fault((source, [], name, GROUP, 2, [x.view(np.uint8), np.zeros(4 * ITEMS, np.uint8)]), sign)


FAULTS = [
    _fault("read_beyond", "Invalid read of size 4 at global memory", "out[i] = x[i + 1];"),
    _fault("write_before", "Invalid write of size 4 at global memory", "out[i - 1] = x[i];"),
    _fault(
        "local_beyond",
        "Invalid read of size 4 at local memory",
        "shared[j] = x[i]; barrier(CLK_LOCAL_MEM_FENCE); out[i] = shared[j + 1];",
    ),
    _fault("global_race", "Write-write data race at global memory", "out[j] = x[i];"),
    _fault("local_race", "Read-write data race at local memory", "shared[j] = x[i]; out[i] = shared[15 - j];"),
    _fault("unwritten_global", "uninitialized value", "out[i] = x[i] > 3 ? 1 : 0;", unwritten=True),
    _fault(
        "unwritten_local",
        "uninitialized value",
        "if (j < 15) shared[j] = x[i]; barrier(CLK_LOCAL_MEM_FENCE); if (shared[j] > 3) out[i] = 1;",
    ),
    _fault(
        "divergent_barrier",
        "divergence",
        "shared[j] = x[i]; if (j < 8) barrier(CLK_LOCAL_MEM_FENCE); out[i] = shared[j];",
    ),
]
