"""The engine's results are those of the whole network."""

import concurrent.futures

import jax
import numpy as np
import pytest

from mixdtp_jax.models.config import MixDTPConfig
from mixdtp_jax.models.factory import final_image
from mixdtp_jax.restoration import engine as engine_module
from mixdtp_jax.restoration.engine import Engine
from mixdtp_jax.restoration.whole_image import make_restore
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.weights.load import load_weights
from tests.helpers import engines

pytestmark = pytest.mark.usefixtures('quick_compiler', 'own_cache')

SMALL = (37, 51)


@pytest.mark.usefixtures('small_pieces')
@pytest.mark.parametrize(
  'name',
  [
    'mixdtp',
    'prenet',
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in ('coarse', 'plain', 'restormer')
    ),
  ],
)
def test_pieces_are_the_whole(name):
  image = engines.picture(*SMALL)
  restored = engines.engine(name)(image)
  assert restored.shape == image.shape and restored.dtype == np.float32
  expected = engines.whole(name)(image)
  assert np.ptp(expected) > 0.3  # it is an image, not a clamped number
  np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.compiler
@pytest.mark.usefixtures('small_pieces')
def test_the_shipped_network_by_native_code():
  cfg, params = load_weights('general')
  device, image = jax.devices()[:1], engines.picture(37, 53)
  restored = Engine(cfg, params, devices=device, kernels='cpu')(image)
  restore = make_restore(
    final_image(cfg),
    params,
    multiple=cfg.multiple,
    mesh=make_mesh(device),
    kernels='cpu',
  )
  expected = restore(image[None])[0]
  assert np.ptp(expected) > 0.3
  np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures('small_pieces')
@pytest.mark.parametrize('size', [(1, 1), (2, 90), (64, 17)])
def test_any_size(size):
  image = engines.picture(*size)
  restored = engines.engine('mixdtp')(image)
  expected = engines.whole('mixdtp')(image)
  np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_pieces_as_they_are():
  image = engines.picture(100, 147)
  restored = engines.engine('mixdtp')(image)
  expected = engines.whole('mixdtp')(image)
  np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['mixdtp', 'prenet'])
def test_two_sizes_of_pieces_agree(name, monkeypatch):
  image = engines.picture(3, 300)
  results = []
  for side in (16, 24):
    engines.use_pieces(monkeypatch, side)
    results.append(engines.engine(name)(image))
  np.testing.assert_allclose(*results, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures('small_pieces', 'eight_devices')
def test_devices_share_an_image(monkeypatch):
  used, run = [], engine_module._run

  def watching(program, *arguments):
    def watched(*inputs):
      results = program(*inputs)
      shards = [shard for r in results for shard in r.addressable_shards]
      assert {len(shard.data) for shard in shards} == {1}  # a piece for each
      used.append({shard.device for shard in shards})
      return results

    return run(watched, *arguments)

  monkeypatch.setattr(engine_module, '_run', watching)
  image, results = engines.picture(*SMALL), []
  for devices in (jax.devices()[:n] for n in (1, 3, 8)):
    used.clear()
    results.append(engines.engine('mixdtp', devices=devices)(image))
    assert used and all(each == set(devices) for each in used)
  np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-6)
  np.testing.assert_allclose(results[2], results[0], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures('small_pieces')
@pytest.mark.parametrize('name', ['mixdtp', 'restormer', 'prenet'])
def test_bfloat16_is_close(name):
  image = engines.picture(*SMALL)
  restored = engines.engine(name, dtype='bfloat16')(image)
  expected = engines.whole(name)(image)
  difference = np.abs(restored - expected)
  assert 0 < difference.mean() < 0.02


@pytest.mark.slow
def test_weights_as_a_training_starts():
  cfg = MixDTPConfig(width=8, heads=(1, 1, 2, 2), recurrent_width=4, steps=1)
  params = engines.weights_at_start(cfg)
  image = np.zeros((9, 20, 3), np.float32)  # sums of squares are 0 somewhere
  restored = Engine(cfg, params)(image)
  assert np.isfinite(restored).all()


@pytest.mark.usefixtures('small_pieces')
def test_threads_get_their_own_results():
  engine = engines.engine('prenet')
  images = [engines.picture(20 + n, 40) for n in range(4)]
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    results = list(pool.map(engine, images))
  for image, restored in zip(images, results, strict=True):
    np.testing.assert_array_equal(restored, engine(image))


@pytest.mark.usefixtures('small_pieces')
def test_progress_ends_at_one():
  told = []
  engines.engine('mixdtp')(engines.picture(*SMALL), told.append)
  assert told == sorted(told) and len(told) > 100
  assert 0 < told[0] < 0.1 and told[-1] == pytest.approx(1)


@pytest.mark.parametrize('shape', [(8, 8), (8, 8, 4), (1, 8, 8, 3), (0, 8, 3)])
def test_other_shapes_are_refused(shape):
  with pytest.raises(ValueError, match='needs .H, W, 3.'):
    engines.engine('prenet')(np.zeros(shape, np.float32))


def test_the_image_stays_as_it_is():
  image = engines.picture(16, 16)
  before = image.copy()
  image.setflags(write=False)
  engines.engine('prenet')(image)
  np.testing.assert_array_equal(image, before)
