"""The gRPC services: messages in, domain requests out, and the way back."""
