"""A posterior with its evidence: is a tumour benign, and do we need all thirty measurements to tell?

Bayesian logistic regression on the Breast Cancer Wisconsin data (569 tumours). Two models compete: one with all thirty
standardised measurements, one with the ten means only. Run: python examples/posterior.py [particles]
"""

import sys

import torch
from torch.distributions import HalfNormal, Normal

import motes
from motes.density import breast_cancer

n = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
x, y, names = breast_cancer()


def regression(columns: slice) -> motes.Tempering:
    """Slopes with an unknown common size: slope ~ N(0, size^2), size ~ half normal."""
    data = x[:, columns]
    signed = ((2 * y - 1)[:, None] * torch.cat([torch.ones(len(x), 1).to(x), data], 1)).T.contiguous()
    zero = torch.zeros((), dtype=torch.float64)

    def log_likelihood(p: dict[str, torch.Tensor]) -> torch.Tensor:
        slopes = p["size"][:, None] * p["standardised"]
        return torch.nn.functional.logsigmoid(torch.cat([p["intercept"][:, None], slopes], 1) @ signed).sum(1)

    prior = {
        "intercept": Normal(zero, 5.0),
        "size": HalfNormal(zero + 2.0),
        "standardised": Normal(zero.expand(data.shape[1]), 1.0),
    }
    return motes.Tempering(motes.Density(log_likelihood, prior))


runs = {}
for label, columns in (("ten means", slice(0, 10)), ("all thirty", slice(0, 30))):
    run = runs[label] = motes.sample(regression(columns), n, seed=1)
    acceptance = run.trace["acceptance"][1:].mean()
    print(f"{label:>10}: log evidence {run.log_evidence:.2f} ± {run.log_evidence_se:.2f}, ", end="")
    print(f"effective particles {run.ess:.0f} of {n}, acceptance {acceptance:.2f}, {run.seconds:.1f} s")

bayes = runs["all thirty"].log_evidence - runs["ten means"].log_evidence
error = (runs["all thirty"].log_evidence_se ** 2 + runs["ten means"].log_evidence_se ** 2) ** 0.5
print(f"\nlog Bayes factor for all thirty over the ten means: {bayes:.1f} ± {error:.1f}")

best = runs["all thirty"]
slope = best.mean(lambda p: p["size"][:, None] * p["standardised"])
spread = best.mean(lambda p: (p["size"][:, None] * p["standardised"] - slope.value).square()).value.sqrt()
print("\nthe five measurements that say most:")
for k in (slope.value / spread).abs().argsort(descending=True)[:5].tolist():
    print(f"  {names[k]:>24}: {float(slope.value[k]):+.2f} ± {float(spread[k]):.2f} (posterior sd)")
