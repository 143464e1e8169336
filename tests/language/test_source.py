"""A model as a random source: its Markov chain exactly, and tests whose p-values are what they say."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import scipy.stats as stats
import torch

from motes.errors import MotesError
from motes.language import TableModel
from motes.language.source import WindowChain, bet, bias, examine, flips, ngrams, runs, serial_correlation
from motes.language.source.bias import binomial_p
from motes.rng import Rng

# ------------------------------------------------------------------------------------------------ the chain


def two_by_two(temperature: float = 1.0) -> WindowChain:
    """Two tokens, a window of two."""
    p = {(0, 0): 0.9, (0, 1): 0.2, (1, 0): 0.6, (1, 1): 0.35}
    return WindowChain(
        lambda s: torch.tensor([p[s], 1 - p[s]]).double().log(), 2, vocabulary=2, temperature=temperature
    )


def test_the_stationary_law_three_ways():
    chain = two_by_two()
    by_power = chain.after(400)
    value, vector = torch.linalg.eig(chain.transition.T)
    at = int((value - 1).abs().argmin())
    by_eigenvector = (vector[:, at] / vector[:, at].sum()).real
    assert torch.allclose(chain.stationary, by_power, atol=1e-12)
    assert torch.allclose(chain.stationary, by_eigenvector, atol=1e-12)
    written = chain.write(Rng(3), 4000, 40)[:, -2:]
    count = torch.bincount(written[:, 0] * 2 + written[:, 1], minlength=4).double()
    z = (count - 4000 * chain.stationary) / (4000 * chain.stationary * (1 - chain.stationary)).sqrt()
    assert z.abs().max() < 4.9
    wrong = two_by_two(1.5).stationary  # the broken twin: another temperature
    assert ((count - 4000 * wrong) / (4000 * wrong * (1 - wrong)).sqrt()).abs().max() > 4.9


def test_a_chain_of_two_states_in_closed_form():
    a, b = 0.1, 0.3
    chain = WindowChain(
        TableModel(["x", "y"], torch.tensor([[1 - a, a], [b, 1 - b], [0.5, 0.5]], dtype=torch.float64).log()), 1
    )
    pi = torch.tensor([b, a], dtype=torch.float64) / (a + b)
    assert torch.allclose(chain.stationary, pi, atol=1e-12)
    assert torch.allclose(chain.token_law, pi, atol=1e-12)
    assert chain.second_eigenvalue == pytest.approx(1 - a - b)
    for t in (0, 1, 3, 10):
        assert chain.distance(t) == pytest.approx(float(pi.max()) * (1 - a - b) ** t, abs=1e-12)
    for within in (0.5, 0.25, 0.1, 1e-3):
        assert chain.mixing_time(within) == math.ceil(math.log(within / float(pi.max())) / math.log(1 - a - b))
    h = [-sum(p * math.log(p) for p in row) for row in ((1 - a, a), (b, 1 - b))]
    assert chain.entropy_rate == pytest.approx(float(pi @ torch.tensor(h, dtype=torch.float64)))


def test_doeblins_bound_holds_and_heat_mixes_faster():
    times = []
    for temperature in (0.5, 1.0, 2.0, 8.0):
        chain = two_by_two(temperature)
        assert chain.doeblin == pytest.approx((2 * float(chain.next_token.min())) ** 2)
        assert all(chain.distance(t) <= chain.bound(t) + 1e-12 for t in range(30))
        k_steps = torch.linalg.matrix_power(chain.transition, 2)
        assert (k_steps >= chain.doeblin / 4 - 1e-15).all()
        distances = [chain.distance(t) for t in range(400)]
        times.append(chain.mixing_time(0.01))
        assert times[-1] == next(t for t, d in enumerate(distances) if d <= 0.01)
    assert times == sorted(times, reverse=True) and times[0] > times[-1]
    assert two_by_two(1e6).mixing_time(0.01) == 2  # at infinite temperature the window forgets in K tokens


def test_chains_that_do_not_settle_say_so():
    apart = WindowChain(lambda s: torch.tensor([1.0, 0.0] if s[0] == 0 else [0.0, 1.0]).log(), 1, vocabulary=2)
    with pytest.raises(MotesError, match="more than one"):
        _ = apart.stationary
    turning = WindowChain(lambda s: torch.tensor([0.0, 1.0] if s[0] == 0 else [1.0, 0.0]).log(), 1, vocabulary=2)
    assert turning.stationary.tolist() == pytest.approx([0.5, 0.5])
    with pytest.raises(MotesError, match="periodic"):
        turning.mixing_time()
    absorbing = WindowChain(lambda s: torch.tensor([0.5, 0.5] if s[0] == 0 else [0.0, 1.0]).log(), 1, vocabulary=2)
    assert absorbing.stationary.tolist() == pytest.approx([0.0, 1.0])
    with pytest.raises(MotesError, match="states"):
        WindowChain(lambda s: torch.zeros(50), 2, vocabulary=50)
    with pytest.raises(MotesError, match="temperature"):
        WindowChain(lambda s: torch.zeros(2), 1, vocabulary=2, temperature=0.0)


# ------------------------------------------------------------------------------------------------ tests of sequences


def test_the_binomial_test_is_that_of_scipy():
    for n, p in ((10, 0.5), (37, 0.5), (20, 0.3), (400, 0.9)):
        for k in range(0, n + 1, max(1, n // 12)):
            assert binomial_p(k, n, p) == pytest.approx(stats.binomtest(k, n, p).pvalue, rel=1e-8)


TESTS = {
    "bias of flips": lambda x, k, rng, exact: bias(x, 2, seed=rng, exact=exact),
    "bias of dice": lambda x, k, rng, exact: bias(x % 3, 3, seed=rng, rounds=199, exact=exact),
    "runs": lambda x, k, rng, exact: runs(x, 6, seed=rng, rounds=199, exact=exact),
    "serial": lambda x, k, rng, exact: serial_correlation(x, 6, seed=rng, rounds=199, exact=exact),
    "2-grams": lambda x, k, rng, exact: ngrams(x, 6, seed=rng, rounds=199, exact=exact),
}


@pytest.mark.parametrize("name", TESTS)
def test_p_values_are_uniform_under_the_null(name):
    """400 random sequences of 24 symbols; Kolmogorov's test notices a distribution function off by 0.14."""
    kinds = 2 if "flips" in name else 6
    x = Rng(8).at(name).integers((400, 24), kinds)
    p = np.array([TESTS[name](row, kinds, Rng(100 + i), True).p_value for i, row in enumerate(x)])
    assert stats.kstest(p, "uniform").pvalue > 1e-6
    careful = np.array([TESTS[name](row, kinds, Rng(100 + i), False).p_value for i, row in enumerate(x[:100])])
    assert (careful >= p[:100] - 1e-12).all()


