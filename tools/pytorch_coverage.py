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

import gpugrad
from gpugrad.absent import REASONS
from gpugrad.arguments import _aliases, parameters
from gpugrad.ops import OPS

PAGE = Path(__file__).parent.parent / "docs" / "pytorch_coverage.md"

#: PyTorch's namespaces; ours have the same names under gpugrad
SPACES = (
    "torch "
    "torch.Tensor "
    "torch.nn "
    "torch.nn.functional "
    "torch.nn.init "
    "torch.nn.utils "
    "torch.nn.utils.rnn "
    "torch.nn.utils.parametrizations "
    "torch.nn.utils.parametrize "
    "torch.nn.attention "
    "torch.linalg "
    "torch.special "
    "torch.optim "
    "torch.optim.lr_scheduler "
    "torch.optim.swa_utils "
    "torch.utils.data "
    "torch.distributions "
    "torch.autograd "
    "torch.autograd.functional "
    "torch.func "
    "torch.random "
    "torch.profiler "
    "torch.cuda "
).split()

#: parameters that say how memory is laid out, taken or meaningless here, and those that no program names
IGNORED = set("out layout pin_memory names sparse_grad self x1 x2 implicit orig_func input2 input3 cls".split())


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
    """Names of a namespace of PyTorch that are its own functions, classes and constants."""
    if path == "torch":
        names = torch_names()
    else:
        names = {name for name in getattr(space, "__all__", dir(space)) if belongs(getattr(space, name, None), path)}
    return sorted(
        name
        for name in names
        if not name.startswith(("_", *INTERNAL)) and name not in LEFT_OUT and f"{path}.{name}" not in LEFT_OUT
    )


def torch_names() -> set[str]:
    """``torch.__all__`` and what is documented besides: the compiled functions, dtypes and layouts. Of the classes and
    functions of torch._C, all of which show through, only the documented ones."""
    leaked = {n for n in dir(torch._C) if isinstance(getattr(torch._C, n), (type, types.BuiltinFunctionType))}
    functions = {n for n in dir(torch._C._VariableFunctions) if hasattr(torch, n)}
    constants = {
        n for n in dir(torch) if isinstance(getattr(torch, n), (torch.dtype, torch.memory_format, torch.layout))
    }
    rest = {n for n in torch.__all__ if not isinstance(getattr(torch, n), types.ModuleType)}
    return functions | constants | (rest - leaked) | set(FROM_C)


def belongs(value: Any, path: str) -> bool:
    """Whether it is PyTorch's, and no module or constant that happens to be in sight."""
    if value is None or isinstance(value, types.ModuleType):
        return False
    if path == "torch.Tensor":
        return True
    return callable(value) and (getattr(value, "__module__", None) or "torch").startswith("torch")


#: what of torch._C is public
FROM_C = (
    "Event Generator OutOfMemoryError AcceleratorError Size Stream device dtype finfo iinfo layout memory_format "
    "qscheme get_autocast_dtype get_default_dtype get_num_interop_threads get_num_threads is_autocast_enabled "
    "is_grad_enabled is_inference_mode_enabled set_autocast_dtype set_autocast_enabled set_flush_denormal "
    "set_num_interop_threads set_num_threads"
).split()
#: beginnings of names of one vendor's library, of symbolic tracing, or private ones that lack the underscore
INTERNAL = tuple(
    "cudnn_ miopen_ mkldnn_ fbgemm_ quantized_ batch_norm_ fused_moving xpu_ is_ipu is_maia is_mtia is_vulkan is_xla "
    "is_xpu has_torch_function has_spectral has_mkl has_openmp sym_constrain".split()
)
#: the same as whole names, and what PyTorch itself has removed (a stub that raises)
LEFT_OUT = set(
    "native_channel_shuffle native_dropout native_group_norm native_layer_norm native_norm "
    "native_batch_norm choose_qparams_optimized segment_reduce norm_except_dim constant_pad_nd convolution "
    "grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator feature_alpha_dropout_ embedding_renorm_ "
    "hash_tensor slice_inverse thread_safe_generator from_file while_loop max_pool1d_with_indices AVG SUM has_lapack "
    "TypedStorage BoolStorage ByteStorage BFloat16Storage CharStorage DoubleStorage FloatStorage HalfStorage "
    "IntStorage LongStorage ShortStorage ComplexDoubleStorage ComplexFloatStorage QInt32Storage QInt8Storage "
    "QUInt8Storage QUInt4x2Storage QUInt2x4Storage UntypedStorage ipu hpu mtia xpu privateuseone to_mkldnn "
    "cudnn_is_acceptable const_data_ptr dim_order reinforce module_load legacy_contiguous_format default_generator "
    "torch.Tensor.eig torch.Tensor.lstsq torch.Tensor.solve torch.Tensor.symeig torch.Tensor.name "
    "torch.Tensor.volatile torch.nn.factory_kwargs torch.nn.functional.Tensor torch.nn.functional.assert_int_or_pair "
    "torch.nn.functional.boolean_dispatch torch.nn.functional.handle_torch_function".split()
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


def taken(name: str, value: Any) -> set[str] | None:
    """Names of the parameters that our function takes, under PyTorch's and NumPy's names; None if any are."""
    if isinstance(value, type):
        value = value.__init__ if value.__init__ is not object.__init__ else value.__new__
    code = getattr(getattr(value, "__wrapped__", value), "__code__", None)
    if code is None:
        return None
    if code.co_flags & inspect.CO_VARKEYWORDS:
        return None
    return set(parameters(value)) | set(_aliases(name, value)[0]) | {"input", "self"}


def note(space: str, name: str, theirs: Any, ours: Any, stubs: Stubs) -> str:
    """What differs in the signature."""
    have = taken(name, ours)
    if have is None or not callable(theirs):
        return ""
    missing = sorted(wanted(space, name, theirs, stubs) - have)
    return ", ".join(f"`{m}`" for m in missing)


def row_of(name: str) -> Any:
    """The row of the ops table for PyTorch's function ``name``, or for the one whose in-place form it is."""
    for n in (name, name.removesuffix("_")):
        row = next((op for op in OPS.values() if op.torch == n), None) or OPS.get(n)
        if row is not None:
            return row
    return None


def facts(name: str) -> str:
    """Which dtypes an operation takes and whether it has a derivative."""
    op = row_of(name)
    if op is None:
        return "aliases, operations made of others, and what is no operation"
    kinds = {"f": "floating-point", "i": "integer", "b": "bool"}
    taken = ", ".join(v for k, v in kinds.items() if k in op.dtypes)
    return f"{taken}; {'with' if op.differentiable else 'no'} derivative"


def reason(path: str, name: str) -> str:
    """Why a name is absent; empty if nothing says so."""
    short = f"{path}.{name}".removeprefix("torch.")
    bare = name if path in ("torch", "torch.Tensor") else ""
    return REASONS.get(short) or REASONS.get(bare, "")


def grouped(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """From (key, name) to the names of each key, in backticks."""
    groups: dict[str, list[str]] = {}
    for key, name in pairs:
        groups.setdefault(key, []).append(f"`{name}`")
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))


