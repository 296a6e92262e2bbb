"""Three data sets in the proportions of Rain13K, tested on Rain100H.

Rain13K, on which MPRNet, Restormer and others train, has 13,712 pairs: 11,200
from DDN-Data, 1,800 from Rain100H, 700 from Rain800, and Rain12, which is left
out here. A round of 137 crops has these proportions; all 12,600 training pairs
of DDN-Data are used. Prepare all three sets in one data_dir first. 546 of
Rain100H's 1800 backgrounds are also in its test set, which is Rain100L's too:
use the copy with 1254 pairs for results to publish.

Published on Rain100H, Y channel without a stated variant: 30.41 dB / 0.890
(MPRNet), 31.64 / 0.904 (Restormer).
"""

from mixdtp_jax.configs.default import get_config as get_default_config


def get_config():
  config = get_default_config()
  config.data.name = 'rain100h'
  config.data.mixture = (('ddn', 112), ('rain100h', 18), ('rain800', 7))
  return config
