"""What a text must satisfy, one file for each kind.

A new one is a new file with a function that returns a `Constraint`, under `@constraints.register`.
"""

from motes.language.constraint import constraints

__all__ = ["constraints", *constraints.door(globals())]
