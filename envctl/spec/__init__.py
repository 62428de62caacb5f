"""From YAML to the model: strict, versioned, every error at once with file, line and a hint."""
