"""Plans, datasets and the training loop. Knows `wan/`, and nothing of ComfyUI."""
