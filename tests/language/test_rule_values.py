"""Rules against closed forms, brute force and transformers' own processors."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from language.tables import table
from motes.errors import MotesError, UnknownName
from motes.language import rules
from motes.language.rule import Rule, SeenTokens
from motes.language.rules.entropy_temperature import EntropyTemperature
from motes.language.rules.mirostat import Mirostat1
from motes.language.watermark import binomial_tail
from motes.rng import Rng


def log(*p: float) -> Tensor:
    return torch.tensor([p], dtype=torch.float64).log()


def kept(rule: Rule, log_prob: Tensor) -> list[int]:
    return torch.nonzero(torch.isfinite(rule(log_prob)[0][0]))[:, 0].tolist()


def some(rows: int, vocabulary: int, scale: float = 2.0, seed: int = 0) -> Tensor:
    return torch.log_softmax(scale * Rng(seed).at("rows").normal((rows, vocabulary)), -1)


def at_start(rule: Rule, log_prob: Tensor, text: tuple[int, ...] = (), other: Tensor | None = None) -> Tensor:
    model = table()
    seen = SeenTokens(
        model,
        torch.tensor([2]),
        torch.tensor([text], dtype=torch.int64).reshape(1, -1),
        torch.tensor([len(text)]),
        log_prob,
        others=() if other is None else (other,),
    )
    return rule(log_prob, seen)[0]


UNIFORM = log(*[0.1] * 10)


def test_typical_may_drop_the_most_probable_token():
    assert kept(rules.typical(0.55), log(0.4, *[0.1] * 6)) == [1, 2, 3, 4, 5, 6]


def test_a_uniform_law():
    assert kept(rules.eta(0.9), UNIFORM) == list(range(10))
    assert kept(rules.epsilon(0.2), log(0.3, 0.4, 0.15, 0.15)) == [0, 1]
    assert kept(rules.top_h(0.4), UNIFORM) == [0, 1]  # log 2 = .693 <= .921 < log 3
    assert kept(rules.top_h(0.4, criterion="partial"), UNIFORM) == [0, 1, 2, 3]  # the published code: log 4 > .921
    assert kept(rules.typical(0.35), UNIFORM) == [0, 1, 2, 3]


def test_top_h_keeps_as_much_as_its_bound_allows():
    law = some(50, 30)
    out, _ = rules.top_h(0.6)(law)
    entropy = -(law.exp() * law).sum(-1)
    for row, before, h in zip(out, law, entropy, strict=True):
        inside = torch.isfinite(row)
        inner = row[inside]
        assert float(-(inner.exp() * inner).sum()) <= 0.6 * float(h) + 1e-9 or int(inside.sum()) == 1
        more = inside.clone()
        more[before.masked_fill(inside, -torch.inf).argmax()] = True
        wider = torch.log_softmax(before[more], -1)
        assert float(-(wider.exp() * wider).sum()) > 0.6 * float(h)


def test_min_p_and_temperature_change_places():
    law = some(20, 40)
    after = rules.min_p(0.2)(rules.temperature(2.0)(law)[0])[0]
    before = rules.min_p(0.2**2)(law)[0]
    assert torch.equal(torch.isfinite(after), torch.isfinite(before))


def test_top_n_sigma_does_not_see_a_temperature_or_a_mask():
    law = some(20, 40)
    plain = torch.isfinite(rules.top_n_sigma(1.2)(law)[0])
    assert torch.equal(plain, torch.isfinite(rules.top_n_sigma(1.2)(torch.log_softmax(3 * law, -1))[0]))
    masked = rules.top_k(3)(law)[0]
    seen = SeenTokens(table(), torch.tensor([2]), torch.zeros(20, 0).long(), torch.zeros(20).long(), law)
    both = rules.top_n_sigma(1.2)(masked, seen)[0]
    assert torch.equal(torch.isfinite(both), plain & torch.isfinite(masked))


@pytest.mark.parametrize("rule", [rules.mirostat_2(3.0, rate=0.1), rules.mirostat_1(3.0, rate=0.3, head=20)])
def test_mirostat_meets_its_target_by_the_telescoping_identity(rule):
    law, steps = some(1, 60, 2.5), 400
    mu, total = rule.start(table(), torch.tensor([2])), 0.0
    first = float(mu[0])
    for j in range(steps):
        seen = SeenTokens(table(), torch.tensor([2]), torch.zeros(1, 0).long(), torch.zeros(1).long(), law, mu)
        token = Rng(1).at("token", inner=j).categorical(rule(law, seen)[0])
        total += -float(law[0, token[0]]) / math.log(2)
        mu = rule.advance(seen, law, token)
    assert total / steps == pytest.approx(rule.target + (first - float(mu[0])) / (rule.rate * steps), abs=1e-9)
    assert total / steps == pytest.approx(rule.target, abs=0.15)


def test_mirostat_takes_the_exponent_of_a_zipf_law():
    p = torch.arange(1, 2001, dtype=torch.float64).pow(-1.5)
    law = (p / p.sum()).log()[None]
    e, mu = 0.5, 4.0
    k = round((e * 2**mu / (1 - 2000**-e)) ** (1 / 1.5)) + 1
    assert Mirostat1().size(law, torch.tensor([mu]).double()).tolist() == [k]


def test_the_entropy_temperature_rises_with_the_entropy():
    t = EntropyTemperature(1.2, ratio=0.8, theta=1.0).temperature(
        torch.tensor([0.0, 1e-3, 0.5, 2.0, 1e9], dtype=torch.float64)
    )
    assert t[0] == 0 and bool((t[1:] > t[:-1]).all()) and float(t[-1]) == pytest.approx(1.2)
    assert float(t[3]) == pytest.approx(1.2 * 0.8**0.5)


def test_dynamic_temperature_at_its_ends():
    out, _ = rules.dynamic_temperature(0.5, high=2.0)(log(1 - 1e-13, 1e-13))
    assert float(out[0, 1]) == pytest.approx(2 * math.log(1e-13), rel=1e-6)
    torch.testing.assert_close(rules.dynamic_temperature(0.5, high=2.0)(UNIFORM)[0], UNIFORM)


def test_two_contexts_that_agree():
    law = some(1, 3)
    torch.testing.assert_close(at_start(rules.kl_temperature(""), law, other=law), law)
    torch.testing.assert_close(at_start(rules.prompt_guidance("", scale=3.0), law, other=law), law)
    out = at_start(rules.pointwise_information("", strength=1.0), law, other=law)
    torch.testing.assert_close(out.exp(), torch.full((1, 3), 1 / 3, dtype=torch.float64))
    with pytest.raises(MotesError, match="compares two contexts"):
        rules.prompt_guidance("")(law)


def test_gamma_sampling_by_numbers():
    out, mass = rules.gamma_sampling((0, 1), gamma=0.1)(log(0.1, 0.2, 0.3, 0.4))
    expected = torch.tensor([[0.27546276, 0.55092551, 0.07440503, 0.0992067]]).double()
    torch.testing.assert_close(out.exp(), expected, atol=1e-7, rtol=0)
    assert float(mass[0]) == 0
    same = log(0.1, 0.2, 0.3, 0.4)
    torch.testing.assert_close(rules.gamma_sampling((0, 1), gamma=0.5)(same)[0], same)


def test_a_self_terminating_law():
    law = log(0.5, 0.499, 0.001)
    for t in range(1, 8):
        out = at_start(rules.self_terminating(0.1), law, text=(0,) * (t - 1)).exp()
        assert float(out[0, 2]) == pytest.approx(1 - 0.9**t * 0.999)
        assert float(out[0, 0]) == pytest.approx(0.9**t * 0.5) and float(out.sum()) == pytest.approx(1)


# ---------------------------------------------------------------- Bregman, basis


def divergence(q: Tensor, p: Tensor, a: float) -> float:
    if a == 1:
        return float((torch.special.xlogy(q, q / p) - q + p).sum())
    inner = q.pow(a) - p.pow(a) - a * p.pow(a - 1) * (q - p)
    return float(inner.sum() / (a * (a - 1)))


@pytest.mark.parametrize("dual", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 4.0])
def test_bregman_is_the_best_of_every_subset_and_of_its_neighbours(alpha, dual):
    if dual and alpha == 1:
        with pytest.raises(MotesError, match="dual"):
            rules.bregman(0.1, alpha=1.0, dual=True)
        return
    for seed, price in [(0, 0.02), (1, 0.15)] if dual else itertools.product(range(4), (0.003, 0.02, 0.15)):
        p = some(1, 5, 1.5, seed)[0].exp()
        rule = rules.bregman(price, alpha=alpha, dual=dual)

        def cost(q: Tensor, p: Tensor = p, price: float = price) -> float:
            return divergence(*((p, q) if dual else (q, p)), alpha) + price * int((q > 0).sum())

        found = rule(p.log()[None])[0][0].exp()
        assert float(found.sum()) == pytest.approx(1, abs=1e-12)
        for size in range(1, 6):
            for subset in itertools.combinations(range(5), size):
                ranked = p[list(subset)].sort(descending=True)
                q = torch.zeros(5, dtype=torch.float64)
                law = rule.law(ranked.values[None], torch.tensor([size]))[0]
                q[torch.tensor(subset)[ranked.indices]] = law
                assert cost(q) >= cost(found) - 1e-9
        support = torch.nonzero(found > 0)[:, 0].tolist()
        for i, j in itertools.permutations(support, 2):  # moving a little mass makes it worse: q is the best on its set
            moved = found.clone()
            moved[i] += 1e-4 * found[j]
            moved[j] -= 1e-4 * found[j]
            assert cost(moved) >= cost(found) - 1e-12


def test_bregman_by_numbers():
    law = some(30, 600)
    p = law.exp().sort(descending=True).values
    out, mass = rules.bregman(0.05)(law)
    total = p.cumsum(-1)
    first = [
        next(k for k in range(599) if row[k + 1] <= math.expm1(0.05) * t[k]) + 1
        for row, t in zip(p, total, strict=True)
    ]
    assert torch.isfinite(out).sum(-1).tolist() == first
    torch.testing.assert_close(mass.exp(), total[torch.arange(30), torch.tensor(first) - 1])
    square, dual = (rules.bregman(1e-4, alpha=2.0, dual=d)(law[:5])[0].exp() for d in (False, True))
    torch.testing.assert_close(square, dual)


def test_a_basis_without_columns_is_a_threshold_and_a_full_one_keeps_all():
    law = some(3, 8)
    keep = [torch.isfinite(rules.basis_aware(b, delta=0.08)(law)[0]) for b in (torch.zeros(8, 0), torch.eye(8))]
    assert torch.equal(keep[0], torch.isfinite(rules.epsilon(0.08)(law)[0])) and bool(keep[1].all())
    columns = Rng(2).at("basis").normal((8, 6))
    sizes = [int(torch.isfinite(rules.basis_aware(columns[:, :c], delta=0.08)(law)[0]).sum()) for c in range(7)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


# ---------------------------------------------------------------- heads of the vocabulary, ties


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("ties", [False, True])
def test_looking_at_the_head_gives_what_a_full_sort_gives(scale, ties):
    law = some(6, 9000, scale)
    if ties:
        law = torch.log_softmax((law * 2).round() / 2, -1)
    ranked, order = torch.sort(law, descending=True, stable=True)
    before = ranked.exp().cumsum(-1) - ranked.exp()
    keep = torch.zeros_like(law, dtype=torch.bool).scatter(1, order, before < 0.9)
    assert torch.equal(torch.isfinite(rules.nucleus(0.9)(law)[0]), keep)
    top = torch.zeros_like(law, dtype=torch.bool).scatter(1, order[:, :300], True)
    assert torch.equal(torch.isfinite(rules.top_k(300)(law)[0]), top)
    h = -(law.exp() * law).sum(-1, keepdim=True)
    near = torch.sort((law + h).abs(), stable=True).indices
    p = law.exp().gather(1, near)
    keep = torch.zeros_like(keep).scatter(1, near, p.cumsum(-1) - p < 0.5)
    found, mass = rules.typical(0.5)(law)
    assert ties or torch.equal(torch.isfinite(found), keep)
    torch.testing.assert_close(mass.exp(), (law.exp() * torch.isfinite(found)).sum(-1))


# ---------------------------------------------------------------- watermarks


def seen_by(contexts: int, rows: Tensor) -> SeenTokens:
    tokens = torch.arange(contexts)[:, None]
    return SeenTokens(table(), torch.tensor([2]), tokens, torch.ones(contexts).long(), rows)


def test_a_gumbel_watermark_leaves_the_law_of_a_token_over_keys():
    """20000 contexts in the place of keys; an error of 0.018 in a probability would be seen."""
    n, law = 20000, log(0.6, 0.3, 0.1)
    out, _ = rules.gumbel_watermark(9)(law.expand(n, 3), seen_by(n, law.expand(n, 3)))
    z = (out.exp().mean(0) - law[0].exp()) / (law[0].exp() * (1 - law[0].exp()) / n).sqrt()
    assert float(z.abs().max()) < 4.9


def test_watermarks_are_found_in_their_texts_only():
    vocabulary, length = 40, 60
    law = some(1, vocabulary, 0.5)
    for rule in (rules.gumbel_watermark(11, width=2), rules.green_list(11, strength=4.0, width=1)):
        text: list[int] = []
        for j in range(length):
            tokens = torch.tensor([text], dtype=torch.int64).reshape(1, -1)
            seen = SeenTokens(table(), torch.tensor([2]), tokens, torch.tensor([j]), law)
            text.append(int(Rng(3).at("token", inner=j).categorical(rule(law, seen)[0])[0]))
        own = rule.detect(text, vocabulary, prompt=[2])
        foreign = type(rule)(12).detect(text, vocabulary, prompt=[2])
        assert own.p_value < 1e-6 and own.z > 4.9 and foreign.p_value > 1e-3 and own.n <= length


def test_p_values_are_uniform_without_a_watermark():
    """200 texts: the sum of z^2 of the green lists' scores, and the mean of Gamma p-values, within 4.9 sd."""
    texts = Rng(5).at("texts").integers((200, 30), 50)
    gumbel = torch.tensor([rules.gumbel_watermark(1, width=1).detect(t, 50, [2]).p_value for t in texts])
    assert abs(float(gumbel.mean()) - 0.5) < 4.9 * math.sqrt(1 / 12 / 200)
    green = torch.tensor([rules.green_list(1).detect(t, 50, [2]).z for t in texts])
    assert abs(float(green.mean())) < 4.9 / math.sqrt(200) and abs(float(green.var()) - 1) < 4.9 * math.sqrt(2 / 200)


