"""What an OpenAPI document describes, as the tests of the interfaces go through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schemathesis.core.result import Ok

if TYPE_CHECKING:
    from schemathesis import APIOperation, BaseSchema, Case

    Operation = APIOperation[Any, Any, Any, Any]
    Request = Case[Operation]


def operations(document: BaseSchema) -> dict[str, Operation]:
    """Give the operations of a document by their paths; a document with a fault in it is refused."""
    found: dict[str, Operation] = {}
    for one in document.get_all_operations():
        assert isinstance(one, Ok)
        found[one.ok().path] = one.ok()
    return found
