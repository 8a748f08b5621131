"""What goes wrong with a store."""


class StoreError(Exception):
    """The store cannot be used; the message says which file and why."""
