"""Metric states that merge and compute exactly over batches and hosts."""
