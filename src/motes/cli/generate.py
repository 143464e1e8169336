"""Text from a language model under a constraint, weighted to follow the model's own law given the constraint."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motes.cli import running

if TYPE_CHECKING:
    from motes.core.model import FeynmanKac


def arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("--model", default="smollm2", help="smollm2, a hub id, a folder, or a GGUF file")
    command.add_argument("--prompt", required=True, help="what the text answers or continues")
    constraint = command.add_mutually_exclusive_group()
    constraint.add_argument("--regex", metavar="PATTERN", help="the whole text must match this regular expression")
    constraint.add_argument("--json-schema", type=Path, metavar="FILE", help="the text must be JSON of this schema")
    constraint.add_argument("--grammar", type=Path, metavar="FILE", help="the text must follow this Lark grammar")
    command.add_argument("--max-tokens", type=running.positive, default=64, help="a text is at most this long")
    command.add_argument(
        "--temperature", type=float, default=1.0, help="sample from the law to the power 1/temperature"
    )
    command.add_argument("--top-p", type=float, default=1.0, help="keep the likeliest tokens up to this mass")
    running.options(command, n=16, out="runs/generate")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    recipe = {
        "command": "generate",
        "model": args.model,
        "prompt": args.prompt,
        "constraint": constraint(args),
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "top_p": args.top_p,
    }
    result = running.start(rebuild(recipe), args, recipe)
    running.finish(result, [args.out / running.FILE], args.out / running.PAGE if args.report else None)
    return 0


def constraint(args: argparse.Namespace) -> list[Any] | None:
    """The constraint as JSON: which kind, and its text (the run must not depend on a file that may change)."""
    from motes.core.errors import FileError

    if args.regex is not None:
        return ["regex", args.regex]
    if args.grammar is not None:
        return ["grammar", args.grammar.read_text(encoding="utf-8")]
    if args.json_schema is not None:
        try:
            return ["json_schema", json.loads(args.json_schema.read_text(encoding="utf-8"))]
        except json.JSONDecodeError as error:
            raise FileError(f"{args.json_schema} is no JSON: {error}") from error
    return None


def rebuild(recipe: dict[str, Any], *, force: bool = False) -> FeynmanKac:
    """The model of a run, new or saved."""
    from motes import language

    rules = []
    if recipe["temperature"] != 1:
        rules.append(language.temperature(recipe["temperature"]))
    if recipe["top_p"] != 1:
        rules.append(language.nucleus(recipe["top_p"]))
    kind, source = recipe["constraint"] or (None, None)
    makers = {"regex": language.regex, "json_schema": language.json_schema, "grammar": language.grammar}
    return language.Generation(
        language.load(recipe["model"]),
        recipe["prompt"],
        rules=tuple(rules),
        constraint=makers[kind](source) if kind else None,
        max_tokens=recipe["max_tokens"],
    )
