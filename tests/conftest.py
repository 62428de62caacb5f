"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# Machines that run tests are busy: an example that takes long is no failure.
settings.register_profile("envctl", deadline=None, max_examples=60)
settings.load_profile("envctl")
