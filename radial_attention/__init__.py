"""Attention of video tokens that grows sparser with distance in time: exact, differentiable, for any size."""
