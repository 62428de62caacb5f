"""Session guarantees: what a process may rely on from one of its operations to the next, whatever others do.

Read your writes, monotonic reads, monotonic writes, writes follow reads: D. Terry et al., "Session Guarantees for Weakly Consistent Replicated Data",
PDIS 1994.  Each object is looked at alone, and a session is a process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

from envctl.consistency import serializable
from envctl.consistency.base import Property
from envctl.consistency.models import MODELS
from envctl.consistency.session_lists import judge_list
from envctl.consistency.session_registers import judge_register
from envctl.consistency.sessions import Act, Answer, Breach, steps
from envctl.consistency.transactions import key_shown
from envctl.model.history import Fits, History
from envctl.model.verdict import Evidence, Finding

NAME = "session"
SHOWN = 10
FITS: Mapping[str, Fits] = {**{name: MODELS[name][1] for name in ("register", "append-list")}, **serializable.FITS}
LISTS = frozenset(("append-list", "list-append"))  # all other models are registers


def judge(history: History, model: str, budget: int) -> Sequence[Finding]:
    """The finding `session`: fail where a guarantee is broken or several can't hold together, inconclusive where objects don't tell."""
    del budget  # the work grows with the history as its reading does
    objects = _objects(history, lists=model in LISTS)
    judged: Callable[[str, Sequence[Act]], Answer] = judge_list if model in LISTS else judge_register
    answers = {key: judged(key_shown(key), acts) for key, acts in objects.items()}
    breaches = [breach for answer in answers.values() for breach in answer.breaches]
    unclear = {key: answer.unclear for key, answer in answers.items() if answer.unclear}
    names = Counter(" or ".join(breach.guarantees) for breach in breaches)
    tied = sum(map(_tied, objects.values()))
    stats = {"operations": len(history.operations), "keys": len(objects), "unclear_keys": len(unclear), "tied": tied, "breaches": dict(names)}
    if breaches:
        title = f"{len(history.operations):,} operations break session guarantees: {', '.join(f'{count:,} {name}' for name, count in sorted(names.items()))}"
        return (Finding(NAME, NAME, "fail", title, evidence=_evidence(breaches), total=len(breaches), stats=stats),)
    if unclear:
        key, reason = next(iter(unclear.items()))
        return (Finding(NAME, NAME, "inconclusive", f"{len(unclear):,} of {len(objects):,} keys don't tell, such as {key_shown(key)}: {reason}", stats=stats),)
    title = f"all session guarantees hold between {tied:,} operations of {len(history.operations):,} and those before them in their process"
    return (Finding(NAME, NAME, "pass", title, stats=stats),)


def _objects(history: History, *, lists: bool) -> Mapping[Hashable, Sequence[Act]]:
    """By key, what was done with it, in the order of invocations."""
    objects: dict[Hashable, list[Act]] = {}
    for operation in history.operations:
        for key, act in steps(operation, lists=lists):
            objects.setdefault(key, []).append(act)
    return objects


def _tied(acts: Sequence[Act]) -> int:
    """How many acts came after others of their process."""
    return len(acts) - len({act.process for act in acts})


def _evidence(breaches: Sequence[Breach]) -> tuple[Evidence, ...]:
    """One breach of each kind first."""
    ranks: Counter[Sequence[str]] = Counter()
    ranked: list[tuple[int, int]] = []
    for breach in breaches:
        ranked.append((ranks[breach.guarantees], len(ranked)))
        ranks[breach.guarantees] += 1
    chosen = [breaches[at] for _, at in sorted(ranked)[:SHOWN]]
    return tuple(
        Evidence(f"{' or '.join(each.guarantees)}: {each.text}", ids=tuple(str(op.index) for op in each.operations), at_ns=each.operations[0].at_ns,
                 detail={"guarantees": each.guarantees})
        for each in chosen)


PROPERTY = Property(FITS, judge)
