import pytest

from envctl.replay import outcomes


@pytest.mark.parametrize(("method", "status", "expected"), [
    ("POST", 201, "ok"), ("POST", 302, "ok"), ("POST", 400, "fail"), ("POST", 409, "fail"), ("POST", 408, "info"),
    ("POST", 500, "info"), ("POST", 503, "info"), ("POST", 501, "fail"), ("GET", 500, "fail"), ("GET", 408, "fail"),
    ("DELETE", 502, "info"),
])
def test_a_status_means_done_refused_or_unknown(method, status, expected):
    assert outcomes.of_http_status(method, status) == expected


def test_a_lost_connection_is_unknown_only_where_there_may_be_an_effect():
    assert outcomes.of_lost_connection("POST") == "info"
    assert outcomes.of_lost_connection("GET") == "fail"


@pytest.mark.parametrize(("code", "details", "expected"), [
    ("OK", "", "ok"), ("INVALID_ARGUMENT", "", "fail"), ("ABORTED", "", "fail"), ("UNKNOWN", "", "info"), ("INTERNAL", "", "info"),
    ("DEADLINE_EXCEEDED", "", "info"), ("CANCELLED", "", "info"), ("UNAVAILABLE", "Socket closed", "info"),
    ("UNAVAILABLE", "failed to connect to all addresses; last error: …", "fail"),
])
def test_a_grpc_code_means_done_refused_or_unknown(code, details, expected):
    assert outcomes.of_grpc_code(code, details) == expected


def test_a_timeout_is_never_a_failure():
    assert outcomes.timed_out(5.0).type == "info"


def test_what_was_not_sent_says_so():
    assert outcomes.not_sent("why").value == {"error": "not sent: why", "sent": False}
