"""Models of every kind of cache give each row the logits of its text alone, or are refused with a sentence."""

from __future__ import annotations

import warnings

import pytest
import torch

import motes
from language.test_ragged_prefixes import alone, random_walk
from motes.errors import MotesError, MotesWarning
from motes.language import Generation, TransformersModel
from motes.language.models import cache_check, states
from motes.language.models.cache_check import KINDS, find_cache
from motes.language.models.states import StatePrefixes
from motes.language.models.whole import WholePrefixes

PROMPT = torch.arange(5, 14)
SMALL = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
MIXED = ["linear_attention", "full_attention", "linear_attention"]
HEADS = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 4, "mamba_chunk_size": 4}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": MIXED,
}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
WINDOW = {"sliding_window": 5, "head_dim": 8}
LOCAL = ["sliding_attention", "full_attention", "sliding_attention"]
STATES = {
    "Mamba": {"state_size": 4, "time_step_rank": 4},
    "Mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2, "state_size": 8, "chunk_size": 4},
    "Jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "num_experts": 2,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
    },
    "FalconH1": {**HEADS, "mamba_d_ssm": 64, "head_dim": 8},
    "Bamba": {**HEADS, "attn_layer_indices": [1]},
    "Qwen3Next": {**EXPERTS, **LINEAR, "head_dim": 8, "shared_expert_intermediate_size": 16},
    "Lfm2": {"layer_types": ["conv", "full_attention", "conv"], "conv_L_cache": 3},
    "Rwkv": {"attention_hidden_size": 32, "context_length": 64},
}
ROWS = {
    "GPT2": {"n_positions": 96, "n_embd": 24, "n_layer": 2, "n_head": 3},
    "Mistral": WINDOW,
    "Gemma2": WINDOW,
    "Gemma3Text": {**WINDOW, "layer_types": LOCAL},
    "Bloom": {"n_layer": 2, "n_head": 4},
    "GptOss": {**WINDOW, "num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": LOCAL},
}
WHOLE = {"RecurrentGemma": {"lru_width": 32, "attention_window_size": 5, "num_key_value_heads": 1}}


def build(kind: str):
    import transformers

    known = {**STATES, **ROWS, **WHOLE}[kind]
    name = f"{kind}Config"
    if not hasattr(transformers, name):
        pytest.skip(f"this version of transformers has no {name}")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = getattr(transformers, name)(**{**SMALL, **known})
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def walk(model, prefixes, prompt=PROMPT, steps: int = 8) -> None:
    known: dict[tuple[int, ...], torch.Tensor] = {}

    def expected(text):
        if tuple(text) not in known:
            known[tuple(text)] = alone(model, prompt, text)
        return known[tuple(text)]

    random_walk(prefixes, 40, 1, steps, 30, expected)


@pytest.mark.parametrize("kind", [*STATES, *ROWS, *WHOLE])
def test_each_row_has_the_logits_of_its_text_alone(kind):
    model = build(kind)
    how, vocabulary, _ = find_cache(model, kind)
    assert vocabulary == 40
    assert how.startswith("states") == (kind in STATES)
    assert (how in ("rows", "shared")) == (kind in ROWS)
    walk(model, KINDS[how](model, PROMPT, None))


@pytest.mark.parametrize("kind", ["Mamba", "Jamba"])
@pytest.mark.parametrize("length", [1, 9])
def test_states_hold_for_short_prompts_and_fixed_batches(kind, length):
    model, prompt = build(kind), PROMPT[:length]
    walk(model, StatePrefixes(model, prompt, micro_batch=4), prompt)
    walk(model, WholePrefixes(model, prompt, micro_batch=4), prompt, 4)