def test_the_binomial_tail():
    assert binomial_tail(0, 5, 0.3) == 1 and binomial_tail(5, 5, 0.3) == pytest.approx(0.3**5)
    assert binomial_tail(2, 3, 0.5) == pytest.approx(0.5)


# ---------------------------------------------------------------- names


def test_rules_by_name_and_from_text():
    assert rules.by_name("min_p", 0.05) == rules.min_p(0.05)
    assert rules.parse(" temperature(0.7), top_h(criterion='partial'), logit_bias({3: -1.5}), presence") == (
        rules.temperature(0.7),
        rules.top_h(criterion="partial"),
        rules.logit_bias({3: -1.5}),
        rules.presence(),
    )


@pytest.mark.parametrize(
    "text", ["min_p(", "min_p(a)", "3", "min_p(0.1)(2)", "min_p(open('x'))", "min_p(*[1])", "a.b(1)"]
)
def test_text_that_is_no_rule_is_refused(text):
    with pytest.raises(MotesError):
        rules.parse(text)


def test_a_name_that_is_nearly_right_is_suggested():
    with pytest.raises(UnknownName, match="perhaps you meant 'min_p'"):
        rules.parse("minp(0.1)")
    with pytest.raises(MotesError, match=r"min_p\(ratio\)"):
        rules.parse("min_p(rato=0.1)")
    with pytest.raises(MotesError, match=r"\(0, 1\]"):
        rules.parse("min_p(1.5)")
