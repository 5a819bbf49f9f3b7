"""Microbenchmarks, by pytest-benchmark: ``make bench``, or

    python -m pytest benchmarks/micro -o python_files="bench_*.py" -o python_functions="bench_*" --device all

Absolute figures of one machine: to see where a call's time goes and whether a change moved it
(``--benchmark-autosave``, ``--benchmark-compare``). Against other libraries, alternating: ``benchmarks.compare``.
"""
