"""Mutation testing: break the ops table and the autograd walk in small ways, and see whether a test notices.

    python tools/mutants.py                     every part, 60 mutants each, drawn by --seed
    python tools/mutants.py table --all         every mutant of one part
    python tools/mutants.py --list walk         what would be broken, without running

The rows of the table are expressions at the top level of a module, half of them in C inside strings; the tools there
are (mutmut, cosmic-ray) change the bodies of functions or files in place. Here a mutant exists only in the process that
tests it: a finder hands the interpreter the changed module, and pytest runs a narrow selection with it, until the first
failure. Survivors are printed with their line. A mutant may be equivalent: then no test can notice.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.util
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "GPUGRAD_MUTANT"


class Part(NamedTuple):
    """Files, and what pytest runs; ``{row}`` becomes the name of the row that a line belongs to."""

    files: tuple[str, ...]
    selections: tuple[tuple[str, ...], ...]


_ROW = ("-k", "{row}")
PARTS = {
    "table": Part(
        ("gpugrad/ops/elementwise.py",),
        (
            ("tests/test_ops.py", "--device", "cpu,opencl", *_ROW),
            ("tests/test_special_values.py", "--device", "cpu,opencl", *_ROW),
            ("tests/test_parity.py", "--device", "cpu", *_ROW),
            (
                "tests/test_special_values.py",
                "tests/test_compile_ops.py",
                "--device",
                "cpu",
                "-k",
                "compiled or forward",
            ),
        ),
    ),
    "walk": Part(
        ("gpugrad/autograd/engine.py", "gpugrad/autograd/graph.py", "gpugrad/ops/recording.py", "gpugrad/ops/table.py"),
        (
            ("tests/test_autograd.py", "tests/test_inplace.py", "--device", "cpu"),
            ("tests/test_traced.py", "tests/test_anomaly.py", "tests/test_autograd_functional.py", "--device", "cpu"),
            ("tests/test_ops.py", "tests/test_errors.py", "--device", "cpu", "-k", "not second"),
        ),
    ),
}

_COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_BINARY = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_CALLS = {
    "mul": "div", "div": "mul", "add": "sub", "sub": "add", "neg": "sign", "sin": "cos", "cos": "sin", "sinh": "cosh",
    "cosh": "sinh", "eq": "ne", "gt": "ge", "ge": "gt", "lt": "le", "le": "lt", "square": "neg", "rsqrt": "square",
    "logical_and": "logical_or", "logical_or": "logical_and", "exp": "neg", "log": "neg", "floor": "trunc",
    "trunc": "floor",
}  # fmt: skip
_C = (("+", "-"), ("- ", "+ "), ("*", "/"), ("/", "*"), (" < ", " <= "), (" > ", " >= "), ("==", "!="), ("&&", "||"))


class Mutant(NamedTuple):
    file: str
    index: int
    line: int
    what: str


def mutations(tree: ast.Module) -> Iterator[tuple[int, str, object]]:
    """(line, description, function that makes the change in ``tree``), in a fixed order."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
            new = _COMPARE[type(node.ops[0])]
            yield line, f"{type(node.ops[0]).__name__} -> {new.__name__}", _setter(node, "ops", [new(), *node.ops[1:]])
        elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY and not _typing(node):
            new = _BINARY[type(node.op)]
            yield line, f"{type(node.op).__name__} -> {new.__name__}", _setter(node, "op", new())
        elif isinstance(node, ast.BoolOp):
            new = ast.Or if isinstance(node.op, ast.And) else ast.And
            yield line, f"{type(node.op).__name__} -> {new.__name__}", _setter(node, "op", new())
        elif isinstance(node, ast.If):
            yield line, "if -> if not", _setter(node, "test", ast.UnaryOp(ast.Not(), node.test))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
            new_name = _CALLS[node.func.id]
            yield line, f"{node.func.id} -> {new_name}", _setter(node.func, "id", new_name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield line, f"{node.value} -> {not node.value}", _setter(node, "value", not node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            yield line, f"{node.value} -> {node.value + 1}", _setter(node, "value", node.value + 1)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_c(node.value):
            for old, new_text in _C:
                if old in node.value:
                    changed = node.value.replace(old, new_text, 1)
                    yield line, f"C: {node.value} -> {changed}", _setter(node, "value", changed)


def _setter(node: ast.AST, field: str, value: object) -> object:
    return lambda: setattr(node, field, value)


def _typing(node: ast.BinOp) -> bool:
    """``X | None``, evaluated never or without consequence."""
    return isinstance(node.op, ast.BitOr) and isinstance(node.right, ast.Constant) and node.right.value is None


def _is_c(text: str) -> bool:
    return (
        bool(re.search(r"\b[abc]\b", text))
        and bool(re.search(r"[-+*/<>=&|]", text))
        and text.count(" ") < 40
        and (not re.search(r"[a-z]{3,} [a-z]{2,} [a-z]{2,}", text))
    )


def _strip(tree: ast.Module) -> ast.Module:
    """Without annotations and docstrings, which no mutant should touch."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
            for a in [
                *node.args.args,
                *node.args.kwonlyargs,
                *node.args.posonlyargs,
                node.args.vararg,
                node.args.kwarg,
            ]:
                if a is not None:
                    a.annotation = None
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)) and ast.get_docstring(node) is not None:
            node.body[0].value.value = ""  # still the first thing in a module, before imports of __future__
    return tree


def parse(file: str) -> ast.Module:
    return _strip(ast.parse((ROOT / file).read_text()))


def mutants(file: str) -> list[Mutant]:
    return [Mutant(file, i, line, what) for i, (line, what, _) in enumerate(mutations(parse(file)))]


def row_of(file: str, line: int) -> str:
    """The name of the top-level row or function around a line, for ``pytest -k``."""
    for node in ast.parse((ROOT / file).read_text()).body:
        if node.lineno <= line <= (node.end_lineno or line):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Call) and getattr(inner.func, "id", "") == "elementwise":
                    return inner.args[0].value  # type: ignore[attr-defined]
            name = getattr(node, "name", "") or getattr(getattr(node, "targets", [None])[0], "id", "")
            return name.strip("_").split("_grad")[0].split("_in_place")[0].split("_inplace")[0]
    return ""


# -- in the process that tests: the changed module ----------------------------------------------------


class _Loader(importlib.abc.Loader):
    def __init__(self, file: str, index: int) -> None:
        self.file, self.index = file, index

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: object) -> None:
        tree = parse(self.file)
        if self.index >= 0:
            list(mutations(tree))[self.index][2]()  # type: ignore[operator]
        exec(compile(ast.fix_missing_locations(tree), str(ROOT / self.file), "exec"), module.__dict__)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, file: str, index: int) -> None:
        self.name = file.removesuffix(".py").replace("/", ".")
        self.loader = _Loader(file, index)

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        return importlib.util.spec_from_loader(name, self.loader) if name == self.name else None


if VARIABLE in os.environ:
    _file, _index = os.environ[VARIABLE].rsplit(":", 1)
    sys.meta_path.insert(0, _Finder(_file, int(_index)))


# -- the driver ---------------------------------------------------------------------------------------


def survives(mutant: Mutant, part: Part, limit: float) -> bool:
    """Whether all selections pass with it."""
    environment = os.environ | {
        VARIABLE: f"{mutant.file}:{mutant.index}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tools")]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for selection in part.selections:
        row = row_of(mutant.file, mutant.line)
        arguments = [a.format(row=row) for a in selection]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "mutants", "-p", "no:cacheprovider", *arguments]
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return False  # it hangs: noticed
        if done.returncode not in (0, 5):  # 5: no test of that name here
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--sample", type=int, default=60, help="mutants per part")
    parser.add_argument("--all", action="store_true", help="every mutant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    for name in options.parts or PARTS:
        part = PARTS[name]
        every = [m for file in part.files for m in mutants(file)]
        chosen = every if options.all else random.Random(options.seed).sample(every, min(options.sample, len(every)))
        if options.list:
            print(*(f"{m.file}:{m.line} {m.what}" for m in chosen), sep="\n")
            continue
        tried, left = 0, []
        if not survives(Mutant(chosen[0].file, -1, chosen[0].line, ""), part, 300.0):
            print(f"{name}: the tests fail without any change", file=sys.stderr)
            return 1
        for m in chosen:
            if time.monotonic() - began > options.seconds:
                break
            tried += 1
            if survives(m, part, 120.0):
                left.append(m)
                print(f"SURVIVED {m.file}:{m.line} {m.what}", flush=True)
        print(
            f"{name}: {tried} of {len(every)} mutants tried, {tried - len(left)} noticed, {len(left)} survived",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
