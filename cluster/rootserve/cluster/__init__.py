"""Many servers as one: the configuration of the proxy before them, and the proxy started with it.

Stands beside the server and knows nothing of it but what it speaks: gRPC, health, deadlines.
"""
