"""The recipe of the MixDTPNet repository, switch for switch.

It is here to reproduce what that code does, beside the recipe of the paper,
configs/rain100l.py. What its training does, and the switch for it:

- An image that is not higher than wide is transposed, then always the second
  cell of a grid of 96 pixels is taken, with no flip and no turn: each image
  shows one crop for the whole training. data.transpose_landscape, data.crops.
- The loss is -SSIM(final) + 0.5 SSIM(coarse), which pushes the coarse image
  away from the clean one; the paper has + 0.5 MSE(coarse). loss.coarse.
- Adam at 1e-4 in batches of 3 for 300 epochs; the rate is multiplied by 0.2 at
  the epochs 10, 50 and 80. But its scheduler is told the number of the epoch
  that has just ended, so each rate begins one epoch late, counted from 0 in
  the epochs 11, 51 and 81. schedule.boundaries.
- Both images are cut to multiples of 32 before they are scored, under protocol
  rgb. eval_crop_multiple.
- Resuming loads the weights alone: Adam's moments start from zero, the rate is
  that of the epoch. The same command continues a run here with its optimizer;
  a new run that starts from the weights of another has a fresh one: init_from.

Two things are not copied. Its loader ends each epoch with the batch that is
left over (2 images of 200); here every batch is full, and an epoch's last one
is filled up with images of the next. Its branch for several GPUs is never
reached, since it makes a single one visible first; here all devices share a
batch, so a batch of 3 is for 1 or 3 of them.

docs/fidelity.md has the commands that compare this recipe with the paper's.
"""

import math

import ml_collections

from mixdtp_jax.configs.default import get_config as get_default_config

# For another data set change its name below and this; Rain200L has 1800.
PAIRS = 200
BATCH_SIZE = 3
UPDATES_PER_EPOCH = math.ceil(PAIRS / BATCH_SIZE)


def get_config() -> ml_collections.ConfigDict:
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
