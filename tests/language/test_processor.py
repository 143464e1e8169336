"""Rules inside transformers' generate: the same law as a run of motes, and transformers' own processors."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch

from motes.errors import MotesError
from motes.language import Generation, rules
from motes.language.generation.frontier import TextReader
from motes.language.models.hugging_face import TransformersModel
from motes.language.processor import processor
from motes.rng import Rng

transformers = pytest.importorskip("transformers")
LP = transformers.generation.logits_process
CHAIN = (
    rules.prompt_guidance("a dog", scale=1.4),
    rules.repetition(1.3),
    rules.mirostat_2(4.0, rate=0.3),
    rules.no_repeat(2),
)


def generate(model, prompts, rule, **options):
    made = processor(rule, model, max_tokens=12)
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Record(transformers.LogitsProcessor):
        def __call__(self, input_ids, scores):
            out = made(input_ids, scores)
            steps.append((input_ids.clone(), out.clone()))
            return out

    net = model.model
    ids = torch.stack(prompts)
    net.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        logits_processor=transformers.LogitsProcessorList([Record()]),
        max_new_tokens=6,
        pad_token_id=1,
        **options,
    )
    return steps


def check_rows(model, prompt, steps):
    """Each score is the law that a run's reader has for that text."""
    checked = 0
    for ids, scores in steps:
        for row, score in zip(ids, scores, strict=True):
            text = row[len(prompt) :].tolist()
            if row[: len(prompt)].tolist() != prompt.tolist() or any(v in model.end for v in text):
                continue
            reader = TextReader(model, prompt, 12, CHAIN, None)
            for token in text:
                reader.extend(torch.tensor([0]), torch.tensor([token]))
                reader.law = reader.find_law()
            law, score = reader.law.log_prob[0], torch.log_softmax(score.double(), -1)
            assert torch.equal(torch.isfinite(law), torch.isfinite(score))
            inside = torch.isfinite(law)
            torch.testing.assert_close(score[inside], law[inside], atol=2e-4, rtol=2e-4)
            checked += 1
    return checked


@pytest.mark.parametrize("options", [{"do_sample": False}, {"do_sample": False, "num_beams": 3}])
def test_scores_in_generate_are_the_laws_of_a_run(tiny, options):
    prompts = [tiny.encode("the cat sat"), tiny.encode("the dog sat")]
    assert len(prompts[0]) == len(prompts[1])
    steps = generate(tiny, prompts, CHAIN, **options)
    assert len(steps) == 6
    assert all(check_rows(tiny, prompt, steps) >= 6 for prompt in prompts)


def test_sampling_in_generate_stays_in_the_kept_sets(tiny):
    prompt = tiny.encode("a cat")
    steps = generate(tiny, [prompt] * 4, rules.top_k(3), do_sample=True)
    for (_, scores), (ids, _) in pairwise(steps):
        chosen, before = ids[:, -1], ids[:, len(prompt) : -1]
        going = ~torch.isin(before, torch.tensor(tiny.end)).any(1)
        assert bool(torch.isfinite(scores[going].gather(1, chosen[going, None])).all())


def test_a_processor_is_for_one_call(tiny):
    made = processor(rules.top_k(2), tiny)
    ids, scores = torch.tensor([[5, 6]]), torch.zeros(1, tiny.vocabulary)
    made(ids, scores)
    with pytest.raises(MotesError, match="new processor"):
        made(ids, scores)
    with pytest.raises(MotesError, match="tokens"):
        processor(rules.top_k(2), tiny)(ids, scores[:, :3])


def test_prompts_that_are_filled_up_need_their_token(tiny):
    """Without it a repetition penalty would count the filling as text."""
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.pad_token = "</s>"
    model = TransformersModel(tiny.model, tokenizer, name="filled")
    ids, scores = torch.tensor([[1, 5, 6], [4, 5, 6]]), Rng(3).at("scores").normal((2, tiny.vocabulary))
    with pytest.raises(MotesError, match="pass pad=1"):
        processor(rules.repetition(1.5), model)(ids, scores)
    out = processor(rules.repetition(1.5), model, pad=1)(ids, scores)
    alone = processor(rules.repetition(1.5), model)(ids[:1, 1:], scores[:1])
    torch.testing.assert_close(out[0], alone[0])
    processor(rules.repetition(1.5), model)(torch.tensor([[1, 5, 6], [1, 7, 6]]), scores)  # what all begin with


