"""Tokens chosen with a look ahead: proper weights in every outcome, with a reward, a constraint and steps of text."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import motes
from language.tables import exact, spell, table
from language.test_exact import TOLERANCE, assert_same_law, mean_law
from motes.core.resampling import thin
from motes.errors import AllWeightsZero, MotesError, ShapeError
from motes.language import Generation, Potential, nucleus, on_tokens, predicate, regex
from motes.language.generation.proposals.lookahead import Lookahead, draw
from motes.testing import enumerate_runs

LAW = torch.tensor([0.4, 0.3, 0.2, 0.06, 0.04], dtype=torch.float64)
PHI = torch.tensor([-1.0, 0.5, -math.inf, 2.0, 0.0], dtype=torch.float64)
PATTERN = "(ab?)*|b"


def worth(text: str) -> float:
    return 0.8 * text.count("b") - 0.3 * len(text)


def rewards(texts: list[str]) -> torch.Tensor:
    return torch.tensor([worth(text) for text in texts], dtype=torch.float64)


def critic(texts: list[str]) -> torch.Tensor:
    """A bad guess: what the reward likes, it does not; of "a" it thinks nothing at all."""
    return torch.tensor([-math.inf if text == "a" else -1.0 * text.count("b") for text in texts], dtype=torch.float64)


class Judge(Potential):
    def complete(self, texts):
        return rewards(texts)

    def prefix(self, texts):
        return critic(texts)


# ------------------------------------------------------------------------------------------------ one token


def one_token(law: torch.Tensor, phi: torch.Tensor, k: int) -> list[float]:
    """E[w 1{x}] of every token."""
    mean, total = [0.0] * len(law), 0.0
    for p, (token, log_weight, value) in enumerate_runs(
        lambda rng: draw(rng, law.log()[None], k, lambda _, what: phi[what])
    ):
        total += p
        x, w = int(token[0]), float(log_weight[0].exp())
        assert (x < 0) == (w == 0)
        if x >= 0:
            assert float(value[0]) == float(phi[x])
            mean[x] += p * w
    assert total == pytest.approx(1, abs=1e-12)
    return mean


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 9])
def test_a_token_is_properly_weighted_in_every_outcome(k):
    assert one_token(LAW, PHI, k) == pytest.approx((LAW * PHI.exp()).tolist(), abs=1e-12)


def test_a_law_with_impossible_tokens():
    law = torch.tensor([0.5, 0.0, 0.3, 0.2, 0.0], dtype=torch.float64)
    for k in (2, 3):
        assert one_token(law, torch.ones(5).double(), k) == pytest.approx((law * math.e).tolist(), abs=1e-12)


def test_without_an_opinion_there_is_no_noise():
    p = motes.Rng(0).exponential((500, 40))
    _, log_weight, _ = draw(motes.Rng(1), (p / p.sum(1, keepdim=True)).log(), 4, lambda place, token: 0.0 * token - 2.0)
    assert log_weight.tolist() == pytest.approx([-2.0] * 500, abs=1e-12)


def test_only_the_set_is_asked_about():
    asked = []

    def of(place, token):
        asked.append((place, token))
        return torch.zeros(len(token), dtype=torch.float64)

    draw(motes.Rng(0), LAW.log().expand(50, 5), 3, of)
    ((place, token),) = asked
    assert torch.bincount(place).tolist() == [3] * 50
    assert len({(int(i), int(v)) for i, v in zip(place, token, strict=True)}) == 150


def gumbel_weight(rng, p: torch.Tensor, k: int, phi: torch.Tensor) -> torch.Tensor:
    """(M,) the weights of sets by Gumbel noise and a threshold: q = 1 - exp(-p / exp(kappa))."""
    top = torch.topk(p.log() + rng.gumbel(tuple(p.shape)), k + 1, dim=1)
    chosen = top.indices[:, :k]
    inside = p.gather(1, chosen)
    q = -torch.expm1(-inside * torch.exp(-top.values[:, k:]))
    return (inside / q * phi.gather(1, chosen).exp()).sum(1)


def test_the_weights_vary_less_than_with_gumbel_thresholds():
    """20 000 draws of 3 of 50 tokens: both means are right; the variance is below half of the other's."""
    rng, m = motes.Rng(2), 20_000
    p = rng.at("law").exponential((50,)).square()
    p, phi = (p / p.sum()).expand(m, 50), 0.5 * rng.at("phi").normal((50,)).expand(m, 50)
    truth = float((p[0] * phi[0].exp()).sum())
    ours = draw(rng, p.log(), 3, lambda place, token: phi[0, token])[1].exp()
    other = gumbel_weight(rng.at("gumbel"), p, 3, phi)
    for w in (ours, other):
        assert abs(float(w.mean()) - truth) < 4.9 * float(w.std()) / math.sqrt(m)
    assert float(ours.var()) < 0.5 * float(other.var())


