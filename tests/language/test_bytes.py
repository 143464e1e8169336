"""Byte by byte: probabilities of strings against all their token sequences, the byte model in runs, healed prompts."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import pytest
import torch

import motes
from language.test_exact import TOLERANCE, assert_same_law, mean_law
from motes.core.smc import steps
from motes.errors import MotesError
from motes.language import (
    ByteModel,
    Generation,
    TableModel,
    healed,
    json_schema,
    next_bytes,
    nucleus,
    regex,
    temperature,
)
from motes.language.bytewise.tokenization_covers import Cover
from motes.language.compression import compress, decompress_tokens
from motes.language.speculation import PromptLookup, speculating
from motes.rng import Rng

TOKENS = ["a", "b", "ab", "ba", "aab", "."]
END = 5
LOGITS = torch.tensor([[1.5 * math.sin(3 * i + 1.7 * j * j + 1) for j in range(6)] for i in range(7)]).double()
LAW = LOGITS.softmax(-1)
"""Rows: the last token, at the start the last one. Columns: the next token."""


def table() -> TableModel:
    return TableModel(TOKENS, LOGITS)


def brute(s: str) -> tuple[float, float]:
    """P(the text begins with s) over all its minimal covers, and P(the text is s) over all its spellings."""
    begins, is_it = 0.0, 0.0
    waiting = [((), "", 1.0)]
    while waiting:
        tokens, text, p = waiting.pop()
        if len(text) >= len(s):
            begins += p * text.startswith(s)
            is_it += p * float(LAW[tokens[-1] if tokens else -1, END]) * (text == s)
        elif s.startswith(text):
            row = LAW[tokens[-1] if tokens else -1].tolist()
            waiting += [((*tokens, v), text + TOKENS[v], p * row[v]) for v in range(END)]
    return begins, is_it


def strings(most: int) -> list[str]:
    return ["".join(s) for n in range(most + 1) for s in itertools.product("ab", repeat=n)]


@pytest.mark.parametrize("beam", [None, 10_000])
def test_a_string_has_the_probability_of_all_its_covers(beam):
    """Also its next bytes and its end, and these add up to it."""
    for s in strings(5):
        found, (begins, is_it) = next_bytes(table(), s, beam=beam), brute(s)
        p = math.exp(found.log_prob)
        after = p * found.next_log_prob.exp()
        assert p == pytest.approx(begins, rel=TOLERANCE)
        assert float(after.sum()) == pytest.approx(p, rel=TOLERANCE)
        assert float(after[256]) == pytest.approx(is_it, rel=TOLERANCE)
        for b in "ab":
            assert float(after[ord(b)]) == pytest.approx(brute(s + b)[0], rel=TOLERANCE)
        assert found.log_lost == -math.inf and found.log_kept == 0


@pytest.mark.parametrize("beam", [2, 3, 5])
def test_a_beam_says_what_it_lost(beam):
    """Its probability is too small by no more than the bound; one that never prunes would be too large or exact."""
    lost = 0.0
    for s in strings(7)[60::3]:
        found, exact = next_bytes(table(), s, beam=beam), brute(s)[0]
        p, bound = math.exp(found.log_prob), math.exp(found.log_lost)
        assert p <= exact * (1 + TOLERANCE) and exact <= (p + bound) * (1 + TOLERANCE)
        assert float(found.next_log_prob.exp().sum()) == pytest.approx(1, abs=TOLERANCE)
        assert (found.log_kept == 0) == (bound == 0)
        lost = max(lost, 1 - p / exact)
    assert lost > 0.02


def test_one_tokenisation_alone_has_another_law():
    """The broken twin: the law of the next byte after the one way in which the tokenizer cuts the string."""
    greedy = LAW[TOKENS.index("a")]  # after the tokens "ab" and "a", as if no "aab" or "ba" could have been meant
    next_a = float(greedy[[TOKENS.index(t) for t in ("a", "ab", "aab")]].sum())
    exact = brute("abaa")[0] / brute("aba")[0]
    assert float(next_bytes(table(), "aba").next_log_prob[ord("a")].exp()) == pytest.approx(exact, rel=TOLERANCE)
    assert abs(next_a - exact) > 0.3


def byte_law(most: int, accepts=lambda s: True) -> dict[tuple[int, ...], float]:
    """Texts of bytes up to their end, or cut at `most` bytes, from enumerated token sequences."""
    law = {}
    for s in strings(most):
        begins, is_it = brute(s)
        if accepts(s):
            text = tuple(s.encode())
            law |= {(*text, 256): is_it} if len(s) < most else {text: begins}
    return law


@pytest.mark.parametrize("n", [1, 2])
def test_a_run_over_bytes_has_the_law_of_the_token_models_bytes(n):
    found, z = mean_law(Generation(ByteModel(table()), "", max_tokens=2), n)
    assert_same_law(found, byte_law(2))
    assert z == pytest.approx(1, abs=TOLERANCE)


def test_a_constraint_is_weighed_byte_by_byte():
    model = Generation(ByteModel(table()), "", constraint=regex("ab?|b|bab"), max_tokens=3)
    expected = byte_law(3, lambda s: s in ("a", "ab", "b", "bab"))
    found, z = mean_law(model, 2)
    assert_same_law(found, expected)
    assert z == pytest.approx(sum(expected.values()), abs=TOLERANCE)


def test_rules_act_on_bytes():
    found, _ = mean_law(Generation(ByteModel(table()), "", rules=[temperature(0.5)], max_tokens=2), 1)
    first, ends = brute("a")[0], brute("")[1]
    assert found[(256,)] == pytest.approx(ends**2, abs=TOLERANCE)
    assert found[(97, 256)] == pytest.approx((first * brute("a")[1] / first) ** 2, abs=TOLERANCE)


def test_a_beam_of_one_can_lose_a_string():
    """Of "aa" it keeps "aab", which is no beginning of "aaa"; two keep what ends with the string as well."""
    with pytest.raises(MotesError, match="spell"):
        next_bytes(table(), "aaa", beam=1)
    assert next_bytes(table(), "a" * 12, beam=2).log_prob > -math.inf


def test_a_beam_of_one_is_noticed():
    found, _ = mean_law(Generation(ByteModel(table(), beam=1), "", max_tokens=3), 1)
    expected = byte_law(3)
    assert sum(found.values()) == pytest.approx(1, abs=TOLERANCE)
    assert sum(abs(found.get(text, 0.0) - p) for text, p in expected.items()) / 2 > 0.05


def fresh(model: ByteModel, symbols: list[int]) -> tuple[torch.Tensor, Cover]:
    prefixes = model.prefixes(model.encode("") if isinstance(model.model, TableModel) else torch.tensor([97]), 16)
    for s in symbols:
        prefixes.extend(torch.tensor([0]), torch.tensor([s]))
    return prefixes.logits[0], prefixes.covers[0]


def walk(model: ByteModel, prompt: torch.Tensor, alphabet: list[int], tolerance: float) -> None:
    """Every row is what a new one of the same text would be, whatever was done to it."""
    prefixes, texts, rng = model.prefixes(prompt, 16), [[]], Rng(3)

    def check() -> None:
        assert prefixes.length.tolist() == [len(t) for t in texts]
        for i, text in enumerate(texts):
            logits, cover = fresh(model, text)
            torch.testing.assert_close(prefixes.logits[i], logits, rtol=0, atol=tolerance)
            assert prefixes.covers[i].log_prob == pytest.approx(cover.log_prob, abs=tolerance)

    def some(purpose: str, shape: tuple[int, ...], most: int) -> torch.Tensor:
        return (rng.at(purpose).uniform(shape) * most).long()

    symbol = torch.tensor(alphabet)
    for turn in range(4):
        parent = some(f"parent-{turn}", (4,), len(texts))
        token = symbol[some(f"token-{turn}", (4,), len(alphabet))]
        token[turn % 4] = -1
        prefixes.extend(parent, token)
        texts = [texts[p] + ([v] if v >= 0 else []) for p, v in zip(parent.tolist(), token.tolist(), strict=True)]
        check()
        tokens = symbol[some(f"look-{turn}", (4, 3), len(alphabet))]
        count, kept = torch.tensor([3, 0, 2, 1]), torch.tensor([2, 0, 0, 1])
        looked = prefixes.look(tokens, count)
        check()
        torch.testing.assert_close(
            looked[0, 2], fresh(model, [*texts[0], *tokens[0].tolist()])[0], rtol=0, atol=tolerance
        )
        before = [fresh(model, text[: len(text) // 2])[0] for text in texts]
        prefixes.keep(kept)
        texts = [t + tokens[i, : int(kept[i])].tolist() for i, t in enumerate(texts)]
        check()
        if turn % 2:
            texts = [text[: len(text) // 2] for text in texts]
            before = [fresh(model, text)[0] for text in texts]
            prefixes.shorten(torch.tensor([len(text) for text in texts]), torch.stack(before))
            check()


@pytest.mark.parametrize("beam", [None, 3])
def test_rows_may_be_looked_ahead_of_kept_and_shortened(beam):
    model = ByteModel(table(), beam=beam)
    walk(model, model.encode(""), list(b"ab"), 1e-12)


def test_rows_of_a_transformer_too(tiny):
    walk(ByteModel(tiny, beam=4), torch.tensor([97]), [*b"aht ", 257], 1e-4)


def test_a_token_sequence_is_evaluated_once_for_all_that_it_covers():
    model = table()
    prefixes = ByteModel(model).prefixes(torch.tensor([256]), 8)
    for s in b"aab":
        prefixes.extend(torch.zeros(2, dtype=torch.int64), torch.tensor([s, s + 1 if s == 97 else s - 1]))
    # nothing; a, b; a|a, a|b, ab; a|a|b, a|ab, aab, a|a|a
    assert model.evaluations == 1 + 2 + 3 + 4


def test_tokens_that_write_the_same_count_each():
    model = TableModel(["a", "a", "ab", "."], torch.tensor([0.3, 0.2, 0.1, 0.4]).double().log().expand(5, 4))
    assert math.exp(next_bytes(model, "a").log_prob) == pytest.approx(0.6, abs=1e-7)
    assert math.exp(next_bytes(model, "aa").log_prob) == pytest.approx(0.5 * 0.6, abs=1e-7)


def test_control_tokens_are_symbols_of_their_own(tiny):
    """The end of a text is 256, the beginning of one 257; neither is spelt as what its name looks like."""
    model, prompt = ByteModel(tiny), tiny.encode("the cat")
    assert model.vocabulary == 258 and model.end == (256,)
    mine = model.prefixes(model.encode("the cat"), 8)
    theirs = tiny.prefixes(prompt, 8)
    p = theirs.logits[0].double().softmax(-1)
    assert mine.logits[0, 256:].exp().tolist() == pytest.approx([float(p[1]), float(p[0])], rel=1e-5)
    mine.extend(torch.tensor([0]), torch.tensor([257]))
    theirs.extend(torch.tensor([0]), torch.tensor([0]))
    p = theirs.logits[0].double().softmax(-1)
    assert mine.logits[0, 256:].exp().tolist() == pytest.approx([float(p[1]), float(p[0])], rel=1e-5)
    assert model.spelling.tokens([257, *b"the cat", 256]) == [0, *prompt.tolist(), 1]
    assert model.decode([257, *b"the cat", 256]) == "the cat"


def test_a_run_goes_on_from_what_was_saved():
    model = Generation(ByteModel(table(), beam=3), "", rules=[temperature(1.2)], max_tokens=6)
    states = list(steps(model, 8, seed=4))
    middle = model.restore(states[3].particles)
    row = middle.x["frontier"].row
    alive = row >= 0
    texts = [bytes(x[:3].tolist()) for x in middle.x["tokens"][alive]]
    found = middle.x["frontier"].reader.prefixes
    assert [bytes(found.texts[r]) for r in row[alive].tolist()] == texts
    for r in row[alive].tolist():
        logits, _ = fresh(ByteModel(table(), beam=3), list(found.texts[r]))
        torch.testing.assert_close(found.logits[r], logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("beam", [None, 4])
def test_speculation_changes_nothing(beam):
    """Guesses are looked at, kept and gone back from; texts and weights are the same."""
    plain = ByteModel(table(), beam=beam)
    quick = speculating(plain, draft=PromptLookup(2), tokens=3)
    runs = [
        motes.sample(Generation(m, "", constraint=regex("[ab]*"), max_tokens=8), 6, seed=2, progress=False)
        for m in (plain, quick)
    ]
    assert runs[0].texts == runs[1].texts
    torch.testing.assert_close(runs[0].particles.log_weight, runs[1].particles.log_weight, rtol=0, atol=TOLERANCE)
    assert quick.counts["right"] > 0


def test_a_text_is_coded_with_all_its_spellings():
    """The code length is minus log2 of the probability of the bytes, not of one tokenisation of them."""
    model, text = ByteModel(table()), "abaababba"
    packed = compress(model, list(text.encode()))
    assert bytes(decompress_tokens(model, packed)).decode() == text
    assert packed.log_prob == pytest.approx(math.log(brute(text)[1]), abs=1e-9)
    assert packed.log_prob > compress(table(), text).log_prob + 1


def test_what_no_token_spells_has_no_probability():
    with pytest.raises(MotesError, match="spell b'ac'"):
        next_bytes(table(), "ac")
    prefixes = ByteModel(table()).prefixes(torch.tensor([256]), 8)
    prefixes.extend(torch.tensor([0]), torch.tensor([99]))
    assert prefixes.covers[0].log_prob == -math.inf
    assert torch.isfinite(prefixes.logits).all()
    prefixes.extend(torch.tensor([0]), torch.tensor([97]))
    assert prefixes.covers[0].log_prob == -math.inf


@pytest.mark.parametrize("beam", [0, 2.0, True, "all"])
def test_a_beam_is_a_number(beam):
    with pytest.raises(MotesError, match="beam must be"):
        ByteModel(table(), beam=beam)


# ------------------------------------------------------------------------------------------------ healing


class Greedy(TableModel):
    """A table with prompts, which it forgets: as if the model had read nothing before the text."""

    def encode(self, prompt, chat="auto"):
        out, rest = [], str(prompt)
        while rest:
            out.append(max((v for v in range(END) if rest.startswith(self.tokens[v])), key=lambda v: len(TOKENS[v])))
            rest = rest[len(TOKENS[out[-1]]) :]
        return torch.tensor(out or [END])


def test_a_healed_prompt_has_the_law_of_what_begins_with_it():
    """The prompt "a" may be part of "ab" and "aab": the text begins with it, in every spelling."""
    model = Greedy(TOKENS, LOGITS)
    prompt, begun = healed(model, "a")
    assert prompt == "" and begun.settings()["beginning"] == b"a".hex()
    found, z = mean_law(Generation(model, prompt, constraint=begun, chat=False, max_tokens=2), 1)
    assert z == pytest.approx(brute("a")[0], abs=TOLERANCE)
    next_byte = defaultdict(float)
    for tokens, p in found.items():
        text = "".join(TOKENS[v] for v in tokens if v != END)
        next_byte[text[1:2]] += p / z
    for b in "ab":
        assert next_byte[b] == pytest.approx(brute("a" + b)[0] / brute("a")[0], abs=TOLERANCE)
    fixed = float(LAW[0, [1, 3]].sum())  # the broken twin: the token "a" stays, then "b" comes
    assert abs(fixed - next_byte["b"]) > 0.05


def test_only_what_may_go_on_is_cut():
    model = Greedy(TOKENS, LOGITS)
    for text in strings(5)[1:]:
        prompt, begun = healed(model, text)
        rest = bytes.fromhex(begun.settings()["beginning"]).decode()
        assert prompt + rest == text
        tokens = model.encode(text).tolist()
        cuts = ["".join(TOKENS[v] for v in tokens[at:]) for at in range(len(tokens))]
        goes_on = [cut for cut in cuts if any(t.startswith(cut) and t != cut for t in TOKENS[:END])]
        assert len(rest) >= len(max(goes_on, key=len, default=""))
        assert not prompt or model.encode(prompt).tolist() == tokens[: len(model.encode(prompt))]
        assert bool(rest) == bool(goes_on)


def test_a_space_that_the_tokenizer_puts_in_front_is_written_again():
    class Spaced(TableModel):
        def encode(self, prompt, chat="auto"):
            return torch.tensor([0] if prompt else [3])

    model = Spaced([" a", "b", " ab", "."], torch.zeros(5, 4))
    prompt, begun = healed(model, "a")
    assert (prompt, begun.settings()["beginning"]) == ("", b" a".hex())


@pytest.mark.parametrize("prompt", ["", b"ab", None])
def test_a_prompt_to_heal_is_a_text(prompt):
    with pytest.raises(MotesError, match="not empty"):
        healed(table(), prompt)


# ------------------------------------------------------------------------------------------------ SmolLM2


def test_a_prompt_cut_in_a_word_goes_on_as_the_whole(smollm2):
    """With the tokens of "Fran" fixed hardly any text goes on with "ce"; healed, nine of ten do."""
    short, begun = healed(smollm2, "The capital of Fran")
    assert short == "The capital of"
    cases = {"fixed": ("The capital of Fran", None), "healed": (short, begun)}
    share = {}
    for name, (prompt, constraint) in cases.items():
        model = Generation(smollm2, prompt, constraint=constraint, chat=False, max_tokens=4)
        run = motes.sample(model, 32, seed=0, progress=False)
        good = [(prompt + text).startswith("The capital of France") for text in run.texts]
        share[name] = float(run.weight[torch.tensor(good)].sum())
    assert share["fixed"] < 0.2 and share["healed"] > 0.8
    exact = next_bytes(smollm2, " Fran", prompt=short, chat=False)
    assert float(exact.next_log_prob[ord("c")].exp()) > 0.8
    assert run.log_evidence == pytest.approx(exact.log_prob, abs=5 * run.log_evidence_se + 0.05)


def test_next_bytes_of_a_real_model_add_up(smollm2):
    """Also at the end of a character's first byte; and 20 covers lose nothing that counts."""
    model = ByteModel(smollm2, beam=20)
    prompt = model.encode("How do you do?")
    assert model.spelling.tokens(prompt.tolist()) == smollm2.encode("How do you do?").tolist()
    for text in ("", "I'm doing we", "Ça va? \N{GRINNING FACE}".encode()[:-2]):
        found = next_bytes(smollm2, text, prompt="How do you do?", beam=20)
        assert float(found.next_log_prob.exp().sum()) == pytest.approx(1, abs=1e-12)
        assert -1e-3 < found.log_kept <= 0
    exact, beam = (next_bytes(smollm2, "I'm do", prompt="How do you do?", beam=k) for k in (None, 20))
    assert beam.log_prob == pytest.approx(exact.log_prob, abs=1e-4) and beam.log_prob <= exact.log_prob
    torch.testing.assert_close(beam.next_log_prob.exp(), exact.next_log_prob.exp(), rtol=0, atol=1e-4)


def test_everything_else_takes_a_byte_model(smollm2):
    """A schema and a truncation, byte by byte: the text is valid and only 12 symbols were likely anywhere."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"]}
    model = Generation(
        ByteModel(smollm2, beam=3),
        'Write {"n": 7} as JSON.',
        rules=[nucleus(0.99)],
        constraint=json_schema({**schema, "additionalProperties": False}, layout="spaced"),
        max_tokens=10,
    )
    run = motes.sample(model, 4, seed=0, progress=False)
    assert all(text[:6] == '{"n": ' and text[6].isdigit() and text[7:] == "}" for text in run.texts)
