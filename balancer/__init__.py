"""A layer-7 balancer for a cluster of identical API servers, and what its operator does with it."""

__version__ = "0.1.0"
