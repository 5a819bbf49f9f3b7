"""Writes docs/pytorch_coverage.md: every public name of PyTorch beside what gpugrad has.

Needs PyTorch (the extra ``parity``). ``--check`` only says whether the page is up to date. What a function
accepts is compared with PyTorch's own signatures: its type stubs for compiled functions, ``inspect`` for the
rest. From the ops table come the dtypes and whether there is a derivative.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import sys
import types
from pathlib import Path
from typing import Any

import torch

from gpugrad.absent import REASONS
from gpugrad.arguments import parameters
from gpugrad.ops import OPS

PAGE = Path(__file__).parent.parent / "docs" / "pytorch_coverage.md"

#: title, PyTorch's namespace, gpugrad's
SPACES = [
    ("torch", "torch", "gpugrad"),
    ("torch.Tensor", "torch.Tensor", "gpugrad.Tensor"),
    ("torch.nn", "torch.nn", "gpugrad.nn"),
    ("torch.nn.functional", "torch.nn.functional", "gpugrad.nn.functional"),
    ("torch.nn.init", "torch.nn.init", "gpugrad.nn.init"),
    ("torch.nn.utils", "torch.nn.utils", "gpugrad.nn.utils"),
    ("torch.nn.utils.rnn", "torch.nn.utils.rnn", "gpugrad.nn.utils.rnn"),
    ("torch.nn.utils.parametrizations", "torch.nn.utils.parametrizations", "gpugrad.nn.utils.parametrizations"),
    ("torch.linalg", "torch.linalg", "gpugrad.linalg"),
    ("torch.special", "torch.special", "gpugrad.special"),
    ("torch.optim", "torch.optim", "gpugrad.optim"),
    ("torch.optim.lr_scheduler", "torch.optim.lr_scheduler", "gpugrad.optim.lr_scheduler"),
    ("torch.optim.swa_utils", "torch.optim.swa_utils", "gpugrad.optim.swa_utils"),
    ("torch.utils.data", "torch.utils.data", "gpugrad.utils.data"),
    ("torch.distributions", "torch.distributions", "gpugrad.distributions"),
    ("torch.autograd", "torch.autograd", "gpugrad.autograd"),
    ("torch.autograd.functional", "torch.autograd.functional", "gpugrad.autograd.functional"),
    ("torch.func", "torch.func", "gpugrad.func"),
    ("torch.random", "torch.random", "gpugrad.random"),
]

#: parameters that say how memory is laid out or where noise comes from, taken or meaningless here
IGNORED = {"out", "layout", "pin_memory", "names", "sparse_grad", "self", "x1", "x2"}


def found(path: str) -> Any:
    """The module, class or function at a dotted path, or None."""
    head, *rest = path.split(".")
    value = importlib.import_module(head)
    done = head
    for part in rest:
        done += "." + part
        try:
            value = getattr(value, part)
        except (AttributeError, ImportError):
            try:
                value = importlib.import_module(done)
            except ImportError:
                return None
    return value


def public(space: Any, path: str) -> list[str]:
    """Names of a namespace of PyTorch that are its own functions and classes."""
    listed = getattr(space, "__all__", None)
    if path == "torch":  # __all__ leaves the compiled functions out
        documented = {n for n in dir(torch._C._VariableFunctions) if hasattr(torch, n)}
        listed = documented | {n for n in torch.__all__ if callable(getattr(torch, n, None))}
    names = []
    for name in sorted(set(listed or dir(space))):
        if name.startswith("_") or name in OTHER_BACKENDS or any(name.startswith(p) for p in INTERNAL):
            continue
        value = getattr(space, name, None)
        if value is None or isinstance(value, types.ModuleType):
            continue
        if not callable(value) and path != "torch.Tensor":
            continue
        own = getattr(value, "__module__", None) or "torch"
        if isinstance(value, type) and own == "torch._C" and name not in ("Generator", "Size", "device", "dtype"):
            continue
        if name.endswith("Storage") or "autocast" in name or "_ir" in name or name.startswith("parse_"):
            continue
        if path != "torch" and not own.startswith("torch"):
            continue
        names.append(name)
    return names


#: names of one vendor's library, of symbolic tracing, or private ones that lack the underscore
INTERNAL = ("cudnn_", "miopen_", "mkldnn_", "fbgemm_", "sym_", "quantized_", "batch_norm_", "fused_moving", "xpu_")
OTHER_BACKENDS = set(
    "AnyType ScriptFunction native_channel_shuffle native_dropout native_group_norm native_layer_norm native_norm "
    "native_batch_norm choose_qparams_optimized segment_reduce norm_except_dim constant_pad_nd convolution "
    "grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator feature_alpha_dropout_ embedding_renorm_ "
    "is_vulkan_available hash_tensor slice_inverse unify_type_list thread_safe_generator from_file cond while_loop "
    "compiled_with_cxx11_abi init_num_threads max_pool1d_with_indices vitals_enabled set_vital read_vitals "
    "TypedStorage BoolStorage ByteStorage BFloat16Storage CharStorage DoubleStorage FloatStorage HalfStorage "
    "IntStorage LongStorage ShortStorage ComplexDoubleStorage ComplexFloatStorage QInt32Storage QInt8Storage "
    "QUInt8Storage QUInt4x2Storage QUInt2x4Storage UntypedStorage ipu hpu mtia xpu privateuseone to_mkldnn "
    "cudnn_is_acceptable const_data_ptr dim_order reinforce module_load Tag".split()
)


class Stubs:
    """Signatures of PyTorch's compiled functions, from its type stubs."""

    def __init__(self, keep_out: bool = False) -> None:
        root = Path(torch.__file__).parent / "_C"
        self.functions = self._parse((root / "_VariableFunctions.pyi").read_text(), None)
        self.methods = self._parse((root / "__init__.pyi").read_text(), "TensorBase")

    def _parse(self, text: str, cls: str | None) -> dict[str, list[list[str]]]:
        body = ast.parse(text).body
        if cls:
            body = next(n for n in body if isinstance(n, ast.ClassDef) and n.name == cls).body
        result: dict[str, list[list[str]]] = {}
        for n in body:
            if isinstance(n, ast.FunctionDef):
                a = n.args
                result.setdefault(n.name, []).append([x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)])
        return result


