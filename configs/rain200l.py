"""Rain200L with the paper's network, loss and shape of schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates of 4 crops of 96 pixels.
Published: 36.27 dB / 0.980 (MixDTPNet; rgb, images cropped to multiples of 32);
under y 37.80 / 0.9814 (PReNet), 40.99 / 0.9890 (Restormer), 42.70 / 0.9922
(SWFormer-l).
"""

import functools

from mixdtp_jax.configs.default import for_data_set

get_config = functools.partial(for_data_set, 'rain200l')
