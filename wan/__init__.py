"""What is true of the Wan models themselves: shapes, flow, experts, LoRA files. Knows nothing of ComfyUI."""
