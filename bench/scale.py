"""What one more environment costs where there are 10, 100 and 1,000: a real control plane, fake nodes and pods (KWOK).

The objects are those that envctl makes of the demo's subset.  Those that are there already are one that was applied, and copies of all that
the cluster then knew of it (`scale_copy.py`); each that is measured comes up by a process of its own, with Pulumi's engine, as `envctl up` has it.
Nothing runs in a pod: keepers don't answer, so that of `envctl up` the parts that ask them (readiness, notes, ports) are left out, and `list`
and `gc` take their answer from here.

The plug-in for Kubernetes is the stand-in of the tests (Python, asks again and again); users get the official one.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench import Figure, show, spread
from bench.scale_cost import Cost, watched
from bench.scale_site import PLANE, Site, site
from bench.scale_work import Answered, objects_of, pods_each, setting, state_of

TITLE = "Many environments in a cluster"
SIZES = (10, 100, 1000)
MEASURED = 3  # environments that come and go at each size
MOST = 1.2
SERVER, *OTHERS = PLANE


@dataclass(frozen=True, slots=True)
class Size:
    """What was measured at one size."""

    size: int
    filled_s: float
    memory: dict[str, float]
    live: float
    ups: list[Cost]
    downs: list[Cost]
    listed: list[tuple[float, float]]
    gc: Cost
    looked_s: float


def measure(place: Site, size: int) -> Size:
    """Fills up to `size`, then has some more come and go."""
    filled = place.fill(size)
    say(f"{size:,} environments are there after {filled:.0f} s")
    memory, live = place.memory(), place.live()
    more = [f"more-{size}-{number}" for number in range(MEASURED)]
    ups = [place.up(env_id) for env_id in more]
    states(place, more[0])
    listed = [timed(listing) for _ in range(5)]
    downs = [place.down(env_id) for env_id in more]
    place.up(f"over-{size}-x")
    looked = statistics.median(timed(garbage)[0] for _ in range(3))
    found = Size(size, filled, memory, live, ups, downs, listed, watched("collect", "all"), looked)
    say(str(found))
    return found


def say(line: str) -> None:
    """How far it is: half an hour without a word would look like nothing."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def states(place: Site, template: str) -> None:
    """A state for every environment that was applied without the engine, like the one of `template`."""
    text = state_of(template).checkpoint.read_text()
    for env_id in place.there:
        state = state_of(env_id)
        state.ensure()
        state.checkpoint.write_text(text.replace(template, env_id))


def listing() -> int:
    from envctl.lease import survey

    return len(survey(substrates=Answered()))


def garbage() -> int:
    from envctl.lease import garbage as found

    return len(found(setting("SCALE_PROJECT"), substrates=Answered()))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, spent = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - spent


def figures(sizes: Sequence[int] = SIZES) -> list[Figure]:
    """Fills one cluster step by step, and measures at each size."""
    with site() as place:
        empty, nothing = place.memory(), place.live()
        each = f"{len(objects_of('scale-0000'))} objects, {pods_each()} pods"
        found = [measure(place, size) for size in sizes]
    return [Figure("one environment", each), *_figures(found, empty, nothing)]


def _figures(found: Sequence[Size], empty: dict[str, float], nothing: float) -> Iterator[Figure]:
    for one in found:
        at = f"at {one.size:,}:"
        yield Figure(f"{at} one more, wall until the engine is done", spread([cost.wall_s for cost in one.ups]))
        yield Figure(f"{at} … until its pods are ready", spread([cost.steady_s for cost in one.ups]))
        yield Figure(f"{at} … CPU of envctl, engine and plug-in", spread([cost.cpu_s for cost in one.ups]))
        yield Figure(f"{at} … CPU of the API server meanwhile", spread([cost.plane_s[SERVER] for cost in one.ups]))
        yield Figure(f"{at} … of that its routine, as just before", spread([cost.routine_s[SERVER] for cost in one.ups]))
        yield Figure(f"{at} … CPU of etcd, controllers and scheduler, without their routine", spread([cost.more_s(*OTHERS) for cost in one.ups]))
        for name in ("envctl", "engine", "plug-in"):
            yield Figure(f"{at} … peak memory, {name}", spread([cost.memory[name] for cost in one.ups], "MB", 0))
        for name in PLANE:
            more = one.memory[name] - empty[name]
            yield Figure(f"{at} memory of {name}", f"{one.memory[name]:.0f} MB, {more / one.size:.2f} MB an environment")
        yield Figure(f"{at} … of the API server's that its objects take", f"{one.live:.1f} MB, {(one.live - nothing) / one.size:.2f} MB an environment")
        yield Figure(f"{at} `list`", f"{spread([wall for wall, _ in one.listed])}, CPU {statistics.median(cpu for _, cpu in one.listed):.2f} s")
        yield Figure(f"{at} what `gc` looks through", f"{one.looked_s:.2f} s")
        yield Figure(f"{at} `gc` of one that has run out, whole", f"{one.gc.wall_s:.2f} s, CPU {one.gc.cpu_s:.2f} s")
        yield Figure(f"{at} `down`, wall", spread([cost.wall_s for cost in one.downs]))
        yield Figure(f"{at} … CPU", spread([cost.cpu_s for cost in one.downs]))
        yield Figure(f"{at} … CPU of the API server, without its routine", spread([cost.more_s(SERVER) for cost in one.downs]))
    yield from _curve(found[0], found[-1], nothing)


def _curve(small: Size, large: Size, nothing: float) -> Iterator[Figure]:
    def grown(what: str, of: Callable[[Size], float]) -> Figure:
        ratio = of(large) / of(small)
        return Figure(f"{what}, at {large.size:,} against {small.size}", f"{ratio:.2f} ×", f"≤ {MOST} ×", ratio <= MOST)

    def median(costs: Sequence[Cost], of: Callable[[Cost], float]) -> float:
        return statistics.median(map(of, costs))

    yield grown("CPU of envctl, engine and plug-in for one more", lambda one: median(one.ups, lambda cost: cost.cpu_s))
    yield grown("their memory", lambda one: median(one.ups, lambda cost: sum(cost.memory.values())))
    yield grown("wall of one more", lambda one: median(one.ups, lambda cost: cost.wall_s))
    yield grown("CPU of the API server for one more", lambda one: median(one.ups, lambda cost: cost.more_s(SERVER)))
    yield grown("memory of the API server's objects an environment", lambda one: (one.live - nothing) / one.size)
    yield grown("CPU of both, coming and going", lambda one: median(one.ups, lambda cost: cost.cpu_s) + median(one.downs, lambda cost: cost.cpu_s))
    yield grown("CPU of `down` alone", lambda one: median(one.downs, lambda cost: cost.cpu_s))


if __name__ == "__main__":
    show(figures())
