"""The variants of the PyTorch network do one and the same work."""

import jax
import numpy as np
import pytest

from tests.helpers import tiny

torch = pytest.importorskip('torch', reason='PyTorch is not installed')

from mixdtp_jax.models.config import PReNetConfig, make_model_config
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.tools.bench import case
from mixdtp_jax.torch_reference import inference, timed, training
from mixdtp_jax.torch_reference.inference import VARIANTS

pytestmark = [
  pytest.mark.slow,
  pytest.mark.torch,
  pytest.mark.usefixtures('quick_compiler'),
]

torch.set_num_threads(1)


@pytest.fixture(scope='module')
def config():
  config = tiny.get_config()
  config.optimizer.clip_norm = 1.0
  return config


@pytest.fixture(scope='module')
def network(config):
  cfg = make_model_config(config.model)
  return inference.load_network(cfg, case.draw_params(cfg, seed=0))


@pytest.fixture(scope='module')
def batch():
  return case.draw_batch(2, 16, 16, seed=0)


def _restored(network, name, rainy, dtype):
  variant, device = VARIANTS[name], inference.device_of(network)
  images = variant.arrange(inference.to_nchw(rainy, device))
  with torch.inference_mode(), variant.precision(device, dtype):
    final, _ = variant.prepare(network)(images)
  return inference.to_nhwc(final.float())


def test_layouts_differ_and_results_do_not(network, batch):
  published = VARIANTS['published'].prepare(network)
  eager = VARIANTS['eager'].prepare(network)
  kernel = 'down1_2.body.0.weight'
  assert published.get_parameter(kernel).is_contiguous()
  last = torch.channels_last
  assert eager.get_parameter(kernel).is_contiguous(memory_format=last)
  assert not eager.get_parameter(kernel).is_contiguous()
  rainy = batch['rainy']
  np.testing.assert_allclose(
    _restored(network, 'eager', rainy, 'float32'),
    _restored(network, 'published', rainy, 'float32'),
    atol=1e-5,
  )


def test_bfloat16_is_of_the_tuned_variants_alone(network, batch):
  rainy = batch['rainy']
  wide = _restored(network, 'published', rainy, 'float32')
  np.testing.assert_array_equal(
    wide, _restored(network, 'published', rainy, 'bfloat16')
  )
  apart = np.abs(wide - _restored(network, 'eager', rainy, 'bfloat16'))
  assert 1e-5 < apart.max() < 0.2


@pytest.mark.parametrize('dtype, apart', [('float32', 1e-5), ('bfloat16', 0.1)])
def test_variants_train_alike(config, network, batch, dtype, apart):
  config = config.copy_and_resolve_references()
  config.model.dtype = dtype
  losses = {}
  for name in ('published', 'eager'):
    trainer = training.Trainer(make_recipe(config), network, VARIANTS[name])
    placed = trainer.place(batch)
    losses[name] = [trainer.step(placed, 1e-3) for _ in range(3)]
  assert losses['published'][0] != losses['published'][2]
  np.testing.assert_allclose(*losses.values(), atol=apart)


def test_timed_computations_have_run(config, batch):
  config = make_recipe(config)
  cfg = config.model
  params = case.draw_params(cfg, seed=0)
  for computation in (
    timed.make_inference('eager', cfg, params, batch['rainy']),
    timed.make_training('eager', config, params, batch),
  ):
    computation.run()
    assert computation.cost.batch == 2
    assert computation.cost.first > 0


def test_torch_compile_computes_the_same():
  cfg = PReNetConfig(recurrent_width=4, steps=1)
  network = inference.load_network(cfg, case.draw_params(cfg, seed=0))
  variant = VARIANTS['compile']
  images = variant.arrange(torch.rand(1, 3, 16, 16))
  with torch.inference_mode():
    want, _ = network(images)
    try:
      got, _ = variant.compile(variant.prepare(network))(images)
    except RuntimeError as error:
      if 'compiler' not in str(error).lower():
        raise
      pytest.skip(f'torch.compile: {str(error).splitlines()[0]}')
  torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_drawn_weights_are_of_the_seed(config):
  cfg = make_model_config(config.model)
  first, again, other = (case.draw_params(cfg, seed) for seed in (0, 0, 1))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  different = jax.tree.map(lambda a, b: bool((a != b).any()), first, other)
  assert all(jax.tree.leaves(different))
