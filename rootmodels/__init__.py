"""The networks: families, modules, cost, weights, data and training. Knows torch, never gRPC.

Importing this package, :mod:`rootmodels.variants`, :mod:`rootmodels.layers` or
:mod:`rootmodels.cost` does not import torch.
"""
