"""Data sets, rain, and the batches that training and evaluation read."""
