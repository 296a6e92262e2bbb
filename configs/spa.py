"""SPA-Data with the paper's network, loss and shape of schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates of 4 crops of 96 pixels,
which is two crops from each of the 638,492 images of 256x256. Published: 32.43
dB / 0.916 (MixDTPNet; rgb, images cropped to multiples of 32); under y 40.16 /
0.9816 (PReNet), 47.98 / 0.9921 (Restormer), 50.28 / 0.9943 (SWFormer-l).
"""

import functools

from mixdtp_jax.configs.default import for_data_set

get_config = functools.partial(for_data_set, 'spa')
