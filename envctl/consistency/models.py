"""What objects do when one operation follows another: register, counter, set, append-list.

A machine is made for the operations of one key.  Beside its transitions it says what need not be tried; each such rule has its reason, and the
tests hold all of them against trying everything.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, Final, Protocol

from envctl.consistency.shapes import ANY, LIST, PAIR, WHOLE, fits
from envctl.consistency.values import frozen, shown
from envctl.model.history import Fits, Operation

READ, PUT, CAS = 0, 1, 2
ILLEGAL: Final = object()

Effect = tuple[Any, ...]
"""What an operation does: `(READ, answer)`, `(PUT, value)` or `(CAS, old, new)`.  Operations of equal effect can stand for each other.

A READ leaves the state as it is.
"""


class Machine(Protocol):
    """One object, for the operations that were asked of it."""

    initial: Hashable
    hides: bool  # whether a PUT can make an earlier one unseen

    def __init__(self, operations: Sequence[Operation]) -> None:
        """For operations that fit; none of them failed."""

    def effect(self, operation: Operation) -> Effect:
        """The effect of one of those operations."""

    def matters(self, effect: Effect) -> bool:
        """False where a history that is right with an operation of unknown outcome and this effect is right without it, too."""

    def apply(self, state: Any, effect: Effect) -> Any:
        """The state afterwards, or ILLEGAL."""

    def serves(self, state: Any, effect: Effect, wanted: Collection[Effect]) -> bool:
        """Whether this may be the next step to a state in which one of the wanted ones, none of which is legal yet, is legal."""

    def dead(self, state: Any, wanted: Collection[Effect]) -> bool:
        """Whether one of the wanted ones can't become legal any more, whatever follows."""

    def spent(self, effect: Effect, place: int) -> bool:
        """Whether nothing that ends at that place or later can see that this one came last."""

    def asked(self, state: Any) -> int:
        """The place where the last known operation begins that asks for this state; 0 where there is none."""

    def gone(self, state: Any, place: int) -> bool:
        """Whether nothing leads to this state that begins after that place or is unknown."""

    def show(self, state: Any) -> str:
        """The state for a person."""


class Register:
    """A value that can be read, written, and replaced where it is the expected one; null at first."""

    initial: Hashable = None
    hides = True

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._last_wanted: dict[Hashable, int] = {}  # value → last place at which an operation that wants it ends
        self._asked: dict[Hashable, int] = {}  # value → last place at which a known operation that wants it begins
        self._brought: dict[Hashable, float] = {}  # value → last place at which one that leads to it begins; no end to it where one is unknown
        unknown = set()
        for operation in operations:
            effect = self.effect(operation)
            if effect[0] != READ:
                self._brought[effect[-1]] = max(self._brought.get(effect[-1], 0), operation.began if operation.ended else float("inf"))
            if operation.ended is None:
                unknown |= {effect} if effect[0] == CAS else set()
            elif effect[0] != PUT:
                self._want(effect[1], operation.ended)
                self._asked[effect[1]] = max(self._asked.get(effect[1], 0), operation.began)
        while any(self._want(old, self._last_wanted.get(new, 0)) for _, old, new in unknown):  # what an unknown `cas` needs to be of use
            pass

    def _want(self, value: Hashable, place: int) -> bool:
        if later := place > self._last_wanted.get(value, 0):
            self._last_wanted[value] = place
        return later

    def effect(self, operation: Operation) -> Effect:
        """A read asks for its value, a write leads to it, a `cas` does both."""
        if operation.f == "read":
            return (READ, frozen(operation.told))
        if operation.f == "write":
            return (PUT, frozen(operation.asked))
        return (CAS, *map(frozen, operation.asked))

    def matters(self, effect: Effect) -> bool:
        """Of one whose value nobody wants, all that follows until the next write is unwanted likewise: take them away, from the last on."""
        return effect[-1] in self._last_wanted

    def apply(self, state: Any, effect: Effect) -> Any:
        """Only a write is legal everywhere."""
        return effect[-1] if effect[0] == PUT or state == effect[1] else ILLEGAL

    def serves(self, state: Any, effect: Effect, wanted: Collection[Effect]) -> bool:
        """It leads to a value that is wanted."""
        del state
        return any(each[1] == effect[-1] for each in wanted)

    def dead(self, state: Any, wanted: Collection[Effect]) -> bool:
        """Every value can come back."""
        del state, wanted
        return False

    def spent(self, effect: Effect, place: int) -> bool:
        """A write whose value nobody wants any more."""
        return effect[0] == PUT and self._last_wanted.get(effect[1], 0) < place

    def asked(self, state: Any) -> int:
        """By a read or a `cas`."""
        return self._asked.get(state, 0)

    def gone(self, state: Any, place: int) -> bool:
        """Neither by a write nor by a `cas`."""
        return self._brought.get(state, 0) <= place

    def show(self, state: Any) -> str:
        """The value."""
        return shown(state)


class Growing:
    """What is common to objects of which nothing is ever overwritten."""

    initial: Hashable = 0
    hides = False

    def spent(self, effect: Effect, place: int) -> bool:
        """Never: what came before can be seen as well."""
        del effect, place
        return False

    def asked(self, state: Any) -> int:
        """Never: no state can be left and come back."""
        del state
        return 0

    def gone(self, state: Any, place: int) -> bool:
        """Left to `dead`."""
        del state, place
        return False


