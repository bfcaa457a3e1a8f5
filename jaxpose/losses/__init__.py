"""Pure losses: one value per joint or per sample; reduction is the caller's."""
