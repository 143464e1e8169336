"""JSON that satisfies a schema, however it is laid out: the house's own recogniser."""

from motes.language.constraints.schema.recogniser import JsonSchema

__all__ = ["JsonSchema"]
