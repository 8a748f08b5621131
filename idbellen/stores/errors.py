"""What goes wrong with a store."""

from __future__ import annotations

from idbellen.ports import StoreError

__all__ = ["StoreError"]
