"""Random programs of tensor operations, run by gpugrad on each device and by PyTorch, and compared.

A program is a list of lines of Python over tensors ``v0``, ``v1``, ... of the library ``T``, so a failure is a thing
one can read and paste. :mod:`~tests.fuzz.programs` runs lines, :mod:`~tests.fuzz.generate` draws them,
:mod:`~tests.fuzz.compare` says what differs, :mod:`~tests.fuzz.shorten` makes a failure small, and
``python -m tests.fuzz`` goes on for as long as one likes (``make fuzz``). Failures found so far are in ``cases``.
"""