def fold(title: str, lines: list[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>", ""]


def section(path: str, ours: Any, stubs: Stubs) -> tuple[list[str], int, int]:
    """The lines of one namespace, how many public names it has, and how many of them are here."""
    theirs = found(path)
    names = public(theirs, path)
    here = [n for n in names if ours is not None and hasattr(ours, n)]
    absent = [n for n in names if n not in here]
    unexplained = [n for n in absent if not reason(path, n)]
    if unexplained:
        raise SystemExit(f"{path}: gpugrad.absent gives no reason for {', '.join(unexplained)}")
    lines = [f"## {path}", ""]
    notes = [(n, note(path, n, getattr(theirs, n), getattr(ours, n), stubs)) for n in here]
    if any(text for _, text in notes):
        lines += ["| here, but | parameters not taken |", "|---|---|"]
        lines += [f"| `{name}` | {text} |" for name, text in notes if text] + [""]
    if absent:
        lines += ["| absent | why, and what does it instead |", "|---|---|"]
        groups = grouped([(reason(path, n), n) for n in absent])
        lines += [f"| {', '.join(group)} | {why} |" for why, group in groups.items()] + [""]
    if path in WITH_ROWS:
        groups = grouped([(facts(n), n) for n in here])
        listed = [line for key, group in groups.items() for line in (f"**{key}**: {', '.join(group)}", "")]
    else:
        listed = [", ".join(f"`{n}`" for n in here)]
    return lines + fold(f"The {len(here)} names that are here", listed), len(names), len(here)


#: whose functions are rows of the ops table
WITH_ROWS = ("torch", "torch.Tensor", "torch.linalg", "torch.special")


#: PyTorch's modules that are no namespace above
MODULES = (
    "accelerator ao compiler distributed export fft futures fx hub jit library masked monitor mps mtia "
    "multiprocessing nested onnx overrides package profiler quantization serialization sparse testing "
    "version xpu"
).split()


def page() -> str:
    stubs = Stubs()
    sections, summary = [], []
    for path in SPACES:
        lines, count, here = section(path, found(path.replace("torch", "gpugrad", 1)), stubs)
        summary.append(f"| [`{path}`](#{path.replace('.', '').lower()}) | {count} | {here} |")
        sections.append("\n".join(lines))
    parts = [n for n in MODULES if not hasattr(gpugrad, n)]
    unexplained = [n for n in parts if n not in REASONS]
    if unexplained:
        raise SystemExit(f"modules: gpugrad.absent gives no reason for {', '.join(unexplained)}")
    missing = [f"| {', '.join(group)} | {why} |" for why, group in grouped([(REASONS[n], n) for n in parts]).items()]
    version = torch.__version__.split("+")[0]
    head = f"""# PyTorch's names, and what gpugrad has of them

Made by `python tools/pytorch_coverage.py` from PyTorch {version}, the ops table and `gpugrad/absent.py`;
do not edit. What a function does otherwise than in PyTorch is on the page [what differs](differences_from_pytorch.md).
Everything runs on every device. Names that only serve one vendor's library, symbolic tracing or PyTorch's own
machinery are left out.

| namespace | public names | of which here |
|---|---|---|
"""
    wholes = [
        "",
        "Modules of PyTorch that are absent as a whole:",
        "",
        "| absent | why, and what does it instead |",
        "|---|---|",
        *missing,
    ]
    return head + "\n".join(summary + wholes) + "\n\n" + "\n".join(sections)


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
