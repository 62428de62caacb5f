"""envctl gives every pull request a production-shaped environment, hurts it on purpose, and judges it by evidence."""

__version__ = "0.1.0"
