"""Inter-layer covariance and intra-layer correlation from sums alone ("Deep Roots", appendix A.2).

Importing this package does not import torch; :mod:`rootmodels.analysis.capture` does.
"""
