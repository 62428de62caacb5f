"""Where binaries come from when the machine lacks them."""
