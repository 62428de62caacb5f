#!/bin/sh
# Puts the pinned dependencies into $OUT/site-packages, and compiles them: nodes can't write there.
set -eu
python3 -m venv .venv  # for its pip: the system's Python may come without one
.venv/bin/pip install --quiet --no-deps --only-binary :all: --require-hashes --no-compile \
  --target "$OUT/site-packages" --requirement requirements.lock
python3 -m compileall -q --invalidation-mode unchecked-hash "$OUT/site-packages"
