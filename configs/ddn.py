"""DDN-Data with the paper's network, loss and shape of schedule.

The rate falls at 30, 50 and 80 % of 300,000 updates of 4 crops of 96 pixels.
Published under y_float: 32.60 dB / 0.9459 (PReNet), 34.20 / 0.9571
(Restormer), 34.51 / 0.9608 (SWFormer-l); none for MixDTPNet.
"""

import functools

from mixdtp_jax.configs.default import for_data_set

get_config = functools.partial(for_data_set, 'ddn')
