"""Which components a run needs, and why.  Pure and fast, but for `changes`, the thin part that asks git."""
