"""The loop, state, optimizers, mesh, checkpoints and logs."""
