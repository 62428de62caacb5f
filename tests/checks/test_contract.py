"""Every check, found through its entry point, keeps the contract."""

from __future__ import annotations

import jsonschema
import pytest

from envctl import plugins
from envctl.model.verdict import Finding

REGISTER = {"get": {"f": "read", "value": "response.value"}, "put": {"f": "write", "key": "request.name", "value": "request.value"}}
TXN = {"order": {"f": "txn", "value": [["r", "request.a", "response.a"], ["append", "request.b", "request.id"]]}}
PARAMS = {
    "no-loss": {"from": "accepted", "to": "published", "within": "20s"},
    "no-phantom": {"in": "published", "of": "accepted", "within": "20s"},
    "no-duplicates": {"in": "charges", "value": 1},
    "per-key-order": {"in": "published", "as": "accepted"},
    "converges": {"sources": ["charges", "report"], "within": "20s"},
    "lag-drains": {"group": "payments", "within": "20s", "below": 5},
    "linearizable": {"model": "register", "operations": REGISTER, "budget": 1000},
    "serializable": {"model": "list-append", "operations": TXN},
    "strict-serializable": {"operations": TXN},
    "session": {"operations": REGISTER, "process": "request.session"},
    "queue-model": {"topic": "orders.placed", "sent": "accepted", "group": "payments", "allow": ["duplicate"], "within": "20s"},
    "idempotent-consumer": {"group": "payments", "topic": "orders.placed", "effects": ["charges"]},
    "degraded-mode": {"while": "kill", "operation": "browse", "expect": {"success_rate": ">= 99 %"}, "answers": {"response.status": 200}},
    "traces-complete": {"edges": ["gateway -> orders", "orders ~> payments"], "operations": ["place_order"]},
}
NAMES = plugins.names("envctl.checks")


def test_every_check_is_tried_here():
    assert set(PARAMS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_check_keeps_its_contract(name, history):
    check, params = plugins.load("envctl.checks", name), PARAMS[name]
    jsonschema.Draft202012Validator.check_schema(check.schema)
    jsonschema.validate(params, check.schema)
    assert not jsonschema.Draft202012Validator(check.schema).is_valid({**params, "nonsense": 1})
    assert not jsonschema.Draft202012Validator(check.schema).is_valid({})
    assert check.name == name
    assert {kind for kind, _ in check.references(params)} <= {"stream", "group", "component", "topic", "operation", "fault", "subscription", "observation"}
    assert not list(getattr(check, "wrong", lambda _: ())(params))
    assert check.waits_s(params) == (20.0 if "within" in params else check.waits_s({}) if name == "traces-complete" else 0.0)
    found = check.judge("its-id", params, history.record())
    assert isinstance(found, Finding)
    assert (found.id, found.check, found.outcome) == ("its-id", name, "inconclusive"), "an empty record is never a pass"
