"""What a text must satisfy, one file for each kind."""

from motes.language.constraints.canonical import canonical
from motes.language.constraints.choices import choices
from motes.language.constraints.parsed import grammar, json_schema, regex
from motes.language.constraints.predicate import predicate
from motes.language.constraints.product import both
from motes.language.constraints.starts_with import starts_with

__all__ = ["both", "canonical", "choices", "grammar", "json_schema", "predicate", "regex", "starts_with"]
