"""What is run in a new process; each prints what it measured as JSON."""
