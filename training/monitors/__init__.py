"""What a run measures of itself, what it finds wrong, and which checkpoints it would keep."""
