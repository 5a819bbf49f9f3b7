#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: the suite, CUDA's memory checkers and the benchmarks; results under OUT (default build/gpu).
# Needs CuPy and pytest in the current environment; the comparison takes the peers it finds there (PyTorch, JAX, tinygrad).
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu}
mkdir -p "$out"
status=0
run() {
    printf '\n==== %s\n' "$*"
    "$@" || { status=1; echo "---- failed: $*"; }
}
nvidia-smi | tee "$out/nvidia-smi.txt"
run python -m gpugrad devices
run python -m pytest -q --device cuda -n 4 -o cache_dir="$out/pytest"
if command -v compute-sanitizer > /dev/null; then
    for check in memcheck racecheck initcheck synccheck; do
        run compute-sanitizer --tool "$check" --error-exitcode 1 --log-file "$out/$check.txt" \
            python -m pytest -q tests/test_device_backends.py tests/test_kernel_rows.py --device cuda -k "cuda and not large" -x \
            -p no:cacheprovider
    done
else
    echo "---- compute-sanitizer is not here (it comes with the CUDA toolkit): no memory check"
    status=1
fi
for model in mlp cnn; do
    run python examples/train_mnist.py --model "$model" --device cuda --out "$out/$model"
done
run python -m benchmarks.compare --device cuda --out "$out"
exit $status
