"""Whether a count fits the rate that was asked for."""

from __future__ import annotations

from math import ceil, exp, lgamma, log, log1p

ALPHA = 1e-6


def probes_to_tell(loss: float) -> int:
    """How many probes it takes until "none was lost" is as improbable as ALPHA under that loss."""
    return 1 if loss >= 1 else ceil(log(ALPHA) / log1p(-loss))


def binomial_p_value(hits: int, trials: int, probability: float) -> float:
    """Two-sided exact binomial test: how likely a count at least this improbable is (method of small p-values)."""
    if trials == 0:
        return 0.0
    if probability in (0.0, 1.0):
        return 1.0 if hits == trials * probability else 0.0

    def log_mass(k: int) -> float:
        choose = lgamma(trials + 1) - lgamma(k + 1) - lgamma(trials - k + 1)
        return choose + k * log(probability) + (trials - k) * log1p(-probability)

    limit = log_mass(hits) + 1e-7  # tolerance for rounding, relative
    return min(1.0, sum(exp(mass) for k in range(trials + 1) if (mass := log_mass(k)) <= limit))