def test_a_set_that_is_worth_nothing_is_a_dead_end():
    token, log_weight, phi = draw(
        motes.Rng(0), LAW.log().expand(3, 5), 2, lambda place, token: torch.full((len(token),), -math.inf).double()
    )
    assert token.tolist() == [-1] * 3 and bool(torch.isneginf(log_weight).all() & torch.isneginf(phi).all())


def test_arguments():
    with pytest.raises(MotesError, match="lookahead"):
        draw(motes.Rng(0), LAW.log()[None], 0, lambda place, token: PHI[token])
    with pytest.raises(ShapeError, match="float64"):
        draw(motes.Rng(0), LAW.log(), 2, lambda place, token: PHI[token])
    with pytest.raises(MotesError, match="reward or a twist"):
        Generation(table(), "", lookahead=2)
    with pytest.raises(MotesError, match="whole number"):
        Generation(table(), "", reward=rewards, lookahead=0)


# ------------------------------------------------------------------------------------------------ texts

GUIDED = {"reward": rewards, "twist": critic, "constraint": regex(PATTERN)}


def truth(max_tokens: int, settings: dict) -> dict[tuple[int, ...], float]:
    constraint = settings.get("constraint")
    masked = constraint is not None and "rows" not in settings and constraint is not NO_BB
    law = exact(max_tokens, PATTERN if masked else None, reward=worth if "reward" in settings else None)
    return {text: v for text, v in law.items() if constraint is not NO_BB or "bb" not in spell(text)}


NO_BB = predicate(lambda text: "bb" not in text)


@pytest.mark.parametrize(
    "n, k, ess_threshold, settings",
    [
        (1, 2, 0.5, GUIDED),
        (1, 2, 0.5, {"reward": rewards, "constraint": NO_BB}),
        pytest.param(2, 3, 1.0, GUIDED, marks=pytest.mark.slow),
        pytest.param(1, 1, 0.5, {"reward": Judge()}, marks=pytest.mark.slow),
        pytest.param(1, 2, 0.5, {"twist": critic}, marks=pytest.mark.slow),
        pytest.param(1, 2, 0.5, {"reward": Judge(), "steer": 2}, marks=pytest.mark.slow),
        (2, 3, 1.0, {"reward": rewards, "anneal": "progress"}),
        pytest.param(2, 2, 0.95, {"reward": Judge()}, marks=pytest.mark.slow),
    ],
)
def test_the_law_is_right_in_every_outcome(n, k, ess_threshold, settings):
    found, z = mean_law(Generation(table(), "", lookahead=k, max_tokens=2, **settings), n, ess_threshold=ess_threshold)
    assert z == pytest.approx(sum(truth(2, settings).values()), abs=TOLERANCE)
    assert_same_law(found, truth(2, settings))


@pytest.mark.parametrize("globalise", [True, False])
def test_rules_restrict_texts_or_renormalise_tokens(globalise):
    """A nucleus of 0.6 keeps {a}, mass 0.7, at the start, and after "a" {a, end}, mass 0.8."""
    model = Generation(
        table(), "", rules=[nucleus(0.6)], reward=rewards, max_tokens=2, globalise=globalise, lookahead=2
    )
    found, _ = mean_law(model, 1)
    mass = 1.0 if globalise else 0.56
    assert_same_law(found, {(0, 0): 0.35 * math.exp(worth("aa")) / mass, (0, 2): 0.21 * math.exp(worth("a")) / mass})


def by_text(run) -> dict[tuple[int, ...], torch.Tensor]:
    """(N,) the weights of each text's particles, zero elsewhere."""
    x, w, out = run.particles.x, run.log_weight.exp(), {}
    for i in torch.nonzero(w)[:, 0].tolist():
        text = tuple(x["tokens"][i, : int(x["length"][i])].tolist())
        out.setdefault(text, torch.zeros(len(w), dtype=torch.float64))[i] = w[i]
    return out


@pytest.mark.parametrize("step", ["token", "b"])
def test_longer_texts_have_the_right_law(step):
    """20 000 single particles: Z within 4.9 standard errors, 3 %, and every text of more than 0.002."""
    model = Generation(table(), "", step=step, lookahead=2, max_tokens=5, **GUIDED)
    run = motes.sample(model, 20_000, seed=7, progress=False, ess_threshold=0.0)
    law, found = exact(5, PATTERN, reward=worth), by_text(run)
    assert found.keys() <= law.keys()
    w = run.log_weight.exp()
    se = float(w.std()) / math.sqrt(len(w))
    assert se < 0.006 * sum(law.values())
    assert abs(float(w.mean()) - sum(law.values())) < 4.9 * se
    for text, value in law.items():
        if value > 0.002:
            at = found[text]
            assert abs(float(at.mean()) - value) < 4.9 * float(at.std()) / math.sqrt(len(at)), text


