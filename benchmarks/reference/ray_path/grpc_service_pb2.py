"""The protocol's messages under the name that their classes bear: Ray pickles them."""

from tritonclient.grpc.service_pb2 import *  # noqa: F403
