"""Calls that a PBX queues and connects by itself."""