class Unweighted(Generation):
    """The broken twin: the token is chosen with a look ahead, and nothing is said of it in the weight."""

    @property
    def proposal(self):
        def propose(rng, state, drawn):
            new = Lookahead(3, self.account)(rng, state, drawn)
            return replace(new, gained=torch.where(torch.isneginf(new.gained), new.gained, 0.0))

        return propose


def test_a_look_ahead_without_weights_is_noticed():
    found, _ = mean_law(Unweighted(table(), "", lookahead=3, max_tokens=2, reward=rewards), 1)
    assert max(abs(found[text] - value) for text, value in exact(2, reward=worth).items()) > 0.02


def test_sets_without_inclusion_probabilities_are_noticed():
    """The broken twin: the tokens of a set weigh p, not p / q."""
    mean = torch.zeros(5, dtype=torch.float64)
    for p, (kept, _) in enumerate_runs(lambda rng: thin(rng, LAW.log()[None], 2)):
        mean += p * torch.where(kept[0], LAW * PHI.exp(), 0.0)
    assert float((mean - LAW * PHI.exp()).abs().max()) > 0.02


# ------------------------------------------------------------------------------------------------ what it is good for


def z_hats(model, n: int, seeds: int) -> torch.Tensor:
    out = []
    for seed in range(seeds):
        try:
            out.append(math.exp(motes.sample(model, n, seed=seed, progress=False).log_evidence))
        except AllWeightsZero:
            out.append(0.0)
    return torch.tensor(out, dtype=torch.float64)


def test_a_look_ahead_varies_less():
    """A reward of 2 nats a "b", texts of 6 tokens, 8 particles: the mean squared error of Z falls by more than 4."""

    def many_b(texts):
        return torch.tensor([2.0 * text.count("b") for text in texts], dtype=torch.float64)

    z = sum(exact(6, reward=lambda text: 2.0 * text.count("b")).values())
    plain, looking = (
        (z_hats(Generation(table(), "", reward=many_b, steer=1, max_tokens=6, lookahead=k), 8, 50) - z).square().mean()
        for k in (None, 2)
    )
    assert float(plain / looking) > 4


def test_equal_texts_are_asked_about_once():
    calls = []

    def judge(texts):
        calls.append(texts)
        return rewards(texts)

    motes.sample(
        Generation(table(), "", reward=rewards, twist=judge, max_tokens=3, lookahead=2), 200, seed=0, progress=False
    )
    first, paid, *_ = calls
    assert len(first) == len(set(first)) == 2 and len(paid) > 100


def test_a_reward_of_tokens_is_the_same_as_one_of_texts():
    by_token = on_tokens(lambda rows: torch.stack([0.5 * (row == 1).sum() for row in rows]))

    def by_text(texts):
        return torch.tensor([0.5 * text.count("b") for text in texts])

    runs = [
        motes.sample(Generation(table(), "", reward=r, max_tokens=5, lookahead=2), 64, seed=5, progress=False)
        for r in (by_token, by_text)
    ]
    assert runs[0].texts == runs[1].texts
    torch.testing.assert_close(runs[0].log_weight, runs[1].log_weight)


def test_the_kept_mass_is_that_of_the_constraint():
    """What other methods read of a text: the masses of the constraint, without what the look ahead gained."""
    run = motes.sample(Generation(table(), "", lookahead=2, max_tokens=4, **GUIDED), 60, seed=0, progress=False)
    plain = motes.sample(Generation(table(), "", max_tokens=4, **GUIDED), 300, seed=1, progress=False)

    def masses(run):
        x = run.particles.x
        alive = torch.nonzero(run.log_weight > -math.inf)[:, 0].tolist()
        return {
            tuple(x["tokens"][i, :k].tolist()): x["kept"][i, :k].tolist() for i in alive for k in [int(x["length"][i])]
        }

    looked, drawn = masses(run), masses(plain)
    assert len(looked.keys() & drawn.keys()) >= 5
    for text in looked.keys() & drawn.keys():
        assert looked[text] == pytest.approx(drawn[text], abs=1e-12)


def test_an_old_state_can_be_stepped_again():
    model, states = Generation(table(), "", lookahead=2, max_tokens=6, **GUIDED), []
    motes.sample(model, 20, seed=3, progress=False, callback=states.append)
    old, new = states[2].particles, states[3].particles
    again = model.step(motes.Rng(3).at("step", step=3), old.resampled(new.ancestor))
    assert torch.equal(again.x["tokens"], new.x["tokens"])
