"""Image deraining in JAX: MixDTPNet, its data, training and evaluation."""

import os

# TensorFlow only reads data here, and is imported by several libraries: its
# start-up notices, also those on oneDNN, would bury our output.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
