"""PyTorch: eager, with its fused optimizers, and through ``torch.compile`` (forward, backward and optimizer step)."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from benchmarks.peers import Run, Unavailable
from benchmarks.peers.torch_shaped import Step, TorchShaped


class Peer(TorchShaped):
    def __init__(self, device: str, threads: int, compiled: bool = False, fused: bool = False) -> None:
        kind = device.split(":")[0]
        if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
            raise Unavailable(f"has no device {device} here (torch@cpu times it on the CPU instead)")
        self.lib = torch
        self.device = torch.device(device)
        self.compiled = compiled
        self.fused = fused
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = False
        if compiled and kind == "cpu":
            # PyTorch 2.13, compiled for the CPU, gives convolutions before two linear layers gradients of zero
            # (workload "cnn"), as their layouts are changed; without that its numbers are right.
            inductor = importlib.import_module("torch._inductor.config")
            inductor.layout_optimization = False

    def part(self, function: Step) -> Step:
        return torch.compile(function) if self.compiled else function

    def build(self, kind: str, arguments: dict[str, Any]) -> Run:
        if self.fused and kind not in ("network", "gpt", "adamw"):
            raise NotImplementedError("is torch where there is no optimizer")
        if self.compiled:
            torch._dynamo.reset()  # one workload's guards and recompilations are not the next one's
        return super().build(kind, arguments)

    def scalar_chain(self, x: Any, ops: int) -> Run:
        if self.compiled:
            raise NotImplementedError("unrolls the loop and compiles for minutes")
        return super().scalar_chain(x, ops)

    def wait(self, result: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def about(self) -> dict[str, Any]:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"torch": torch.__version__, "device": name, "threads": torch.get_num_threads()}
