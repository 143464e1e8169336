"""The language part of `motes demo`: dishes for a menu, as JSON that a schema accepts, from SmolLM2-135M-Instruct."""

from __future__ import annotations

from typing import Any

from motes.language.constraints import json_schema
from motes.language.generation.generation import Generation
from motes.language.models.hugging_face import load
from motes.language.models.model import LanguageModel, Message

TITLE, PARTICLES, NEEDS = "Text: JSON from SmolLM2-135M", 32, ("transformers", "gguf", "llguidance")
"""What `motes demo` calls it, how many particles, what must be installed."""


def model() -> Generation:
    """The model of the demonstration."""
    return json_generation(load("smollm2"))


DISH: dict[str, Any] = {
    "type": "object",
    "properties": {
        "dish": {"type": "string", "minLength": 3, "maxLength": 28},
        "course": {"enum": ["starter", "main", "dessert"]},
        "minutes": {"type": "integer", "minimum": 5, "maximum": 120},
        "note": {"type": "string", "minLength": 8, "maxLength": 60},
    },
    "required": ["dish", "course", "minutes", "note"],
    "additionalProperties": False,
}

TALK: list[Message] = [
    {"role": "user", "content": "Write a dish for the menu of a small restaurant, as JSON."},
    {
        "role": "assistant",
        "content": '{"dish": "Roasted beet soup", "course": "starter", "minutes": 40, '
        '"note": "Earthy and sweet, with dill."}',
    },
    {"role": "user", "content": "Another one."},
    {
        "role": "assistant",
        "content": '{"dish": "Walnut gnocchi", "course": "main", "minutes": 55, '
        '"note": "Soft, in brown butter and sage."}',
    },
    {"role": "user", "content": "Another one."},
]


def json_generation(model: LanguageModel) -> Generation:
    """Dishes as JSON, without rules: `run.log_evidence` is the log of the probability that the model's reply is valid.

    Meant for `motes.language.load("smollm2")` and 16 to 32 particles: texts of about 50 tokens.
    """
    return Generation(model, TALK, constraint=json_schema(DISH), max_tokens=56)