def wanted(path: str, name: str, value: Any, stubs: Stubs) -> set[str]:
    """Names of all parameters that PyTorch's function takes."""
    table = {"torch": stubs.functions, "torch.Tensor": stubs.methods}.get(path, {})
    if name in table:
        return {p for overload in table[name] for p in overload} - IGNORED
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return set()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        p.name for p in signature.parameters.values() if p.kind not in variable and not p.name.startswith("_")
    } - IGNORED


def taken(value: Any) -> set[str] | None:
    """Names of the parameters that our function takes; None if any are."""
    if isinstance(value, type):
        value = value.__init__ if value.__init__ is not object.__init__ else value.__new__
    code = getattr(getattr(value, "__wrapped__", value), "__code__", None)
    if code is None:
        return None
    if code.co_flags & inspect.CO_VARKEYWORDS:
        return None
    return set(parameters(value)) | {"input", "self"}


def note(space: str, name: str, theirs: Any, ours: Any, stubs: Stubs) -> str:
    """What differs in the signature."""
    have = taken(ours)
    if have is None or not callable(theirs):
        return ""
    missing = sorted(wanted(space, name, theirs, stubs) - have)
    return f"not taken: {', '.join(f'`{m}`' for m in missing)}" if missing else ""


def row_of(name: str) -> Any:
    """The row of the ops table for PyTorch's function ``name``."""
    return next((op for op in OPS.values() if op.torch == name), None) or OPS.get(name)


def page() -> str:
    stubs = Stubs()
    sections, summary = [], []
    for title, theirs_path, ours_path in SPACES:
        theirs, ours = found(theirs_path), found(ours_path)
        names = public(theirs, theirs_path)
        lines, absent = [], []
        for name in names:
            value = getattr(ours, name, None) if ours is not None else None
            if value is None:
                absent.append((name, REASONS.get(name, "")))
                continue
            op = row_of(name) if theirs_path in ("torch", "torch.Tensor", "torch.linalg", "torch.special") else None
            facts = ""
            if op is not None:
                kinds = {"f": "float", "i": "integer", "b": "bool"}
                facts = ", ".join(v for k, v in kinds.items() if k in op.dtypes)
                facts += "; derivative" if op.differentiable else ""
            lines.append(f"| `{name}` | {facts} | {note(theirs_path, name, getattr(theirs, name), value, stubs)} |")
        summary.append(
            f"| [`{title}`](#{title.replace('.', '').lower()}) | {len(names)} | {len(names) - len(absent)} |"
        )
        section = [f"## {title}", "", "| name | dtypes, derivative | what differs |", "|---|---|---|", *lines, ""]
        if absent:
            section += ["Absent:", ""]
            by_reason: dict[str, list[str]] = {}
            for name, reason in absent:
                by_reason.setdefault(reason or "not there yet", []).append(f"`{name}`")
            section += [f"- {', '.join(group)}: {reason}" for reason, group in sorted(by_reason.items())] + [""]
        sections.append("\n".join(section))
    head = f"""# PyTorch's names, and what gpugrad has of them

Made by `python tools/pytorch_coverage.py` from PyTorch {torch.__version__.split("+")[0]} and the ops table; do not edit.
How a function differs beyond the parameters that it does not take is on the page
[what differs](differences_from_pytorch.md). Everything runs on every device.
Names that only serve one vendor's library, symbolic tracing or PyTorch's own machinery are left out.

| namespace | public names | of which here |
|---|---|---|
"""
    return head + "\n".join(summary) + "\n\n" + "\n".join(sections)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    options = parser.parse_args()
    text = page()
    if options.check:
        if PAGE.read_text() != text:
            print(f"{PAGE.name} is out of date: run python tools/pytorch_coverage.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
