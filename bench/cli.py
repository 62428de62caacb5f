"""How long the commands take that everybody types: `envctl --help` and `envctl plan`."""

from __future__ import annotations

import statistics

from bench import Figure, show, spread
from bench.project import ENVCTL, call, copied, envctl

TITLE = "The command line"
TIMES = 10


def figures(times: int = TIMES) -> list[Figure]:
    """Wall seconds of whole processes."""
    helped = [call([ENVCTL, "--help"]).wall_s for _ in range(times)]
    with copied() as root:
        envctl(root, "plan", "--full")
        planned = [envctl(root, "plan", "--full", "--scenario", "checkout-under-fire").wall_s for _ in range(times)]
    return [
        Figure("`envctl --help`", spread(helped), "≤ 0.3 s", statistics.median(helped) <= 0.3),
        Figure("`envctl plan --full --scenario checkout-under-fire`", spread(planned), "< 0.5 s", statistics.median(planned) < 0.5),
    ]


if __name__ == "__main__":
    show(figures())
