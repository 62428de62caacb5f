from envctl.spec.contracts import contract_files, unary_methods

PROTO = """
syntax = "proto3";  // rpc Not(A) returns (B);
package shop.fraud.v1;
/* service Ghost { rpc Boo(A) returns (B); } */
option go_package = "service X { rpc Y(A) returns (B); }";
service Fraud {
  rpc Check (Order) returns (Verdict) { option deprecated = true; }
  rpc Watch(Order)
      returns (stream Verdict);
  rpc Upload(stream Order) returns (Verdict);
  rpc Streamed(streamer.Order) returns (Verdict);
}
service Audit { rpc List(Order) returns (Verdict); }
"""


def test_unary_methods_are_found_without_a_compiler(tmp_path):
    (tmp_path / "contracts" / "deep").mkdir(parents=True)
    (tmp_path / "contracts" / "deep" / "fraud.proto").write_text(PROTO)
    (tmp_path / "contracts" / "none.proto").write_text('syntax = "proto3"; service Bare { rpc Go(A) returns (A); }')
    files = contract_files(tmp_path)
    assert unary_methods(files) == (
        "shop.fraud.v1.Fraud/Check", "shop.fraud.v1.Fraud/Streamed", "shop.fraud.v1.Audit/List", "Bare/Go",
    )


def test_a_stack_without_contracts_has_none(tmp_path):
    assert contract_files(tmp_path) == ()
