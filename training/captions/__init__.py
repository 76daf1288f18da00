"""Captions: made from templates, written with a way back, and judged."""
