"""Folders and files that try to run code: none is run, at a terminal neither, unless it is asked for by name."""

from __future__ import annotations

import builtins
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import motes
from language.test_gguf import write
from motes.errors import FileError, MotesError
from motes.language import reward_model
from motes.language.models import bounded
from motes.language.models import hugging_face as hub
from motes.language.uncertainty import MiniLM

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel
from transformers import PreTrainedTokenizerFast

Path({marker!r}).write_text("run")


class ForeignConfig(LlamaConfig):
    model_type = "foreign"


class ForeignForCausalLM(LlamaForCausalLM):
    config_class = ForeignConfig


class ForeignModel(LlamaModel):
    config_class = ForeignConfig


class ForeignForSequenceClassification(LlamaForSequenceClassification):
    config_class = ForeignConfig


class ForeignTokenizer(PreTrainedTokenizerFast):
    pass
"""


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def answers(monkeypatch, tmp_path):
    """A user at a terminal who says yes to everything, and transformers' store of code in a folder of the test."""
    asked = []
    monkeypatch.setattr(builtins, "input", lambda prompt="": asked.append(prompt) or "y")
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    return asked


def foreign(folder: str, path: Path, *, model: bool = True, tokenizer: bool = False) -> Path:
    """A copy of a model's folder whose code would write the file MARKER."""
    place = path / "foreign"
    shutil.copytree(folder, place)
    (place / "foreign.py").write_text(CODE.format(marker=str(path / "MARKER")))
    classes = ("Config", "ModelForCausalLM", "Model", "ModelForSequenceClassification")
    named = {f"Auto{c}": f"foreign.Foreign{c.replace('ModelFor', 'For')}" for c in classes}
    if model:
        edit(place / "config.json", model_type="foreign", architectures=["ForeignForCausalLM"], auto_map=named)
    if tokenizer:
        both = {"AutoTokenizer": ["foreign.ForeignTokenizer", "foreign.ForeignTokenizer"]}
        edit(place / "tokenizer_config.json", tokenizer_class="ForeignTokenizer", auto_map=both)
    return place


LOADERS = {"load": motes.language.load, "reward": lambda p: reward_model(str(p)), "embedding": MiniLM}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("where", ["model", "tokenizer", "both"])
def test_the_code_of_a_folder_is_neither_run_nor_asked_for(folder, tmp_path, answers, loader, where):
    place = foreign(folder, tmp_path, model=where != "tokenizer", tokenizer=where != "model")
    try:
        LOADERS[loader](place)
    except MotesError as error:
        assert where == "tokenizer" or "code of its own, which is not run" in str(error)
    assert not answers
    assert not (tmp_path / "MARKER").exists()


def test_transformers_alone_would_ask_and_run_it(folder, tmp_path, answers):
    """The broken twin: what `load` did before it said no by itself."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(foreign(folder, tmp_path))
    assert answers
    assert (tmp_path / "MARKER").exists()


def test_code_that_is_asked_for_by_name_is_run(folder, tmp_path, answers):
    place = foreign(folder, tmp_path)
    model: Any = motes.language.load(place, trust_remote_code=True)
    assert type(model.model).__name__ == "ForeignForCausalLM"
    assert (tmp_path / "MARKER").exists()
    assert not answers


def test_attention_code_of_the_hub_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "kernels")
    edit(tmp_path / "kernels" / "config.json", attn_implementation="someone/attention")
    with pytest.raises(FileError, match="attention code of 'someone/attention'"):
        motes.language.load(tmp_path / "kernels")


def test_pickled_weights_that_would_run_code_are_not_read(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "MARKER", "run"))

    place = tmp_path / "pickled"
    shutil.copytree(folder, place)
    (place / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Bomb()}, place / "pytorch_model.bin")
    for loader in LOADERS.values():
        with pytest.raises(FileError, match="pickled ones are not read"):
            loader(place)
    assert not (tmp_path / "MARKER").exists()


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch MARKER') }}",
    "{{ messages.append({'role': 'user', 'content': 'more'}) }}",
    "{% include '/etc/passwd' %}",
    "{% for",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_chat_templates_stay_in_their_sandbox(tiny, tmp_path, monkeypatch, template):
    monkeypatch.chdir(tmp_path)
    write(tiny, tmp_path / "model.gguf", template=template)
    model = motes.language.load(tmp_path / "model.gguf")
    with pytest.raises(MotesError, match=r"the chat template of .* failed"):
        model.encode("hi")
    assert not (tmp_path / "MARKER").exists()


ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "doubles": "{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "long": "{{ 'x' * 10 ** 11 }}",
    "much": "{{ 'x' * 10 ** 8 }}",
    "macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_chat_template_without_an_end_is_stopped(tiny, tmp_path, monkeypatch, what):
    monkeypatch.setattr(bounded, "SECONDS", 1.0)
    write(tiny, tmp_path / "model.gguf", template=ENDLESS[what])
    model = motes.language.load(tmp_path / "model.gguf")
    with pytest.raises(MotesError, match=r"the chat template of .* failed: (it did not end within|MemoryError)"):
        model.encode("hi")


class Endless(BaseException):
    pass


def test_a_chat_template_without_an_end_has_none_in_the_process_itself(tiny, tmp_path, monkeypatch):
    """The broken twin; and a template that ends makes the same text in both places."""

    def stop(*_):
        raise Endless

    for name in ("loops", "macro", "good"):
        good = "{% for m in messages %}[{{ m.role }}: {{ m.content }} é]{% endfor %}"
        write(tiny, tmp_path / "model.gguf", template=ENDLESS.get(name, good))
        model: Any = motes.language.load(tmp_path / "model.gguf")
        bound = model._templated([{"role": "user", "content": "hi"}]) if name == "good" else ""
        with monkeypatch.context() as here:
            here.setattr(hub, "bounded", lambda make: make())
            before = signal.signal(signal.SIGVTALRM, stop)
            signal.setitimer(signal.ITIMER_VIRTUAL, 2.0)
            try:
                if name == "good":
                    assert bound == model._templated([{"role": "user", "content": "hi"}]) == "[user: hi é]"
                else:
                    with pytest.raises(Endless):
                        model.encode("hi")
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                signal.signal(signal.SIGVTALRM, before)


def test_code_beside_a_gguf_file_is_not_run(tiny, folder, tmp_path, answers):
    """A file of another architecture goes to transformers, which looks at the folder."""
    place = foreign(folder, tmp_path, tokenizer=True)
    write(tiny, place / "model.gguf", pre="llama-bpe")
    try:
        motes.language.load(place / "model.gguf")
    except MotesError:
        pass
    assert not answers
    assert not (tmp_path / "MARKER").exists()
