"""Rootserve's client: the command line `rootserve` and the library beneath it.

Start at `client.inference.Client` (ask a server; `client.blocking.BlockingClient` without
asyncio), `client.evaluate.accuracy` (top-1 accuracy through the service), `client.load.run_load`
(measure a server under load) and `client.analysis.service.analyze` (see inside a network).
Importing this package imports none of them, so that the command line starts quickly.
"""
