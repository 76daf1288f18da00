"""What a run will do: presets, budgets, limits, estimates."""
