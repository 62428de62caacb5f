"""The search for an order of one object's operations in which each is legal.

It is Wing and Gong's search (Testing and verifying concurrent objects, Journal of Parallel and Distributed Computing 17, 1993) as Lowe has it (Testing for
linearizability, Concurrency and Computation: Practice and Experience 29, 2017): *just in time*, an operation takes effect no earlier than some completion
calls for it, and never twice through the same configuration: which state the object is in, and which of the operations under way have taken effect.

Operations of unknown outcome stay under way for ever, and any subset of them may have taken effect.  Five rules keep that from being exponential where it
need not be:

1. Two of equal effect are interchangeable: only how many were used counts.
2. An unknown one is not used where a known one of equal effect is under way: whenever that one would have been placed later, the unknown one, which
   ends never, can take its place.  Likewise, of two known ones the first to end is used first.
3. A configuration is passed over where one was seen in the same state that has used no more unknown ones and has answered no fewer reads: whatever
   leads from the former to the end leads there from the latter, too, with reads left out.  For the same reason, a read takes effect as soon as it is legal.
4. An unknown one is used only where it may lead to an answer that is asked for (`Machine.serves`): where nothing sees it, it can be left out, or come later.
5. A configuration is passed over from which there is no way on (`_is_stuck`): a read under way wants a state to which nothing leads any more, or one that begins
   later wants this one, which something under way would leave for ever before.

What is left is the choice among unknown ones that lead to the same state, such as `write 2` and `cas [1, 2]`.  It seldom matters, so the search begins
as if none of them could ever run out.  If there is no order even so, there is none.  If there is one that uses more than there were, those of that effect are
counted from then on, and the search begins anew (abstraction refinement: Clarke, Grumberg, Jha, Lu and Veith, CAV 2000).
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from envctl.consistency.models import CAS, ILLEGAL, PUT, READ, Effect, Machine
from envctl.model.history import Operation


class BudgetError(Exception):
    """More states than the budget allows would have to be looked at."""


class Unknown(NamedTuple):
    """The unknown operations of one effect that have been invoked; how many of them were used stands in the bits of `mask` from `shift` on."""

    effect: Effect
    shift: int
    mask: int
    most: int


class Return(NamedTuple):
    """A completion, and what is under way until then."""

    place: int
    bit: int  # of the operation that completes
    reads: Sequence[tuple[int, Effect]]  # (bit, effect) of each that is under way
    movers: Sequence[tuple[int, Effect, int]]  # likewise with the places of their ends, of those that are no reads; what ends first comes first
    read_bits: int
    spent_bits: int  # of those movers that nobody can see any more once another one has come
    unknown: Sequence[Unknown]


class Configuration(NamedTuple):
    """How far things may have come."""

    state: Any
    done: int  # bits of the operations under way that have taken effect
    used: int  # how many of the unknown ones have, by effect
    over: int  # the masks of those of which more would have had to


Seen = dict[tuple[int, Any, int], list[tuple[int, int]]]
"""(completion, state, movers done) → (reads done, unknown ones used) of all that were seen, but for those that another one is as good as."""


class Course:
    """The completions of one object's operations, in order."""

    def __init__(self, machine: Machine, operations: Sequence[Operation], *, everything: bool = False) -> None:
        """For the operations that a machine was made for, by `began`; `everything`: what matters only to what may follow, too."""
        self.machine = machine
        self._everything = everything
        self.guards = 0  # a bit above each count in `Configuration.used`
        effects = [(each.began, machine.effect(each)) for each in operations if each.outcome == "info" and each.f != "read"]
        unknown = [(began, effect) for began, effect in effects if everything or machine.matters(effect)]
        self._fields = self._laid_out(effect for _, effect in unknown)
        self.returns = tuple(self._returns([each for each in operations if each.outcome == "ok"], unknown))
        self.unknown = self._counted(Counter(effect for _, effect in unknown))

    def _laid_out(self, effects: Iterable[Effect]) -> dict[Effect, tuple[int, int]]:
        """Effect → shift and mask of its count."""
        fields, shift = {}, 0
        for effect, count in Counter(effects).items():
            width = count.bit_length()
            fields[effect] = (shift, (1 << width) - 1)
            shift += width + 1
            self.guards |= 1 << (shift - 1)
        return fields

    def _counted(self, counts: Counter[Effect]) -> tuple[Unknown, ...]:
        return tuple(Unknown(effect, *self._fields[effect], count) for effect, count in counts.items())

    def _returns(self, known: Sequence[Operation], unknown: Sequence[tuple[int, Effect]]) -> Iterator[Return]:
        """Goes through the history once; a bit is used again as soon as its operation has returned."""
        begun, counts, counted = 0, Counter[Effect](), 0
        free, bits = list[int](), 0
        now: tuple[Unknown, ...] = ()
        under_way: list[tuple[int, int, Effect]] = []  # place of the end, bit, effect; by the former
        for place in sorted(each.ended or 0 for each in known):
            while begun < len(known) and known[begun].began < place:
                if not free:
                    free, bits = [1 << bits], bits + 1
                insort(under_way, (known[begun].ended or 0, free.pop(), self.machine.effect(known[begun])))
                begun += 1
            if counted < len(unknown) and unknown[counted][0] < place:
                while counted < len(unknown) and unknown[counted][0] < place:
                    counts[unknown[counted][1]] += 1
                    counted += 1
                now = self._counted(counts)
            yield self._return(place, under_way, now)
            free.append(under_way.pop(0)[1])

    def _return(self, place: int, under_way: Sequence[tuple[int, int, Effect]], unknown: Sequence[Unknown]) -> Return:
        reads = [(bit, effect) for _, bit, effect in under_way if effect[0] == READ]
        movers = [(bit, effect, end) for end, bit, effect in under_way if effect[0] != READ] if len(reads) < len(under_way) else ()
        spent = sum(bit for bit, effect, _ in movers if self.machine.spent(effect, place)) if len(movers) > 1 and not self._everything else 0
        return Return(place, under_way[0][1], reads, movers, sum(bit for bit, _ in reads), spent, unknown)


