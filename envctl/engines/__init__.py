"""How each kind of component is prepared, started, proved healthy and stopped."""
