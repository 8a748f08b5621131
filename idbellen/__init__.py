"""idbellen."""
