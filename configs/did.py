"""DID-Data with the paper's network, loss and shape of schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates of 4 crops of 96 pixels.
Published under y_float: 33.17 dB / 0.9481 (PReNet), 35.29 / 0.9641
(Restormer), 35.58 / 0.9664 (SWFormer-l); none for MixDTPNet.
"""

import functools

from mixdtp_jax.configs.default import for_data_set

get_config = functools.partial(for_data_set, 'did')
