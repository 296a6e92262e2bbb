"""The options of a recipe: defaults, ranges, units, meanings and relations.

The options of networks are in models/config.py, those of rain in
rain_ranges.py.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import ml_collections

from mixdtp_jax.models import config as models
from mixdtp_jax.recipe.rain_ranges import PRESETS, RainRanges
from mixdtp_jax.runtime.options import Options, build, option

# The keys of DATASETS in data/, which imports TensorFlow.
DATA_SETS = ('pairs', 'synthetic', 'photographs', 'rain100l', 'rain100h',
             'rain200l', 'rain200h', 'spa', 'raindrop', 'rid', 'did', 'ddn',
             'rain800')  # fmt: skip
# The keys of losses.LOSSES; that module imports JAX.
LOSSES = ('negative_ssim', 'ssim_as_published', 'mse', 'rmse', 'l1',
          'charbonnier', 'ssim_l1')  # fmt: skip

# A number of updates; a decay, which float32 would round to 1 if it was nearer.
_updates = functools.partial(option, unit='updates')
_decay = functools.partial(option, least=0, most=0.999999)


@dataclasses.dataclass(frozen=True)
class Data(Options):
  """The training and test images, and the crops."""

  prefix: ClassVar[str] = 'data.'

  name: str = option(
    'pairs', 'the data set; docs/data.md describes each', choices=DATA_SETS
  )
  mixture: tuple[tuple[str, int], ...] = option(
    (),
    'sets to train on instead of data.name, which then only gives test images: '
    'the name of each, and the number of its crops in each round of all sets. '
    'All except data.name must be prepared in data.data_dir',
    least=1,
    form="pairs of a set's name and its weight, a whole number",
  )
  source: str = option('', 'folder of the original files')
  data_dir: str = option(
    '', "folder of the prepared copies; '' is WORKDIR/data"
  )
  cache_mb: float = option(
    2048.0, 'decoded images kept in memory; 0 keeps none', unit='MiB', least=0
  )
  crop: int = option(
    96,
    'side of the crops, a multiple of 8 (of 1 for prenet) and of mesh_space',
    unit='pixels',
    least=1,
  )
  crops: str = option(
    'random',
    'where crops are cut: random, or second_cell as in the original code',
    choices=('random', 'second_cell'),
  )
  transpose_landscape: bool = option(
    False, 'make every image upright before it is cropped'
  )
  flip: bool = option(True, 'mirror half of the crops left to right')
  rotate: bool = option(True, 'turn each crop by 0, 1, 2 or 3 quarter turns')
  rain_on_pairs: float = option(
    0.0,
    'share of the crops of rainy pairs on which rain is drawn as well',
    least=0,
    most=1,
  )
  rain: RainRanges = PRESETS['mixed']

  def __post_init__(self):
    super().__post_init__()
    names = [name for name, _ in self.mixture]
    self.require(
      set(names) <= set(DATA_SETS), 'mixture', f'sets of {", ".join(DATA_SETS)}'
    )
    self.require(
      len(set(names)) == len(names),
      'mixture',
      'each set once: add its weights, or merge the folders',
    )


@dataclasses.dataclass(frozen=True)
class Loss(Options):
  """The training loss, final + coarse_weight * coarse; see `losses`."""

  prefix: ClassVar[str] = 'loss.'

  final: str = option('negative_ssim', 'of the final image', choices=LOSSES)
  coarse: str = option('mse', 'of the coarse image', choices=LOSSES)
  coarse_weight: float = option(
    0.5, "weight of the coarse image's loss", least=0, most=1000
  )


@dataclasses.dataclass(frozen=True)
class Optimizer(Options):
  """Clipping, then Adam, AdamW or Muon.

  Muon (arXiv:2502.16982) is for the kernels that mix channels; Adam serves the
  other weights.
  """

  prefix: ClassVar[str] = 'optimizer.'

  name: str = option(
    'adam', 'adam, adamw or muon', choices=('adam', 'adamw', 'muon')
  )
  b1: float = _decay(0.9, 'decay of the mean gradient')
  b2: float = _decay(0.999, 'decay of the mean squared gradient')
  eps: float = option(
    1e-8, 'added to the root of the mean squared gradient', least=1e-15, most=1
  )
  weight_decay: float = option(
    0.0, 'share of the weights taken off, times the rate; only for adamw',
    least=0, most=1000,
  )  # fmt: skip
  clip_norm: float = option(
    0.0, 'largest global norm of the gradient; 0 is no limit', least=0
  )

  def __post_init__(self):
    super().__post_init__()
    self.require(
      self.name == 'adamw' or not self.weight_decay,
      'weight_decay',
      'adamw; it has no effect on others: choose adamw, or 0',
    )


@dataclasses.dataclass(frozen=True)
class Schedule(Options):
  """The learning rate of each update."""

  prefix: ClassVar[str] = 'schedule.'

  name: str = option('steps', 'steps or cosine', choices=('steps', 'cosine'))
  learning_rate: float = option(1e-4, 'the highest rate', least=1e-12, most=100)
  boundaries: tuple[int, ...] = _updates(
    (90_000, 150_000, 240_000),
    'updates from which the rate is lower, rising; for steps',
    least=1,
  )
  factor: float = option(
    0.2, 'of the rate at each boundary; for steps', least=1e-6, most=1
  )
  warmup_steps: int = _updates(
    0, 'length of a linear growth of the rate from 0', least=0
  )
  final_rate: float = option(
    1e-6, 'rate of the last update; for cosine', least=0, most=100
  )

  def __post_init__(self):
    super().__post_init__()
    if self.name == 'cosine':
      self.require(
        self.final_rate <= self.learning_rate,
        'final_rate',
        f'at most schedule.learning_rate = {self.learning_rate}',
      )
      return
    self.require(
      sorted(set(self.boundaries)) == list(self.boundaries),
      'boundaries',
      'updates that rise',
    )
    self.require(
      all(b > self.warmup_steps for b in self.boundaries),
      'boundaries',
      f'updates after schedule.warmup_steps = {self.warmup_steps}',
    )


@dataclasses.dataclass(frozen=True)
class Recipe(Options):
  """A whole recipe: networks, data, loss, optimizer, schedule, evaluation."""

  seed: int = option(
    0, 'number that weights, the order of images, crops and rain are drawn from'
  )
  model: models.AnyConfig = models.MixDTPConfig()
  data: Data = Data()
  init_from: str = option(
    '', "weights to start from; '' draws them from the seed"
  )
  batch_size: int = option(
    4, 'images per update, over all devices and hosts', least=1
  )
  accumulate_steps: int = option(
    1, 'equal parts of a batch that are computed one after another', least=1
  )
  growth: tuple[tuple[int, int, int], ...] = option(
    (),
    'later stages: the first update of each, its data.crop and its batch_size',
    least=1,
    form='triples of an update, pixels and images, whole numbers',
  )
  num_train_steps: int = _updates(300_000, 'length of the training', least=1)
  ema_decay: float = _decay(
    0.0, "decay per update of the weights' moving average; 0 keeps none"
  )
  loss: Loss = Loss()
  optimizer: Optimizer = Optimizer()
  schedule: Schedule = Schedule()
  mesh_space: int = option(
    1, 'devices that share the rows of each image', least=1
  )
  kernels: str = option(
    'auto',
    'xla: no others; cpu: native code too, on one CPU device; tpu: the kernel '
    'of model.fused_feed_forward too, on TPUs; auto: what suits the devices',
    choices=('auto', 'xla', 'cpu', 'tpu'),
  )
  compilation_cache_dir: str = option(
    '', "folder of compiled programs; '' is WORKDIR/compiled"
  )
  log_every_steps: int = _updates(50, 'distance of logged updates', least=1)
  collapse_patience: int = _updates(
    200, 'updates of SSIM 0 in a row that end a run; 0 never ends it', least=0
  )
  eval_every_steps: int = _updates(
    5_000, 'distance of evaluations; 0 evaluates only at the end', least=0
  )
  eval_images: int = option(
    20, 'test images of an evaluation while training; 0 takes all', least=0
  )
  eval_batch_size: int = option(
    8, 'test images of equal size at once, over all devices', least=1
  )
  eval_crop_multiple: int = option(
    1,
    'test images are cut to multiples of this; 1 keeps them whole, 32 is as '
    'published',
    unit='pixels',
    least=1,
  )
  checkpoint_every_steps: int = _updates(
    1_000, 'distance of checkpoints; 0 saves only the last update', least=0
  )
  keep_checkpoints: int = option(
    3, 'number of newest checkpoints to keep; 0 keeps all', least=0
  )
  keep_best: str = option(
    '',
    'split of the data set, such as val, whose PSNR on y chooses a best '
    "checkpoint that is kept, too; '' keeps none",
  )

  def __post_init__(self):
    super().__post_init__()
    end = self.num_train_steps
    if self.schedule.warmup_steps >= end:
      raise ValueError(
        f'schedule.warmup_steps = {self.schedule.warmup_steps}: needs fewer '
        f'than num_train_steps = {end}'
      )
    self.require(
      self.kernels != 'tpu' or getattr(self.model, 'fused_feed_forward', False),
      'kernels',
      'model.fused_feed_forward = True',
    )
    shapes = ((0, self.data.crop, self.batch_size), *self.growth)
    starts = [*(start for start, _, _ in shapes), end]
    self.require(
      sorted(set(starts)) == starts,
      'growth',
      f'updates that rise from above 0 to below num_train_steps = {end}',
    )
    for start, crop, batch_size in shapes:
      stage = f'growth, from update {start} on: ' if start else ''
      if crop % self.model.multiple:
        raise ValueError(
          f'{stage}data.crop = {crop}: needs multiples of '
          f'{self.model.multiple} for {self.model.name}'
        )
      if batch_size % self.accumulate_steps:
        raise ValueError(
          f'{stage}batch_size = {batch_size}: needs a multiple of '
          f'accumulate_steps = {self.accumulate_steps}'
        )


def make_recipe(
  options: Mapping[str, Any] | ml_collections.ConfigDict,
) -> Recipe:
  """Makes the recipe of nested mappings; what is missing has its default.

  ValueError if an option is unknown, or a value is not in its range.
  """
  if isinstance(options, ml_collections.ConfigDict):
    options = options.to_dict()
  values = dict(options)
  if 'model' in values:
    values['model'] = models.make_model_config(values['model'])
  return build(Recipe, values)


def as_mapping(recipe: Recipe) -> dict[str, Any]:
  """Returns a recipe as nested mappings."""
  model = models.as_mapping(recipe.model)
  return dataclasses.asdict(recipe) | {'model': model}
