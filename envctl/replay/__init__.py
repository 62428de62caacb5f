"""Traffic files, the open-loop driver, the history of operations."""
