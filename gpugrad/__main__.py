"""``python -m gpugrad devices``: what there is to compute on, and what is missing."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import gpugrad as gg
from gpugrad.backends.base import DeviceInfo
from gpugrad.devices import Device, auto_device, backend_of, devices, parse
from gpugrad.errors import DeviceError

_COLUMNS = ("device", "name", "kind", "memory", "units", "fp16", "fp64", "driver")
_ADVICE = "for the CPU, on Debian and Ubuntu: sudo apt-get install pocl-opencl-icd"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of ``python -m gpugrad``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gpugrad", description="gpugrad from the command line.")
    commands = parser.add_subparsers(dest="command", metavar="command")
    table = commands.add_parser("devices", help="list the devices here, and how to get those that are missing")
    table.add_argument("--brief", action="store_true", help="one line per device, and what is missing")
    commands.add_parser("version", help="print the version")
    options = parser.parse_args(arguments)
    logging.getLogger("gpugrad").setLevel(logging.ERROR)  # the table says it all
    if options.command == "devices":
        _devices(options.brief)
    elif options.command == "version":
        print(gg.__version__)
    else:
        parser.print_help()
    return 0


def _devices(brief: bool) -> None:
    found = devices(probe=True)
    auto = auto_device()
    if brief:
        for device, info in found:
            print(f"{device}: {info.name}" + " (left out)" * bool(info.error))
    else:
        rows = [_row(device, info, device == auto) for device, info in found]
        widths = [max(len(row[i]) for row in [_COLUMNS, *rows]) for i in range(len(_COLUMNS))]
        for row in [_COLUMNS, *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print(f"\n* is what device auto takes: {auto}")
    faults = {device: info.error for device, info in found if info.error}
    for fault in dict.fromkeys(faults.values()):
        print(f"{', '.join(str(d) for d in faults if faults[d] == fault)} left out: {fault}")
    for kind in ("cuda", "opencl"):
        reason = _missing(kind)
        if reason in faults.values():
            reason = f"no device works; {_ADVICE}" if kind == "opencl" else ""
        if reason:
            print(f"{kind}: {reason}")


def _row(device: Device, info: DeviceInfo, chosen: bool) -> tuple[str, ...]:
    usable = not info.error
    return (
        str(device) + "*" * chosen + " (!)" * (not usable),
        info.name,
        info.kind,
        f"{info.memory / 2**30:.1f} GiB" if info.memory else "?",
        str(info.compute_units or "?"),
        "yes" if info.fp16 else "storage",
        "yes" if info.fp64 else "no",
        info.driver,
    )


def _missing(kind: str) -> str:
    """Why no device of type ``kind`` can be opened, or nothing if one can."""
    try:
        backend_of(parse(kind))
    except DeviceError as error:
        return str(error).strip()
    return ""


if __name__ == "__main__":
    sys.exit(main())
