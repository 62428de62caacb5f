"""What runs in nodes, and beside them, while a fault acts: each a program of its own (`python -m …`), and what these are made of."""
