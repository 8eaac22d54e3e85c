"""Which channels of a trained network belong together, decided by the covariance of its responses.

Importing this package does not import torch; :mod:`rootmodels.suggest.patches` and
:mod:`rootmodels.suggest.command` do.
"""
