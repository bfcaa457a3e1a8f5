"""The host's side of training: elements, their cache, batches."""
