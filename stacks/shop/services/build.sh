#!/bin/sh
# Puts the pinned dependencies and the shared library into $OUT/site-packages, and compiles them: nodes can't write there.
set -eu
cd "$(dirname "$0")"
python3 -m venv .venv  # for its pip: the system's Python may come without one
.venv/bin/pip install --quiet --no-deps --only-binary :all: --require-hashes --no-compile \
  --target "$OUT/site-packages" --requirement requirements.lock
cp -R common/shop_common "$OUT/site-packages/"
python3 -m compileall -q --invalidation-mode unchecked-hash "$OUT/site-packages"
