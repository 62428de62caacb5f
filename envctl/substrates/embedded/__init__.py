"""Linux namespaces: one cell an environment, no container engine, no root."""
