"""Events of a whole run as a few hundred numbers: what is drawn does not grow with the record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, isfinite

from envctl.checks.slo import percentile
from envctl.model.event import Sample
from envctl.record import Operation

MOST = 120  # buckets of a timeline; a pixel column or two each, on a telephone too
_WIDTHS_S = (0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
FEWEST, ENOUGH = 20, 8  # buckets of a run with few operations; operations a bucket holds on average where there are more
STALE_S = 2.0  # a sampled value counts as known for this long

Values = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Buckets:
    """Equal parts of a run: bucket i spans [i · width_s, (i + 1) · width_s)."""

    width_s: float
    count: int

    @classmethod
    def over(cls, end_s: float, operations: int = MOST * ENOUGH) -> Buckets:
        """The narrowest buckets that cover a run in at most `MOST`, and hold enough operations for a rate to mean something."""
        most = min(MOST, max(FEWEST, operations // ENOUGH))
        width = next((width for width in _WIDTHS_S if end_s / width <= most), end_s / most)
        return cls(width, max(1, ceil(end_s / width)))

    def of(self, at_ns: int) -> int:
        """The bucket of an instant; the first or the last one for what lies outside."""
        return min(self.count - 1, max(0, int(at_ns / 1e9 / self.width_s)))

    def rate(self, instants_ns: Iterable[int]) -> Values:
        """Events per second."""
        counts = [0] * self.count
        for at_ns in instants_ns:
            counts[self.of(at_ns)] += 1
        return tuple(number / self.width_s for number in counts)

    def percentiles(self, operations: Iterable[Operation], shares: Sequence[Fraction]) -> tuple[Values, ...]:
        """Percentiles of the latency of answered operations, by their intended start; None where nothing was answered."""
        found: list[list[float]] = [[] for _ in range(self.count)]
        for op in operations:
            if op.latency_ns is not None and not op.unsent:
                found[self.of(op.due_ns)].append(op.latency_ns / 1e9)
        for values in found:
            values.sort()
        return tuple(tuple(percentile(values, share) if values else None for values in found) for share in shares)

    def last(self, samples: Iterable[Sample]) -> Values:
        """The newest known value in each bucket, carried on while it is fresh; None for unknown."""
        values: list[float | None] = [None] * self.count
        seen = [False] * self.count
        for sample in samples:
            at = self.of(sample.at_ns)
            values[at], seen[at] = sample.value if sample.value is not None and isfinite(sample.value) else None, True
        fresh = max(1, int(STALE_S / self.width_s))
        age = fresh + 1
        for at in range(1, self.count):
            age = 0 if seen[at - 1] else age + 1
            if not seen[at] and age < fresh:
                values[at] = values[at - 1]
        return tuple(values)

    def peaks(self, samples: Iterable[Sample]) -> Values:
        """The highest known value in each bucket, carried on while it is fresh; None for unknown."""
        highest: dict[int, Sample] = {}
        for sample in samples:
            at = self.of(sample.at_ns)
            if at not in highest or (sample.value is not None and sample.value >= (highest[at].value or 0)):
                highest[at] = sample
        return self.last(highest.values())

    def mean(self, samples: Iterable[Sample]) -> Values:
        """The mean of the known values in each bucket, carried on over gaps shorter than a sample stays fresh."""
        sums, counts = [0.0] * self.count, [0] * self.count
        for sample in samples:
            if sample.value is not None:
                at = self.of(sample.at_ns)
                sums[at] += sample.value
                counts[at] += 1
        means = (Sample(at_ns=int((at + 0.5) * self.width_s * 1e9), measure="", value=total / number)
                 for at, (total, number) in enumerate(zip(sums, counts, strict=True)) if number)
        return self.last(means)

    def highest(self, points: Iterable[tuple[int, float]]) -> Values:
        """The highest value in each bucket, 0 where there is none."""
        values = [0.0] * self.count
        for at_ns, value in points:
            at = self.of(at_ns)
            values[at] = max(values[at], value)
        return tuple(values)
