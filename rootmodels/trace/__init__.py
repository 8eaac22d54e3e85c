"""From any torch module to layers and tensors: :func:`rootmodels.trace.module.trace_module`.

The module is exported by torch (``export``), each operation becomes layers (``operations``, ``elementwise`` and
``shapes``, which build a graph of ``building``), and layers that are one thing are put together (``simplify``).
"""
