"""Rain100H with the paper's network, loss and shape of schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates: 44 epochs of 15 crops of
96 pixels from each of 1800 images, or 63 epochs of PReNet's 1254 images.
Published: 30.32 dB / 0.938 (MixDTPNet; rgb, images cropped to multiples of 32),
29.46 / 0.899 (PReNet, trained on the 1254; prenet).
"""

import functools

from mixdtp_jax.configs.default import for_data_set

get_config = functools.partial(for_data_set, 'rain100h')
