"""Text from a language model under a constraint, weighted to follow the model's own law given the constraint."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motes.cli import running

if TYPE_CHECKING:
    from motes.core.files.schema import Check
    from motes.core.model import FeynmanKac


SHORT = {
    "temperature": ("temperature", 1.0),
    "top_k": ("top_k", None),
    "top_p": ("nucleus", 1.0),
    "min_p": ("min_p", None),
}
"""Options that are rules: the rule and the value that changes nothing, in the order of transformers."""


def arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("--model", default="smollm2", help="smollm2, a hub id, a folder, or a GGUF file")
    prompt = command.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT", help="what the text answers or continues")
    prompt.add_argument(
        "--prompt-file",
        metavar="FILE",
        help="the same from a file, or from standard input with `-`, without its last line end",
    )
    command.add_argument(
        "--no-chat", action="store_true", help="continue the prompt as it is, without the model's chat template"
    )
    limit = command.add_mutually_exclusive_group()
    limit.add_argument("--regex", metavar="PATTERN", help="the whole text must match this regular expression")
    limit.add_argument("--choice", action="append", metavar="TEXT", help="the text must be one of these; give each")
    limit.add_argument("--json-schema", type=Path, metavar="FILE", help="the text must be JSON of this schema")
    limit.add_argument("--grammar", type=Path, metavar="FILE", help="the text must follow this Lark grammar")
    limit.add_argument(
        "--constraint",
        metavar="CONSTRAINT",
        help="another constraint, such as 'starts_with(\"Dear \")'; with commas between several, all must hold",
    )
    command.add_argument("--max-tokens", type=running.positive, default=64, help="a text is at most this long")
    command.add_argument(
        "--temperature", type=float, default=1.0, help="sample from the law to the power 1/temperature"
    )
    command.add_argument("--top-k", type=running.positive, metavar="K", help="keep the K likeliest tokens")
    command.add_argument("--top-p", type=float, default=1.0, metavar="P", help="keep the likeliest tokens up to mass P")
    command.add_argument(
        "--min-p", type=float, metavar="P", help="keep tokens of at least P times the likeliest one's probability"
    )
    command.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="RULE",
        help="another rule of decoding, such as 'typical(0.9)' or 'no_repeat(3)'; several apply in the order given, "
        "after --temperature, --top-k, --top-p and --min-p, in this order",
    )
    command.add_argument(
        "--local",
        action="store_true",
        help="leave the mass that rules keep out of the weights, as other libraries do: tokens, and not whole texts, "
        "follow the changed law",
    )
    command.add_argument(
        "--step-of-text",
        metavar="END",
        help=r"weigh and resample where END stands, such as '\n\n'; else at every token",
    )
    running.options(command, n=16, out="runs/generate")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    recipe = {
        "command": "generate",
        "model": args.model,
        "prompt": prompt(args),
        "chat": not args.no_chat,
        "constraint": constraint(args),
        "max_tokens": args.max_tokens,
        "rules": shortcuts(vars(args)) + args.rule,
        "globalise": not args.local,
        "step": "token" if args.step_of_text is None else unescaped(args.step_of_text),
    }
    result = running.start(rebuild(recipe), args, recipe)
    running.finish(result, [args.out / running.FILE], args.out / running.PAGE if args.report else None)
    return 0


def prompt(args: argparse.Namespace) -> str:
    """The prompt itself, wherever it comes from: a run must not depend on a file that may change."""
    if args.prompt is not None:
        return args.prompt
    if args.prompt_file == "-":
        return sys.stdin.read().removesuffix("\n")
    return Path(args.prompt_file).read_text(encoding="utf-8").removesuffix("\n")


def unescaped(text: str) -> str:
    r"""The text with \n and \t written out."""
    return text.replace(r"\n", "\n").replace(r"\t", "\t")


def constraint(args: argparse.Namespace) -> list[Any] | None:
    """The constraint as JSON: which kind, and its text (the run must not depend on a file that may change)."""
    from motes.errors import FileError

    if args.regex is not None:
        return ["regex", args.regex]
    if args.constraint is not None:
        return ["written", args.constraint]
    if args.choice is not None:
        return ["choices", args.choice]
    if args.grammar is not None:
        return ["grammar", args.grammar.read_text(encoding="utf-8")]
    if args.json_schema is not None:
        try:
            return ["json_schema", json.loads(args.json_schema.read_text(encoding="utf-8"))]
        except json.JSONDecodeError as error:
            raise FileError(f"{args.json_schema} is no JSON: {error}") from error
    return None


def recipe_of() -> Check:
    """What a file says of a model that this command made."""
    from motes.core.files.schema import array, either, number, record, text, truth, whole

    older = {
        "temperature": number(),
        "top_k": either(whole(), None),
        "top_p": number(),
        "min_p": either(number(), None),
    }
    may = {"rules": array(text()), "globalise": truth, "chat": truth, "step": text(), **older}
    constraint = either(None, _constraint)
    return record(may, model=text(), prompt=text(), constraint=constraint, max_tokens=whole(1, 1 << 20))


def _constraint(value: Any, where: str) -> Any:
    from motes.core.files.schema import anything, array, refuse, text

    sources: dict[str, Check] = {
        "regex": text(),
        "choices": array(text()),
        "json_schema": anything,
        "grammar": text(),
        "written": text(),
    }
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] in sources):
        raise refuse(value, where, f"one of {', '.join(sources)} with its text")
    return [value[0], sources[value[0]](value[1], where)]


def foreign(recipe: dict[str, Any]) -> str | None:
    """What the model comes from that is not part of motes, nor of a package that motes knows."""
    from motes.language.models.hugging_face import PACKAGED

    return None if recipe["model"] in PACKAGED else recipe["model"]


def rebuild(recipe: dict[str, Any], *, force: bool = False, model: str | None = None) -> FeynmanKac:
    """The model of a run, new or saved; `model` names the language model, None is the recipe's own."""
    from motes import language

    texts = recipe["rules"] if "rules" in recipe else shortcuts(recipe)  # a saved run may be older than `--rule`
    rules = [rule for text in texts for rule in language.rules.parse(text)]
    kind, source = recipe["constraint"] or (None, None)
    constraint = _made(kind, source) if kind else None
    return language.Generation(
        language.load(recipe["model"] if model is None else model),
        recipe["prompt"],
        rules=tuple(rules),
        constraint=constraint,
        max_tokens=recipe["max_tokens"],
        globalise=recipe.get("globalise", True),
        chat="auto" if recipe.get("chat", True) else False,
        step=recipe.get("step", "token"),
    )


def _made(kind: str, source: Any) -> Any:
    from motes.language import both
    from motes.language.calls import parse
    from motes.language.constraints import constraints

    if kind == "written":
        return both(*parse(constraints, source, "starts_with('Dear '), canonical()"))
    return constraints[kind](source)


def shortcuts(given: dict[str, Any]) -> list[str]:
    """The rules that options of their own stand for, as `rules.parse` reads them."""
    said = ((rule, given.get(option, neutral), neutral) for option, (rule, neutral) in SHORT.items())
    return [f"{rule}({value!r})" for rule, value, neutral in said if value != neutral]
