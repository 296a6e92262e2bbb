"""TensorFlow and TFDS, which are imported here alone and stay off GPUs.

TensorFlow takes a GPU's whole memory when it starts; that is for JAX.
"""

import tensorflow as tf
import tensorflow_datasets as tfds

__all__ = ['tf', 'tfds']

tf.config.set_visible_devices([], 'GPU')
tfds.disable_progress_bar()  # our own lines tell the progress
