"""The nodes, and the only code of the pack that imports ComfyUI."""
