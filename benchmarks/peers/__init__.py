"""Who is timed: one file per peer, one method per kind of workload.

A method takes what ``Workload.arguments`` made, NumPy arrays and sizes, and returns a ``Run``. A peer is written as
its own users write: nothing is hand-tuned that they would not tune, and everything is float32 (no TF32).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Name on the command line: module, and options of its Peer.
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpugrad": ("gpugrad_", {}),
    "gpugrad.compile": ("gpugrad_", {"compiled": True}),
    "numpy": ("numpy_", {}),
    "torch": ("torch_", {}),
    "torch.fused": ("torch_", {"fused": True}),
    "torch.compile": ("torch_", {"compiled": True}),
    "jax": ("jax_", {}),
    "tinygrad": ("tinygrad_", {}),
}


class Unavailable(Exception):
    """The peer is not installed or has no such device."""


class Run(NamedTuple):
    """``step()`` does the work once and returns what has to be waited for; ``numbers(result)`` gives the arrays that
    the peers compare: that result, gradients, parameters after the step."""

    step: Callable[[], Any]
    numbers: Callable[[Any], list[np.ndarray]]


class Peer:
    """A framework on a device. A workload it has no method for is left out."""

    def wait(self, result: Any) -> None:
        """Return when ``result`` is computed."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """Versions, device name, threads: what the figures depend on."""
        raise NotImplementedError

    def build(self, kind: str, arguments: dict[str, Any]) -> Run:
        """Raises NotImplementedError where the peer has no such workload."""
        method = getattr(self, kind, None)
        if method is None:
            raise NotImplementedError("not written for this peer")
        return method(**arguments)


def load(name: str, device: str, threads: int) -> Peer:
    """The peer of this name on ``device`` ("cpu", "cuda", "opencl"), told to use ``threads`` threads.

    Raises Unavailable with the reason."""
    module, options = PEERS[name]
    try:
        peer = importlib.import_module(f"benchmarks.peers.{module}")
    except ImportError as error:
        raise Unavailable(f"not installed ({error})") from error
    return peer.Peer(device, threads, **options)
