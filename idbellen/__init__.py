"""idbellen: a citizen logs in, calls, and the agent who answers sees who it is."""

__version__ = "0.2.0"
