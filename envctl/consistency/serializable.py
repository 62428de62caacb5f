"""Serializability of transactions, and strict serializability: a serial order explains all they read (and agrees with time)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from envctl.consistency.base import Property
from envctl.consistency.cycles import cycles
from envctl.consistency.dependencies import Anomaly, Scope
from envctl.consistency.list_append import ListAppend
from envctl.consistency.rw_register import RwRegister
from envctl.consistency.transactions import Transaction, key_shown, misfit, transactions
from envctl.model.history import Fits, History
from envctl.model.verdict import Evidence, Finding

SHOWN = 10
MODELS: Mapping[str, type[ListAppend | RwRegister]] = {"list-append": ListAppend, "rw-register": RwRegister}
WORST = ("garbage-read", "duplicate-elements", "incompatible-order", "internal", "G0", "G1a", "dirty-update", "G1b", "G1c", "G-single",
         "G2-item", "G0-realtime", "G1c-realtime", "G-single-realtime", "G2-item-realtime")


def judge(history: History, model: str, budget: int, *, strict: bool) -> Sequence[Finding]:
    """One finding.  With list-append it is exact; with rw-register `fail` is a proof and `pass` says that nothing certain speaks against it."""
    del budget  # the work grows with the history as its reading does
    kind = MODELS[model]
    taken = transactions(history, lists=kind.lists)
    asked = kind(taken, strict=strict)
    anomalies = [*asked.anomalies(), *cycles(asked, taken, strict=strict)]
    check = "strict-serializable" if strict else "serializable"
    stats = _stats(taken, asked.scope, anomalies)
    if anomalies:
        return (Finding(check, check, "fail", _title(check, anomalies, taken), evidence=_evidence(anomalies, taken), total=len(anomalies), stats=stats),)
    if reason := _unclear(asked.scope):
        return (Finding(check, check, "inconclusive", reason, stats=stats),)
    return (Finding(check, check, "pass", _good(check, taken, asked.scope), stats=stats),)


def _stats(taken: Sequence[Transaction], scope: Scope, anomalies: Sequence[Anomaly]) -> Mapping[str, object]:
    names = Counter(anomaly.name for anomaly in anomalies)
    outcomes = Counter(each.outcome for each in taken)
    return {
        "transactions": len(taken), "failed": outcomes["fail"], "unknown": outcomes["info"], "unknown_seen": len(scope.alive) - outcomes["ok"],
        "reads": scope.reads, "writes": scope.writes, "left_out_keys": len(scope.ambiguous), "version_pairs": scope.versions,
        "ordered_version_pairs": scope.ordered, "anomalies": {name: names[name] for name in WORST if name in names},
    }


def _title(check: str, anomalies: Sequence[Anomaly], taken: Sequence[Transaction]) -> str:
    names = Counter(anomaly.name for anomaly in anomalies)
    counts = ", ".join(f"{names[name]:,} {name}" for name in WORST if name in names)
    return f"{len(taken):,} transactions are not {check}: {counts}"


def _evidence(anomalies: Sequence[Anomaly], taken: Sequence[Transaction]) -> tuple[Evidence, ...]:
    """One anomaly of each name first, the worst before all others, then the rest."""
    ranks: Counter[str] = Counter()
    ranked: list[tuple[int, int, int]] = []
    for anomaly in anomalies:
        ranked.append((ranks[anomaly.name], WORST.index(anomaly.name), len(ranked)))
        ranks[anomaly.name] += 1
    chosen = [anomalies[at] for _, _, at in sorted(ranked)[:SHOWN]]
    return tuple(
        Evidence(f"{each.name}: {each.text}", ids=tuple(str(taken[n].index) for n in each.transactions), at_ns=taken[each.transactions[0]].at_ns,
                 detail={"anomaly": each.name, **each.detail})
        for each in chosen)


def _unclear(scope: Scope) -> str:
    """Why the history doesn't tell; empty where it does."""
    if not scope.ambiguous:
        return ""
    key, reason = next(iter(scope.ambiguous.items()))
    return f"{len(scope.ambiguous):,} keys could not be judged, such as {key_shown(key)}: {reason}; every value of a key must be written once"


def _good(check: str, taken: Sequence[Transaction], scope: Scope) -> str:
    what = f"{len(taken):,} transactions with {scope.reads:,} reads and {scope.writes:,} writes"
    if not scope.reads or not scope.writes:
        return f"{what} are {check}: nothing that was written was read, so there was nothing to compare"
    if not scope.versions:
        return f"{what} are {check}"
    return f"nothing certain speaks against {what} being {check}: the order of {scope.ordered:,} of {scope.versions:,} pairs of versions shows"


FITS: Mapping[str, Fits] = {name: partial(misfit, write=kind.write, lists=kind.lists) for name, kind in MODELS.items()}
SERIALIZABLE = Property(FITS, partial(judge, strict=False))
STRICT_SERIALIZABLE = Property(FITS, partial(judge, strict=True))
