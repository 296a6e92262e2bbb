"""Prepared sets for the tests of this folder; they need TensorFlow."""

from tests.helpers.batches import data_dir, published_dir

__all__ = ['data_dir', 'published_dir']
