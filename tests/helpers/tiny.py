"""The smallest useful run: a configuration, its data, and its fixtures.

The file is also a recipe for --config.
"""

import contextlib
import functools
import os
import types

import jax
import ml_collections
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.configs.default import get_config as get_default_config
from mixdtp_jax.models.config import (
  PReNetConfig,
  as_mapping,
  make_model_config,
)
from mixdtp_jax.models.factory import make_network
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from mixdtp_jax.training.step import init_state

SIZE = (24, 40)
CROPPED_SIZE = (16, 32)  # SIZE in multiples of eval_crop_multiple
TEST_IMAGES = 3


def get_config() -> ml_collections.ConfigDict:
  """Returns a recipe; all options that tests of training use are changed."""
  config = get_default_config()
  config.seed = 7
  config.model.width = 8
  config.model.encoder_blocks = (1, 1, 1, 1)
  config.model.decoder_blocks = (1, 1, 1)
  config.model.refinement_blocks = 1
  config.model.heads = (1, 1, 2, 2)
  config.model.recurrent_width = 4
  config.model.steps = 1
  config.data.crop = 16
  config.batch_size = 8
  config.num_train_steps = 20
  # A step near sign(gradient) would blow up the rounding of tiny gradients.
  config.optimizer.eps = 1e-3
  config.schedule.name = 'cosine'
  config.schedule.learning_rate = 5e-3
  config.schedule.warmup_steps = 2
  config.log_every_steps = 4
  config.eval_every_steps = 10
  config.eval_images = 2
  config.eval_batch_size = 3
  config.eval_crop_multiple = 16
  config.checkpoint_every_steps = 4
  config.keep_checkpoints = 2
  return config


def get_prenet_config() -> ml_collections.ConfigDict:
  """Returns the same with the smallest PReNet, which compiles in seconds."""
  config = get_config()
  network = PReNetConfig(recurrent_width=4, steps=1)
  config.model = ml_collections.ConfigDict(as_mapping(network))
  return config


@functools.cache
def initial_state() -> TrainState:
  """Returns the state that a run of `get_config` starts from, in NumPy."""
  config = get_config()
  network = make_network(make_model_config(config.model))
  init = functools.partial(
    init_state, config.seed, network, make_optimizer(make_recipe(config))
  )
  state = jax.jit(init, out_shardings=replicated(make_mesh()))()
  return jax.tree.map(np.asarray, state)


def write_pairs(folder) -> None:
  """Writes train/ and test/ with smooth images and bright streaks on them."""
  random = np.random.default_rng(0)
  rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] / 10
  for split, count in (('train', 4), ('test', TEST_IMAGES)):
    for number in range(count):
      waves = [np.sin(rows + p) * np.cos(columns - p) for p in random.random(3)]
      clean = 110 + 70 * np.stack(waves, axis=-1)
      streaks = 60 * (random.random((1, SIZE[1], 1)) < 0.2)
      for side, image in (('clean', clean), ('rainy', clean + streaks)):
        path = folder / split / side / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(path)


@pytest.fixture(scope='session')
def tiny_pairs(tmp_path_factory):
  """A data.source for the data set 'pairs'."""
  folder = tmp_path_factory.mktemp('tiny_pairs')
  write_pairs(folder)
  return folder


@pytest.fixture(scope='session')
def tiny_rain100l(tiny_pairs, tmp_path_factory):
  """A data.source for 'rain100l' in the published layout: one pair, often."""
  folder = tmp_path_factory.mktemp('tiny_rain100l')
  names = {
    'train': ('rain/norain-{}x2.png', 'norain/norain-{}.png', 200),
    'test': ('rain/rain-{:03d}.png', 'norain/norain-{:03d}.png', 100),
  }
  for split, (*sides, count) in names.items():
    for side, name in zip(('rainy', 'clean'), sides, strict=True):
      image = (tiny_pairs / split / side / '0.png').read_bytes()
      for number in range(1, count + 1):
        path = folder / split / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
  return folder


@pytest.fixture(scope='session')
def compiler(tmp_path_factory):
  """Settings that compile faster to slower code, and each program once.

  The processes of pytest-xdist share the folder of programs.
  """
  folder = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    folder = folder.parent
  return {
    'jax_disable_most_optimizations': True,
    'jax_persistent_cache_min_compile_time_secs': 0.0,
    'jax_compilation_cache_dir': str(folder / 'compiled'),
  }


@contextlib.contextmanager
def _compiling(settings):
  usual = {
    'jax_disable_most_optimizations': False,
    'jax_persistent_cache_min_compile_time_secs': 1.0,
    'jax_compilation_cache_dir': None,
  }
  try:
    _configure(settings)
    yield
  finally:
    _configure(usual)


def _configure(settings):
  for name, value in settings.items():
    jax.config.update(name, value)
  # JAX reads the settings only once, unless the cache is reset.
  compilation_cache.reset_cache()


@pytest.fixture(scope='module')
def quick_compiler(compiler):
  """Makes this process compile with these settings."""
  with _compiling(compiler):
    yield


@pytest.fixture(scope='session')
def environment(compiler):
  """The environment for a process that compiles with these settings."""
  return os.environ | {name.upper(): str(v) for name, v in compiler.items()}


@pytest.fixture(scope='session')
def tiny_run(tiny_pairs, compiler, tmp_path_factory):
  """One whole run of `get_prenet_config`: workdir, state, and recorded calls.

  The recorded functions are the real ones.
  """
  from mixdtp_jax.data import eval_batches, train_batches  # TensorFlow
  from mixdtp_jax.evaluation import score
  from mixdtp_jax.training import loop, start

  run = types.SimpleNamespace(
    workdir=tmp_path_factory.mktemp('tiny_run'),
    seeds=[],
    trained=[],
    shown=[],
    scored=[],
  )
  config = get_prenet_config()
  config.data.source = str(tiny_pairs)
  with pytest.MonkeyPatch.context() as patch:
    real_init, real_train = start.init_state, train_batches.train_batches
    real_eval, real_scores = eval_batches.eval_batches, score._scores

    def init(seed, *args, **kwargs):
      run.seeds.append(seed)
      return real_init(seed, *args, **kwargs)

    def listening_train(*args, **kwargs):
      for batch in real_train(*args, **kwargs):
        run.trained.append(batch['rainy'].shape)
        yield batch

    def listening_eval(*args, **kwargs):
      for batch in real_eval(*args, **kwargs):
        run.shown.append((batch.rainy.shape, batch.names))
        yield batch

    def counting_scores(images, *args):
      run.scored += [image.shape for image in images]
      return real_scores(images, *args)

    patch.setattr(score, '_scores', counting_scores)
    patch.setattr(start, 'init_state', init)
    patch.setattr(train_batches, 'train_batches', listening_train)
    patch.setattr(eval_batches, 'eval_batches', listening_eval)
    # This fixture is made before a module's quick_compiler.
    # Whatever a run sends to its eight devices, it sends on purpose.
    with _compiling(compiler), jax.transfer_guard('disallow'):
      run.state = loop.train_and_evaluate(
        make_recipe(config), str(run.workdir), profile=2
      )
  run.config = config
  return run
