"""What in a Dockerfile needs BuildKit is found at its line; what only looks like it is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.spec.dockerfiles import buildkit_needs

HERE = """\
FROM a
COPY <<one <<-"two" /etc/
--- RUN --mount=type=cache
one
\ttwo
RUN <<EOF
ADD --link x /
EOF
RUN --network=none true
"""
CONTINUED = """\
# a comment
FROM a

RUN \\
  # within an instruction
  --mount=type=cache,target=/x --security=insecure \\

  true
run --mount=type=cache,target=/y true
ONBUILD COPY --link --from=b x /
"""


@pytest.mark.parametrize(("text", "found"), [
    ("FROM a\nRUN --mount=type=cache,target=/x make\n", [(2, "RUN --mount")]),
    (CONTINUED, [(4, "RUN --mount"), (4, "RUN --security"), (9, "RUN --mount"), (10, "COPY --link")]),
    (HERE, [(2, "COPY <<"), (6, "RUN <<"), (9, "RUN --network")]),
    ("FROM a\nCOPY --chmod=755 --chown=1 a b\nADD --checksum=sha256:1 a b\n", [(2, "COPY --chmod"), (3, "ADD --checksum")]),
    ("FROM --platform=$BUILDPLATFORM a\nARG TARGETARCH\n", [(1, "FROM BUILDPLATFORM"), (2, "ARG TARGETARCH")]),
    ("# escape=`\nFROM a\nRUN `\n --mount=type=tmpfs true\n", [(3, "RUN --mount")]),
    ("# syntax=example/own:1\nFROM a\n", [(1, "syntax example/own:1")]),
])
def test_what_needs_buildkit_is_found_at_its_line(text: str, found: list[tuple[int, str]]) -> None:
    assert [*buildkit_needs(text)] == found


@pytest.mark.parametrize("text", [
    "# syntax=docker/dockerfile:1.7\nFROM a\nRUN true\n",  # a comment to the classic builder
    "FROM a\n# syntax=example/own:1\n# RUN --mount=x\nRUN true --mount=x\n",
    "FROM a AS b\nCOPY --from=b --chown=1:1 x y\nADD --chown=1 x y\nHEALTHCHECK --interval=5s CMD true\n",
    "FROM a\nRUN cat <<< word\nRUN echo $((1 <<EOF)) x<<EOF\nRUN sh -c 'cat <<EOF > x\\n\\\na\\n\\\nEOF\\n'\n",
    "ARG TARGETARCH=amd64\nFROM --platform=linux/$TARGETARCH a\nARG MY_TARGETARCH\n",
    "",
])
def test_what_the_classic_builder_builds_is_left_to_it(text: str) -> None:
    assert [*buildkit_needs(text)] == []


def test_a_platform_that_is_given_as_an_argument_needs_nothing() -> None:
    assert [*buildkit_needs("ARG BUILDPLATFORM\nFROM --platform=$BUILDPLATFORM a\n", {"BUILDPLATFORM": "linux/amd64"})] == []


@given(st.lists(st.sampled_from(("FROM a", "RUN", "--mount=x", "<<EOF", "EOF", "\\", "# x", "COPY", "", " ", "ONBUILD", "# escape=")), max_size=30).map("\n".join) | st.text())
def test_whatever_a_file_holds_it_is_read_to_its_end(text: str) -> None:
    assert all(1 <= line <= len(text.splitlines()) for line, _ in buildkit_needs(text))
