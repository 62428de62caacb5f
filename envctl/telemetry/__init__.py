"""OTLP intake, span store, lag and saturation samplers."""
