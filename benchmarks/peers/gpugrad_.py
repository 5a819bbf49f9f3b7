"""gpugrad, eager and (where it has ``compile``) compiled."""

from __future__ import annotations

from typing import Any

import gpugrad as gg
from benchmarks.peers import Unavailable
from benchmarks.peers.torch_shaped import Step, TorchShaped


class Peer(TorchShaped):
    def __init__(self, device: str, threads: int, compiled: bool = False) -> None:
        self.lib = gg
        self.compile = getattr(gg, "compile", None) if compiled else None
        if compiled and self.compile is None:
            raise Unavailable("this gpugrad has no compile")
        try:
            self.device = gg.device(device)
        except gg.GpugradError as error:
            raise Unavailable(str(error)) from error
        gg.set_num_threads(threads)

    def whole(self, step: Step) -> Step:
        return step if self.compile is None else self.compile(step)

    def wait(self, result: Any) -> None:
        gg.synchronize(self.device)

    def about(self) -> dict[str, Any]:
        name = next(info.name for device, info in gg.devices() if str(device) == str(self.device))
        return {"gpugrad": gg.__version__, "device": name, "threads": gg.get_num_threads()}
