"""Small complete programs as people write them for PyTorch. Each file imports ``torch``; the test runs it
twice, once with PyTorch and once with gpugrad under that name.

A program has ``build()``, which makes the model (a Module, or a dict of them), and ``train(model, device)``, a
generator of the loss of each step. Data, and randomness that training itself draws, come from NumPy, so that
both runs see the same."""
