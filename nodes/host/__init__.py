"""The seams between ComfyUI and the libraries."""
