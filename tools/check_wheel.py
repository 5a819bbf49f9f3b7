"""Build the wheel, install it where there is no source tree, and train from it for a few steps.

    python tools/check_wheel.py [--device opencl]

Run with an interpreter that has ``build``. What can only go wrong in an installed package shows
here: kernel texts that were not packed, a module left out, an import that found the source tree.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECK = """
import gpugrad as gg, pathlib, sys
package = pathlib.Path(gg.__file__).resolve().parent
assert package.is_relative_to(pathlib.Path(sys.prefix).resolve()), f"imported from {package}"
print("imported", package, gg.__version__)
x = gg.ones(4, device=sys.argv[1], requires_grad=True)
(x * x).sum().backward()
assert x.grad.tolist() == [2, 2, 2, 2]
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="opencl", help="device to train on (default: opencl)")
    parser.add_argument("--extras", default="opencl,examples")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpugrad-wheel-") as scratch:
        folder = Path(scratch)
        run([sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT], folder)
        (wheel,) = (folder / "dist").glob("*.whl")
        check_contents(wheel)
        environment = folder / "venv"
        venv.create(environment, with_pip=True)
        python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
        run([python, "-m", "pip", "install", "--quiet", f"{wheel}[{options.extras}]"], folder)
        work = folder / "work"
        shutil.copytree(ROOT / "examples", work, ignore=shutil.ignore_patterns("__pycache__"))
        run([python, "-c", CHECK, options.device], work)
        run([python, "-m", "gpugrad", "devices"], work)
        train = [python, "train_mnist.py", "--data", "digits", "--epochs", "2", "--device", options.device]
        run([*train, "--model", "mlp", "--out", "run-mlp"], work)
        run([*train, "--model", "cnn", "--out", "run-cnn"], work)
        run([python, "train_mnist.py", "--resume", "run-cnn", "--epochs", "3", "--device", options.device], work)
    print("the wheel works without its source tree")
    return 0


def check_contents(wheel: Path) -> None:
    """Every tracked kernel text and every module of the package is in the wheel, and nothing else is."""
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {"gpugrad/py.typed"}
    expected |= {f"gpugrad/_kernels/{p.relative_to(ROOT / 'kernels')}" for p in (ROOT / "kernels").rglob("*.[ch]")}
    expected |= {str(p.relative_to(ROOT)) for p in (ROOT / "gpugrad").rglob("*.py")}
    assert expected <= packed, f"the wheel lacks {sorted(expected - packed)}"
    strangers = {name for name in packed if not name.startswith("gpugrad/") and ".dist-info/" not in name}
    assert not strangers, f"the wheel also holds {sorted(strangers)}"
    print(f"{wheel.name}: {len(packed)} files, {wheel.stat().st_size / 1024:.0f} KiB")


def run(command: list[object], cwd: Path) -> None:
    """Run a command outside the source tree, with no way back into it."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")
    surroundings = {key: value for key, value in os.environ.items() if key not in hidden}
    subprocess.run([str(part) for part in command], cwd=cwd, env=surroundings, check=True)


if __name__ == "__main__":
    sys.exit(main())