@pytest.mark.parametrize("kind", ["Mamba", "Jamba", "Mistral", "GPT2"])
def test_shortened_rows_go_on_from_what_is_left(kind):
    model = build(kind)
    for prefixes in (WholePrefixes(model, PROMPT), KINDS[find_cache(model, kind)[0]](model, PROMPT, None)):
        prefixes.extend(torch.tensor([0, 0, 0]), torch.tensor([3, 4, 5]))
        one = prefixes.logits.clone()
        prefixes.extend(torch.tensor([0, 1, 2]), torch.tensor([6, 7, 8]))
        start = alone(model, PROMPT, [])[-1]
        prefixes.shorten(torch.tensor([1, 2, 0]), torch.stack([one[0], prefixes.logits[1], start]))
        prefixes.extend(torch.tensor([0, 1, 2]), torch.tensor([9, 10, 11]))
        for found, text in zip(prefixes.logits, ([3, 9], [4, 7, 10], [11]), strict=True):
            torch.testing.assert_close(found, alone(model, PROMPT, text)[-1], rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------- broken twins


def test_key_value_rows_of_a_recurrent_model_are_off_by_nats():
    """The twin: what a model without keys and values came to before it was checked."""
    model = build("Mamba")
    prefixes = KINDS["rows"](model, PROMPT, None)
    prefixes.extend(torch.tensor([0]), torch.tensor([3]))
    wrong, right = prefixes.logits[0].log_softmax(-1), alone(model, PROMPT, [3])[-1].log_softmax(-1)
    assert float((wrong - right).abs().max()) > 1.0
    assert "caches keys and values of 0" in str(find_cache(model, "mamba")[2])


@pytest.mark.parametrize("broken", ["written to", "swapped"])
def test_states_that_are_not_copied_by_row_are_noticed(broken, monkeypatch):
    """The twins: states that a step writes to though others may need them, and rows that get each other's."""
    model, true = build("Jamba"), states.mapped
    if broken == "swapped":
        monkeypatch.setattr(states, "taken", lambda t, rows: t[rows[::-1]] if t.ndim else t)
    else:
        monkeypatch.setattr(states, "mapped", lambda f, *caches: caches[0] if len(caches) == 1 else true(f, *caches))
    assert find_cache(model, "jamba")[0] not in ("states", "states at positions")
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        walk(model, StatePrefixes(model, PROMPT))


def test_a_cache_that_loses_what_its_layers_add_is_noticed(monkeypatch):
    """The twin: a key-value cache whose rows move to the wrong place."""
    from motes.language.models.cache import RowLayer

    model = build("GPT2")
    assert find_cache(model, "gpt2")[0] == "rows"
    monkeypatch.setattr(RowLayer, "move", lambda self, source, target, length: None)
    assert find_cache(model, "gpt2")[0] != "rows"


# ------------------------------------------------------------------- runs


def wrapped(tiny, model, name: str = "small", **options) -> TransformersModel:
    if hasattr(model, "generation_config"):
        model.generation_config.eos_token_id = 1
    return TransformersModel(model, tiny.tokenizer, name=name, **options)


@pytest.mark.parametrize("kind", ["Mamba", "Jamba", "Mistral"])
def test_a_run_weighs_texts_by_the_model_that_reads_them_whole(tiny, kind):
    """The log-probabilities that a run keeps are those of full passes over its finished texts."""
    model = wrapped(tiny, build(kind))
    run = motes.sample(Generation(model, "the cat", max_tokens=10), 6, seed=3, progress=False)
    x, prompt = run.particles.x, model.encode("the cat")
    for i in range(6):
        text = x["tokens"][i, : int(x["length"][i])].tolist()
        law = alone(model.model, prompt, text)[:-1].double().log_softmax(-1)
        right = law[torch.arange(len(text)), torch.tensor(text)]
        torch.testing.assert_close(x["log_prob"][i, : len(text)], right, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["Mamba", "Jamba"])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_a_run_of_a_recurrent_model_resumes_bit_for_bit(tiny, tmp_path, kind, micro_batch):
    def model():
        return Generation(
            wrapped(tiny, build(kind), micro_batch=micro_batch), "the cat", rules="top_k(9)", max_tokens=9
        )

    settings = {"seed": 6, "ess_threshold": 0.9, "progress": False}
    whole = motes.sample(model(), 8, **settings)
    path = tmp_path / "run.safetensors"
    motes.sample(model(), 8, **settings, callback=lambda state: state.particles.t == 4, checkpoint=path)
    resumed = motes.resume(path, model(), progress=False)
    assert torch.equal(resumed.particles.log_weight, whole.particles.log_weight)
    assert torch.equal(resumed.particles.x["tokens"], whole.particles.x["tokens"])


def long_rope():
    """Phi-3 with other frequencies for texts of more than 12 tokens."""
    from transformers import Phi3Config, Phi3ForCausalLM

    scaling = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    lengths = {"original_max_position_embeddings": 12, "max_position_embeddings": 96}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Phi3ForCausalLM(Phi3Config(**SMALL, **lengths, rope_parameters=scaling)).eval()


def test_positions_that_turn_at_a_length_are_read_whole_across_it(tiny):
    """A cache is right up to the length and beyond it; across it, the broken twins, it or one reading are off."""

    def read_alone(text):
        return torch.stack([alone(model.model, PROMPT, text[:k])[-1] for k in range(len(text) + 1)])

    model = wrapped(tiny, long_rope(), "phi")
    assert model.turning == 12 and model.cache != "none"
    for prompt, most in ((PROMPT, 3), (torch.arange(5, 18), 8)):
        with warnings.catch_warnings():
            warnings.simplefilter("error", MotesWarning)
            prefixes = model.prefixes(prompt, most)
        assert not isinstance(prefixes, WholePrefixes)
        if most > 3:
            walk(model.model, prefixes, prompt)
    with pytest.warns(MotesWarning, match="more than 12 tokens with other positions throughout"):
        across = model.prefixes(PROMPT, 20)
    random_walk(across, 40, 1, 8, 30, read_alone)
    for wrong in (KINDS[model.cache](model.model, PROMPT, None), WholePrefixes(model.model, PROMPT)):
        with pytest.raises(AssertionError):
            random_walk(wrong, 40, 1, 8, 30, read_alone)


def test_a_model_without_a_cache_that_is_right_says_so(tiny):
    with pytest.warns(MotesWarning, match="every step reads the whole texts again"):
        wrapped(tiny, build("RecurrentGemma"), "griffin")
    with warnings.catch_warnings():
        warnings.simplefilter("error", MotesWarning)
        wrapped(tiny, build("Mamba"))


# ------------------------------------------------------------------- what is refused


def small_bert(**options):
    from transformers import BertConfig, BertLMHeadModel

    return BertLMHeadModel(BertConfig(**SMALL, max_position_embeddings=60, **options)).eval()


def test_encoders_and_decoders_with_encoders_are_refused(tiny):
    from transformers import GPT2Config, GPT2Model, T5Config, T5ForConditionalGeneration

    t5 = T5ForConditionalGeneration(T5Config(vocab_size=40, d_model=16, d_kv=4, num_layers=1, num_heads=2, d_ff=8))
    with pytest.raises(MotesError, match="an encoder and writes with a decoder"):
        wrapped(tiny, t5)
    with pytest.raises(MotesError, match="no causal model"):
        wrapped(tiny, small_bert())
    assert find_cache(small_bert(is_decoder=True), "bert")[0] == "rows"
    with pytest.raises(MotesError, match="without a language-model head"):
        wrapped(tiny, GPT2Model(GPT2Config(vocab_size=40, n_embd=24, n_layer=1, n_head=3)).eval())


class Noisy(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x, 0.5)


def test_what_is_random_outside_of_training_is_refused(tiny):
    model = build("GPT2")
    model.transformer.drop = Noisy()
    with pytest.raises(MotesError, match="something in it is random"):
        wrapped(tiny, model)


def test_a_model_in_training_mode_is_set_to_evaluation_and_must_stay_there(tiny):
    model = build("GPT2").train()
    assert model.transformer.drop.p > 0
    made = wrapped(tiny, model)
    assert not model.training
    made.model.train()
    with pytest.raises(MotesError, match=r"training mode.*\.eval\(\)"):
        motes.sample(Generation(made, "the cat", max_tokens=3), 2, seed=0, progress=False)


def test_weights_that_are_not_finite_are_for_the_run_to_report(tiny):
    model = build("GPT2")
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(torch.nan)
    made = wrapped(tiny, model)
    with pytest.raises(MotesError, match="NaN or infinite logits"):
        motes.sample(Generation(made, "the cat", max_tokens=3), 2, seed=0, progress=False)


def test_rounding_is_allowed_by_the_number_type_and_no_more():
    right = torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(0))
    for kind, small, large in ((torch.float32, 1e-4, 0.01), (torch.bfloat16, 0.02, 0.2)):
        logits = right.to(kind)
        noise = torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(1))
        assert cache_check._same(logits, logits + small * noise.to(kind), cache_check._allowed(logits))
        assert not cache_check._same(logits, logits + large * noise.to(kind), cache_check._allowed(logits))