class Search:
    """Goes along a course, depth first."""

    def __init__(self, course: Course, budget: int) -> None:
        """`budget`: how many states may be looked at."""
        self._left, self._course, self._machine = budget, course, course.machine
        self._track(0 if course.machine.hides else -1)

    def _track(self, masks: int) -> None:
        """Counts how many were used of the unknown ones of these masks; of others, any number may be."""
        self._tracked, self._guards = masks, self._course.guards & (masks << 1)

    def linearizable(self) -> bool:
        """Whether there is an order.  Raises BudgetError."""
        while True:
            deepest, over = self.deepest()
            if not over:
                return deepest == len(self._course.returns)
            self._track(self._tracked | over)

    def ends(self) -> list[Configuration]:
        """Where the course can end, as far as one differs from another for what may follow.  Raises BudgetError."""
        found: list[Configuration] = []
        self._track(-1)
        self.deepest(found)
        return found

    def deepest(self, ends: list[Configuration] | None = None) -> tuple[int, int]:
        """How many completions can be gone along (all where there is an order), and of which unknown ones more were used for it than there were.

        Goes every way, not only until one has led to the end, where there is a list for the configurations there.  Raises BudgetError.
        """
        returns, deepest = self._course.returns, 0
        seen: Seen = {}
        stack = [(0, Configuration(self._machine.initial, 0, 0, 0))]
        while stack:
            index, now = stack.pop()
            while index < len(returns):
                event = returns[index]
                now, wanted = self._answered(event, now)
                if self._is_stuck(event, now, wanted):
                    break
                if now.done & event.bit:
                    index, now = index + 1, now._replace(done=now.done ^ event.bit)
                    deepest = max(deepest, index)
                elif self.is_new(seen, index, now, event.read_bits) and (steps := self._steps(event, now, wanted)):
                    now = steps.pop()
                    stack += [(index, step) for step in steps]
                else:
                    break
            else:
                if ends is None:
                    return deepest, now.over
                ends.append(now)
        return deepest, 0

    def is_new(self, seen: Seen, index: int, now: Configuration, reads: int) -> bool:
        """Notes a configuration before a completion, unless one that is as good has been there."""
        state, done, used, _ = now
        before = seen.setdefault((index, state, done & ~reads), [])
        done &= reads
        used &= self._tracked
        guarded, guards = used | self._guards, self._guards
        if any(done & answered == done and (guarded - fewer) & guards == guards for answered, fewer in before):
            return False
        before.append((done, used))
        return True

    def _answered(self, event: Return, now: Configuration) -> tuple[Configuration, list[Effect]]:
        """With the reads that are legal there, and the others, which want another state.  Raises BudgetError."""
        self._left -= 1
        if self._left < 0:
            raise BudgetError
        done, wanted = now.done, []
        for bit, effect in event.reads:
            if not done & bit:
                if self._machine.apply(now.state, effect) is ILLEGAL:
                    wanted.append(effect)
                else:
                    done |= bit
        return now if done == now.done else now._replace(done=done), wanted

    def _is_stuck(self, event: Return, now: Configuration, wanted: Sequence[Effect]) -> bool:
        """Whether there is no way on from here: to a state that is wanted, or from one that must last longer than something that would leave it."""
        machine, place = self._machine, event.place
        if wanted and machine.dead(now.state, wanted):
            return True
        until = machine.asked(now.state)
        lost = [state for state in (now.state, *(effect[1] for effect in wanted)) if machine.gone(state, place)]
        if not lost or not (wanted or until > place):
            return False
        rest = [(effect, end) for bit, effect, end in event.movers if not now.done & bit]
        lost = [state for state in lost if all(effect[-1] != state for effect, _ in rest)]
        return any(state != now.state or any(end < until for _, end in rest) for state in lost)

    def _steps(self, event: Return, now: Configuration, wanted: Sequence[Effect]) -> list[Configuration]:
        """What one more operation may lead to; the best comes last."""
        state, done, used, over = now
        machine, steps, known = self._machine, [], set()
        for bit, effect, _ in event.movers:
            if done & bit or effect in known:
                continue
            known.add(effect)
            if bit == event.bit or (machine.hides and not bit & event.spent_bits) or machine.serves(state, effect, wanted):
                after = machine.apply(state, effect)
                if after is not ILLEGAL:
                    steps.append(Configuration(after, done | bit | (event.spent_bits if effect[0] == PUT else 0), used, over))
        if event.unknown:
            steps += self._guesses(event, now, wanted, known)
        steps.reverse()
        return steps

    def _guesses(self, event: Return, now: Configuration, wanted: Sequence[Effect], known: set[Effect]) -> Iterator[Configuration]:
        machine, state, used = self._machine, now.state, now.used
        wanted = self._demand(event.unknown, [*wanted, *(effect for effect in known if machine.apply(state, effect) is ILLEGAL)])
        if not wanted:
            return
        for effect, shift, mask, most in event.unknown:
            left = (used >> shift) & mask < most
            if effect not in known and (left or not self._tracked >> shift & 1) and machine.serves(state, effect, wanted):
                after = machine.apply(state, effect)
                if after is not ILLEGAL:
                    done = now.done | (event.spent_bits if effect[0] == PUT else 0)
                    yield Configuration(after, done, used + (1 << shift), now.over) if left else Configuration(after, done, used, now.over | mask << shift)

    def _demand(self, unknown: Sequence[Unknown], wanted: list[Effect]) -> list[Effect]:
        """With what an unknown `cas` wants where it serves one of them."""
        rest = [each.effect for each in unknown if each.effect[0] == CAS]
        while rest and wanted:
            more = [effect for effect in rest if self._machine.serves(None, effect, wanted)]
            if not more:
                break
            wanted += more
            rest = [effect for effect in rest if effect not in more]
        return wanted