class Counter(Growing):
    """A sum; 0 at first."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        added = [operation.asked for operation in operations if operation.f == "add"]
        self._rises, self._falls = all(n >= 0 for n in added), all(n <= 0 for n in added)

    def effect(self, operation: Operation) -> Effect:
        """A read asks for a sum, an addition adds to it."""
        return (READ, operation.told) if operation.f == "read" else (PUT, operation.asked)

    def matters(self, effect: Effect) -> bool:
        """All but an addition of nothing."""
        return bool(effect[1])

    def apply(self, state: Any, effect: Effect) -> Any:
        """An addition is legal everywhere."""
        if effect[0] == PUT:
            return state + effect[1]
        return state if state == effect[1] else ILLEGAL

    def serves(self, state: Any, effect: Effect, wanted: Collection[Effect]) -> bool:
        """Additions commute: one that no read asks for now can as well come later."""
        if not (self._rises or self._falls):
            return bool(wanted)
        return any(0 < abs(effect[1]) <= abs(told - state) for _, told in wanted)  # none of them is dead

    def dead(self, state: Any, wanted: Collection[Effect]) -> bool:
        """Where all additions have one sign, the sum never comes back."""
        return any((self._rises and told < state) or (self._falls and told > state) for _, told in wanted)

    def show(self, state: Any) -> str:
        """The sum."""
        return str(state)


class GrowingSet(Growing):
    """Elements, each a bit of the state; empty at first."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._bits: dict[Hashable, int] = {}
        for operation in operations:
            if operation.f == "add":
                self._bits.setdefault(frozen(operation.asked), 1 << len(self._bits))
        self._read = 0
        for operation in operations:
            if operation.f == "read" and operation.ended is not None:
                self._read |= max(self._mask(operation.told), 0)

    def _mask(self, elements: Sequence[Any]) -> int:
        """Its bits; -1 for what no set of these elements is."""
        found = [self._bits.get(frozen(each), 0) for each in elements]
        return sum(found) if all(found) and len(set(found)) == len(found) else -1

    def effect(self, operation: Operation) -> Effect:
        """A read asks for all bits, an addition sets one."""
        return (READ, self._mask(operation.told)) if operation.f == "read" else (PUT, self._bits[frozen(operation.asked)])

    def matters(self, effect: Effect) -> bool:
        """What no read holds comes after all of them, if at all."""
        return bool(self._read & effect[1])

    def apply(self, state: Any, effect: Effect) -> Any:
        """An addition is legal everywhere, again, too."""
        if effect[0] == PUT:
            return state | effect[1]
        return state if state == effect[1] else ILLEGAL

    def serves(self, state: Any, effect: Effect, wanted: Collection[Effect]) -> bool:
        """Additions commute: only those that a read asks for need come now, and in one order, that of the bits."""
        return any(effect[1] == (missing := told & ~state) & -missing for _, told in wanted)

    def dead(self, state: Any, wanted: Collection[Effect]) -> bool:
        """Nothing is ever taken away."""
        return any(told < 0 or state & ~told for _, told in wanted)

    def show(self, state: Any) -> str:
        """The elements, by their first addition."""
        return f"[{', '.join(shown(element) for element, bit in self._bits.items() if state & bit)}]"


class AppendList(Growing):
    """A list that only grows; empty at first.

    Each read's answer must be a beginning of every longer one's, so the longest one is the order in which its elements came: the state is how many
    of them are there, and one more than all as soon as something else follows, which no read sees.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        answers = (operation.told for operation in operations if operation.f == "read" and operation.ended is not None)
        self._order = [frozen(each) for each in max(answers, key=len, default=[])]
        self._elements = set(self._order)

    def effect(self, operation: Operation) -> Effect:
        """A read asks for a length where it is a beginning of the order, and for none that there is where it is not."""
        if operation.f == "append":
            return (PUT, frozen(operation.asked))
        told = [frozen(each) for each in operation.told]
        return (READ, len(told) if told == self._order[:len(told)] else -1)

    def matters(self, effect: Effect) -> bool:
        """What no read holds comes after all of them, if at all."""
        return effect[1] in self._elements

    def apply(self, state: Any, effect: Effect) -> Any:
        """Until all that was read is there, only the next element of the order is legal."""
        if effect[0] == READ:
            return state if state == effect[1] else ILLEGAL
        if state >= len(self._order):
            return len(self._order) + 1
        return state + 1 if self._order[state] == effect[1] else ILLEGAL

    def serves(self, state: Any, effect: Effect, wanted: Collection[Effect]) -> bool:
        """Until all that was read is there, only one element can be next; afterwards nothing needs to be."""
        del wanted
        return bool(state < len(self._order) and self._order[state] == effect[1])

    def dead(self, state: Any, wanted: Collection[Effect]) -> bool:
        """Nothing is ever taken away."""
        return any(told < state for _, told in wanted)

    def show(self, state: Any) -> str:
        """The elements; an ellipsis for what nobody has read."""
        known = [shown(each) for each in self._order[:state]]
        return f"[{', '.join([*known, '…'] if state > len(self._order) else known)}]"


MODELS: Mapping[str, tuple[type[Machine], Fits]] = {
    "register": (Register, fits("register", {"read": (ANY, ANY), "write": (ANY, ANY), "cas": (PAIR, ANY)})),
    "counter": (Counter, fits("counter", {"read": (ANY, WHOLE), "add": (WHOLE, ANY)})),
    "set": (GrowingSet, fits("set", {"read": (ANY, LIST), "add": (ANY, ANY)})),
    "append-list": (AppendList, fits("append-list", {"read": (ANY, LIST), "append": (ANY, ANY)})),
}
