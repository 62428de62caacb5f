import pytest

from envctl.errors import SpecError
from envctl.spec.examples import GrpcExample, HttpExample, load_examples

PROTO = 'syntax = "proto3"; package p; service S { rpc Do(A) returns (A); } message A {}'


def test_examples_are_read_with_their_defaults(tmp_path):
    (tmp_path / "s.proto").write_text(PROTO)
    (tmp_path / "x.yaml").write_text("""
envctl: examples/v1
http: [{request: {path: "/a/{b}"}, response: {headers: {X-N: 1}}}]
grpc: {proto: s.proto, examples: [{method: p.S/Do}]}
""")
    found = load_examples(tmp_path / "x.yaml")
    assert found.http == (HttpExample("GET", "/a/{b}", headers={"X-N": "1"}),)
    assert (found.proto, found.grpc) == (tmp_path / "s.proto", (GrpcExample("p.S/Do", {}, {}),))


@pytest.mark.parametrize(("text", "message"), [
    ("a: [", "is not valid YAML"),
    ("envctl: examples/v2", "x.yaml:1: envctl: found 'examples/v2', allowed: examples/v1"),
    ("envctl: examples/v1", "found no examples"),
    ("{envctl: examples/v1, https: []}", "https: unknown field"),
    ("envctl: examples/v1\nhttp:\n  - request: {path: x}", "x.yaml:3: http[0].request.path: found 'x', allowed: a path"),
    ("{envctl: examples/v1, http: [{request: {path: /x}, response: {status: 99}}]}", "status: found 99, allowed: 200 or more"),
    ("{envctl: examples/v1, http: [5]}", "http[0]: found 5, allowed: a mapping"),
    ("{envctl: examples/v1, grpc: {proto: s.prot.proto, examples: [{method: p.S/Do}]}}", "did you mean 's.proto'?"),
    ("{envctl: examples/v1, grpc: {proto: s.proto, examples: [{method: p.S/Don}]}}", "did you mean 'p.S/Do'?"),
])
def test_each_mistake_in_examples_is_named(tmp_path, text, message):
    (tmp_path / "s.proto").write_text(PROTO)
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_examples(tmp_path / "x.yaml")
    assert message in str(caught.value)
