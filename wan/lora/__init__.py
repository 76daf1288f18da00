"""LoRA files of every layout: read, understood, routed, applied to layers, and answered for."""