def test_a_p_value_from_the_wrong_null_is_not_uniform():
    """The broken twin: sequences of a biased coin tested for bias, and sticky ones tested for runs."""
    coin = (Rng(8).at("coin").uniform((400, 24)) < 0.65).long()
    p = np.array([bias(row, 2, seed=Rng(i)).p_value for i, row in enumerate(coin)])
    assert stats.kstest(p, "uniform").pvalue < 1e-6
    turn = (Rng(8).at("turn").uniform((400, 24)) < 0.7).long()
    p = np.array([runs(row, 2, seed=Rng(i), rounds=199).p_value for i, row in enumerate(turn.cumsum(1) % 2)])
    assert stats.kstest(p, "uniform").pvalue < 1e-6
    # a biased coin is still in random order
    p = np.array([runs(row, 2, seed=Rng(i), rounds=199).p_value for i, row in enumerate(coin)])
    assert stats.kstest(p, "uniform").pvalue > 1e-6


def test_the_capital_is_a_martingale():
    """Its mean over all 2^8 sequences is 1 at every time, for every order, and the mean e-value of dice is 1 too."""
    total, law = torch.zeros(9, dtype=torch.float64), torch.tensor([0.3, 0.7])
    for x in product((0, 1), repeat=8):
        found = bet(x, 2, law=law)
        probability = 0.3 ** x.count(0) * 0.7 ** x.count(1)
        total += probability * found.log_capital.exp()
    assert total.tolist() == pytest.approx([1.0] * 9, abs=1e-6)
    dice = [bet(x, 3, order=1).e_value for x in product(range(3), repeat=5)]
    assert np.mean(dice) == pytest.approx(1.0, abs=1e-12)
    wrong = [bet(x, 3, order=1, law=torch.tensor([0.5, 0.3, 0.2])).e_value for x in product(range(3), repeat=5)]
    assert abs(np.mean(wrong) - 1) > 0.1


def test_the_capital_of_order_0_in_closed_form():
    x = [0, 1, 1, 1, 0, 1, 1]
    a, b = x.count(0), x.count(1)
    exact = 7 * math.log(2) + math.lgamma(a + 0.5) + math.lgamma(b + 0.5) - math.lgamma(8) - 2 * math.lgamma(0.5)
    assert float(bet(x, 2, order=0).log_capital[-1]) == pytest.approx(exact, abs=1e-12)


