"""What a text must satisfy, one file for each kind."""

# written by `make golden`
from motes.language.constraint import constraints
from motes.language.constraints.canonical import canonical
from motes.language.constraints.choices import choices
from motes.language.constraints.parsed import grammar
from motes.language.constraints.parsed import json_schema
from motes.language.constraints.parsed import regex
from motes.language.constraints.predicate import predicate
from motes.language.constraints.product import both
from motes.language.constraints.starts_with import starts_with

__all__ = [
    "both",
    "canonical",
    "choices",
    "constraints",
    "grammar",
    "json_schema",
    "predicate",
    "regex",
    "starts_with",
]
