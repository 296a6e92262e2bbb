"""TensorFlow and TFDS, kept off GPUs. Nothing else imports them.

TensorFlow would take a GPU's whole memory, which JAX needs.
"""

import tensorflow as tf
import tensorflow_datasets as tfds

__all__ = ['tf', 'tfds']

tf.config.set_visible_devices([], 'GPU')
tfds.disable_progress_bar()  # our own lines show the progress
