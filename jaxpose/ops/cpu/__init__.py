"""What exists for CPUs alone."""
