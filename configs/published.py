"""The recipe of the MixDTPNet repository, which differs from the paper's.

It reproduces what the original code does; rain100l is the paper's recipe. Its
properties, each with its options here:

- data.transpose_landscape, data.crops: an image that is not higher than wide is
  transposed; then the second cell of a grid of 96 pixels is taken, without
  mirroring or turning. So each image gives one crop for the whole training.
- loss.coarse: the loss is -SSIM(final) + 0.5 SSIM(coarse), which pushes the
  coarse image away from the clean one; the paper has + 0.5 MSE(coarse).
- schedule.boundaries: Adam at 1e-4, in batches of 3 for 300 epochs; the rate is
  multiplied by 0.2 at epochs 10, 50 and 80. But the scheduler gets the number
  of the epoch that has just ended, so each rate begins one epoch late: in
  epochs 11, 51 and 81, counted from 0.
- eval_crop_multiple: images are cut to multiples of 32 before they are scored
  under protocol rgb.
- init_from: the original resumes with the weights alone; Adam's moments start
  from zero, and the rate is that of the epoch. Here, the same command continues
  a run with its optimizer, and init_from starts a new run with a fresh one.

Two properties are not copied. The original's epochs end with a smaller batch (2
of 200 images); here every batch is full, and the last one of an epoch takes
images of the next. The original's code for several GPUs never runs, because it
makes only one visible; here all devices share a batch, so a batch of 3 is for 1
or 3 devices.

docs/fidelity.md has the commands that compare this recipe with the paper's.
"""

import math

from mixdtp_jax.configs.default import get_config as get_default_config

# For another data set, change its name below and this number (Rain200L: 1800).
PAIRS = 200
BATCH_SIZE = 3
UPDATES_PER_EPOCH = math.ceil(PAIRS / BATCH_SIZE)


def get_config():
  config = get_default_config()
  config.data.name = 'rain100l'
  config.data.crop = 96
  config.data.crops = 'second_cell'
  config.data.transpose_landscape = True
  config.data.flip = False
  config.data.rotate = False

  config.batch_size = BATCH_SIZE
  config.num_train_steps = 300 * UPDATES_PER_EPOCH

  config.loss.final = 'negative_ssim'
  config.loss.coarse = 'ssim_as_published'
  config.loss.coarse_weight = 0.5

  config.optimizer.name = 'adam'
  config.optimizer.eps = 1e-8
  config.schedule.name = 'steps'
  config.schedule.learning_rate = 1e-4
  config.schedule.boundaries = tuple(
    (milestone + 1) * UPDATES_PER_EPOCH for milestone in (10, 50, 80)
  )
  config.schedule.factor = 0.2

  config.eval_crop_multiple = 32
  return config