def test_the_bettor_rarely_wins_by_luck_even_if_one_stops_when_it_does():
    """P(ever 20 times the capital) <= 1/20 over 600 sequences of 60 flips, and a bettor that cheats passes it."""
    x = Rng(5).at("luck").integers((600, 60), 2)
    won = np.mean([bet(row, 2).p_value <= 0.05 for row in x])
    assert won <= 0.05 + 4.9 * math.sqrt(0.05 * 0.95 / 600)
    cheat = np.mean(
        [math.comb(60, int(r.sum())) ** -1 * 2**60 / 61 > 0 and bet(r.sort().values, 2).p_value <= 0.05 for r in x]
    )
    assert cheat > 0.9


def test_what_is_wrong_is_found_and_by_whom():
    generator = Rng(1).at("power")
    fair = generator.integers((200,), 2)
    assert examine(fair, 2).p_value > 1e-3
    biased = (generator.at("biased").uniform((200,)) < 0.7).long()
    found = examine(biased, 2)
    assert found["bias"].p_value < 1e-3 and found["prediction"].p_value < 1e-3 and found["runs"].p_value > 1e-3
    turn = (generator.at("turn").uniform((200,)) < 0.75).long().cumsum(0) % 2
    found = examine(turn, 2)
    assert found["runs"].p_value < 0.01 and found["prediction"].p_value < 1e-3 and found["bias"].p_value > 1e-3
    cycle = torch.arange(120) % 5
    found = examine(cycle, 5)
    assert found["bias"].p_value > 0.5 and found["2-grams"].p_value < 0.01 and found["prediction"].p_value < 1e-9
    with pytest.raises(MotesError, match="no test"):
        _ = found["luck"]


def test_runs_count_what_wald_and_wolfowitz_say():
    x = torch.tensor([0, 0, 1, 1, 1, 0, 1, 0, 0, 0])
    found = runs(x, 2, seed=Rng(0))
    assert found.statistic == 5
    assert "5.8 expected" in found.about  # 1 + 2 * 6 * 4 / 10


def test_bad_sequences_are_refused():
    with pytest.raises(MotesError, match=r"0\.\.1"):
        bet([0, 2], 2)
    with pytest.raises(MotesError, match="too few"):
        examine([0], 2)
    with pytest.raises(MotesError, match="whole numbers"):
        bias(torch.tensor([0.5]), 2, seed=Rng(0))
    with pytest.raises(MotesError, match="sum to 1"):
        bias([0, 1], 2, seed=Rng(0), law=torch.tensor([0.5, 0.6]))


# ------------------------------------------------------------------------------------------------ what models write


def turning_table(stay: float) -> TableModel:
    """Writes H and T, and stays with the last one with probability `stay` (of what is not the end)."""
    end = 0.02
    rows = [[stay, 1 - stay], [1 - stay, stay], [0.5, 0.5], [0.5, 0.5]]
    return TableModel(["H", "T", "."], torch.tensor([[p * (1 - end) for p in r] + [end] for r in rows]).double().log())


def test_flips_of_a_model_that_turns_too_often_are_found_out():
    fair = flips(turning_table(0.5), "", 150, between="", texts=3, seed=2)
    assert fair.symbols.shape == (3, 150) and fair.examine().p_value > 1e-3
    turning = flips(turning_table(0.2), "", 150, between="", texts=3, seed=2)
    found = turning.examine()
    assert found["runs"].p_value < 0.01 and found["prediction"].p_value < 1e-6


def test_single_flips_have_the_shares_of_the_table():
    table = TableModel(
        ["H", "T", "."], torch.tensor([[0.1, 0.1, 0.8], [0.1, 0.5, 0.4], [1, 1, 1], [0.6, 0.3, 0.1]]).log()
    )
    found = flips(table, "", 1, texts=4000, seed=1)
    truth = 0.6 * 0.8 / (0.6 * 0.8 + 0.3 * 0.4)  # the text must end there: masking alone would give 2/3
    assert float(found.shares[0, 0]) == pytest.approx(truth, abs=4.9 * math.sqrt(truth * (1 - truth) / 2000))


def test_outcomes_that_cannot_be_told_apart_are_refused():
    for bad in (("1", "10"), ("H",), ("H", "H"), ("", "T")):
        with pytest.raises(MotesError, match="outcomes must"):
            flips(turning_table(0.5), "", 3, outcomes=bad)


@pytest.mark.slow
def test_flips_of_a_real_model(smollm2):
    found = flips(smollm2, "Flip a fair coin 20 times. Answer with H and T only.", 20, texts=2, seed=0)
    assert found.symbols.shape[1] == 20 and found.examine().n == 20
