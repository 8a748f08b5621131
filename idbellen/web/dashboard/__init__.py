"""The agents' dashboard."""
