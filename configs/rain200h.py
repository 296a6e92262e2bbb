"""Rain200H with the paper's network, loss and shape of schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates of 4 crops of 96 pixels.
Published: 24.56 dB / 0.847 (MixDTPNet; rgb, images cropped to multiples of 32);
under y 29.04 / 0.8991 (PReNet), 32.00 / 0.9329 (Restormer), 33.09 / 0.9441
(SWFormer-l).
"""

import functools

from mixdtp_jax.configs.default import for_data_set

get_config = functools.partial(for_data_set, 'rain200h')
