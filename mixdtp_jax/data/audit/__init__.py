"""The audit of data sets: what is wrong in them, and what leaks."""