def test_another_context_has_no_more_room_than_its_model(tiny):
    context = tiny.decode(tiny.encode("the cat sat on a mat." * 20)[:80].tolist())
    room = tiny.longest - len(tiny.encode(context))
    assert 0 < room < 40
    made = processor(rules.prompt_guidance(context, scale=1.2), tiny, max_tokens=room)
    ids, scores = torch.tensor([[5, 6]]), torch.zeros(1, tiny.vocabulary)
    for _ in range(room + 1):
        made(ids, scores)
        ids = torch.cat([ids, torch.tensor([[4]])], 1)
    with pytest.raises(MotesError, match=f"room for {room}"):
        made(ids, scores)


ROWS = Rng(1).at("rows").normal((20, 90)) * 2
SAME = {
    "temperature": (LP.TemperatureLogitsWarper(0.7), rules.temperature(0.7)),
    "top_k": (LP.TopKLogitsWarper(7), rules.top_k(7)),
    "nucleus": (LP.TopPLogitsWarper(0.8), rules.nucleus(0.8)),
    "min_p": (LP.MinPLogitsWarper(0.1), rules.min_p(0.1)),
    "typical": (LP.TypicalLogitsWarper(0.6), rules.typical(0.6)),
    "epsilon": (LP.EpsilonLogitsWarper(0.02), rules.epsilon(0.02)),
    "eta": (LP.EtaLogitsWarper(0.3), rules.eta(0.3)),
    "top_h": (LP.TopHLogitsWarper(0.4), rules.top_h(0.4, criterion="partial")),
    "repetition": (LP.RepetitionPenaltyLogitsProcessor(1.3), rules.repetition(1.3)),
    "no_repeat": (LP.NoRepeatNGramLogitsProcessor(2), rules.no_repeat(2)),
    "min_new_tokens": (LP.MinNewTokensLengthLogitsProcessor(3, 4, [1]), rules.min_new_tokens(4)),
}


@pytest.mark.parametrize("name", SAME)
def test_transformers_own_processors_agree(name, tiny):
    """On log-probabilities, where a repetition penalty does not depend on the logits' constant."""
    theirs, rule = SAME[name]
    rows = torch.log_softmax(ROWS[:, : tiny.vocabulary], -1)
    prompt = torch.tensor([3, 7, 7])
    tokens = Rng(2).at("text").integers((20, 3), 9)
    ids = torch.cat([prompt.expand(20, -1), tokens], 1)
    expected = torch.log_softmax(theirs(ids, rows.clone()), -1)
    seen = rules_seen(tiny, prompt, tokens, rows)
    found, _ = rule(rows, seen)
    assert torch.equal(torch.isfinite(found), torch.isfinite(expected))
    inside = torch.isfinite(found)
    torch.testing.assert_close(found[inside], expected[inside])


def rules_seen(model, prompt, tokens, rows):
    from motes.language.rule import SeenTokens

    return SeenTokens(model, prompt, tokens, torch.full((len(tokens),), tokens.shape[1]), rows)


def test_a_model_moved_along_a_gradient(tiny):
    name = next(iter(dict(tiny.model.named_parameters())))
    weight = dict(tiny.model.named_parameters())[name]
    plus, minus = rules.moved(tiny, {name: torch.ones_like(weight)}, 1e-3)
    up, down = (dict(m.model.named_parameters())[name] for m in (plus, minus))
    torch.testing.assert_close(up - down, torch.full_like(weight, 2e-3), atol=1e-6, rtol=1e-3)
    model = Generation(tiny, "a cat", rules=rules.antidistillation(plus, minus, strength=0.1, step=1e-3), max_tokens=3)
    assert model.init(Rng(0), 4).n == 4
    with pytest.raises(MotesError, match="no parameter"):
        rules.moved(tiny, {"x": torch.ones(2)}, 1e-3)


def test_stable_decoding(tiny):
    greedy = rules.stable_entropy(width=float("inf"))
    text, backs = rules.decode_stable(tiny, "a cat", seed=Rng(0), rule=greedy, max_tokens=8)
    prompt = tiny.encode("a cat")
    ids = tiny.model.generate(
        prompt[None], attention_mask=torch.ones_like(prompt[None]), max_new_tokens=8, do_sample=False, pad_token_id=1
    )
    assert (text, backs) == (tiny.decode(ids[0, len(prompt) :].tolist()), 0)
    low = rules.stable_entropy(0.0, mean=(9.0, 0.0), sd=(0.0, 0.0), calm=0)  # always below the band
    text, backs = rules.decode_stable(tiny, "a cat", seed=Rng(0), rule=low, max_tokens=20, patience=2, back=2, most=3)
    assert backs <= 3
    if len(text) > 10:
        assert backs > 0
