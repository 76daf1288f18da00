"""Optimizers, their rates and the average of the weights. Imports nothing: plans read the names."""
