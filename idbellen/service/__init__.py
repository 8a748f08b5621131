"""The assembly: the one place that knows the configuration and every part."""
