import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from PIL import Image

from mixdtp_jax.data.eval_batches import eval_batches
from mixdtp_jax.data.matching import open_folder
from mixdtp_jax.evaluation import images, network
from mixdtp_jax.evaluation.metrics import PROTOCOLS
from mixdtp_jax.evaluation.network import check_sizes
from mixdtp_jax.evaluation.score import evaluate
from mixdtp_jax.models.factory import final_image
from mixdtp_jax.restoration.engine import Engine
from mixdtp_jax.restoration.whole_image import make_restore
from mixdtp_jax.runtime.mesh import make_mesh
from tests.helpers import engines


def test_an_image_too_small_to_be_scored_is_named_before_any_is_restored(
  tmp_path,
):
  for side in ('rainy', 'clean'):
    image = np.zeros((10, 30, 3), np.uint8)
    (tmp_path / side).mkdir()
    Image.fromarray(image).save(tmp_path / side / 'small.png')
  pairs = open_folder(tmp_path)
  with pytest.raises(ValueError, match='small has 30x10 pixels; SSIM needs 11'):
    check_sizes(pairs)
  check_sizes(pairs, ('rgb',))


@pytest.fixture
def guarded():
  """Refuses copies that are not asked for, in all threads."""
  jax.config.update('jax_transfer_guard', 'disallow')
  yield
  jax.config.update('jax_transfer_guard', 'allow')


def _write_pairs(folder, sizes):
  for number, size in enumerate(sizes):
    image = engines.picture(*size)
    for side, factor in (('clean', 255), ('rainy', 200)):
      (folder / side).mkdir(exist_ok=True)
      pixels = np.uint8(factor * image)
      Image.fromarray(pixels).save(folder / side / f'{number}.png')


@pytest.mark.usefixtures(
  'quick_compiler', 'own_cache', 'small_pieces', 'guarded'
)
def test_one_device_restores_rare_sizes_in_pieces(tmp_path, monkeypatch):
  called = []
  restore = Engine.__call__

  def counting(self, image):
    called.append(image.shape)
    return restore(self, image)

  monkeypatch.setattr(Engine, '__call__', counting)
  _write_pairs(tmp_path, [(24, 32), (19, 45), (24, 32), (33, 21)])
  pairs, cfg = open_folder(tmp_path), engines.NETWORKS['prenet']
  here = {'mesh': make_mesh(jax.devices()[:1]), 'kernels': 'xla'}
  params = engines.weights('prenet')
  rows, _ = network.score_network(
    cfg,
    jax.device_put(params, jax.devices()[0]),
    pairs,
    batch_size=2,
    folder=tmp_path / 'out',
    often=2,
    **here,
  )
  whole = make_restore(final_image(cfg), params, multiple=cfg.multiple, **here)
  assert [row.name for row in rows] == ['0', '2', '1', '3']
  for row in rows:
    pair = pairs[int(row.name)]
    rainy, clean = (np.float32(pair[s]) / 255 for s in ('rainy', 'clean'))
    (restored,) = jax.device_get(whole(rainy[None]))
    for name, protocol in PROTOCOLS.items():
      want = protocol(restored[None], clean[None])
      assert row.restored[name] == pytest.approx(np.ravel(want), abs=1e-4)
    with Image.open(tmp_path / 'out/images' / f'{row.name}.png') as image:
      np.testing.assert_allclose(image, 255 * restored, atol=0.51)
  assert called == [pairs[1]['rainy'].shape, pairs[3]['rainy'].shape]


@pytest.mark.parametrize('devices', [1, 8])
@pytest.mark.usefixtures('guarded', 'eight_devices')
def test_restored_images_that_are_not_shown_stay_on_the_device(
  tmp_path, monkeypatch, devices
):
  _write_pairs(tmp_path, [(33, 45)] * 8)
  copied, array = [], type(jax.device_put(0))
  copy = array.__array__

  # A device_get, and on several devices every copy to NumPy, calls it. (The
  # guard does not see copies from a CPU.)
  def counting(self, *args, **kwargs):
    copied.append(self.shape)
    return copy(self, *args, **kwargs)

  monkeypatch.setattr(array, '__array__', counting)
  mesh = make_mesh(jax.devices()[:devices])
  everywhere = NamedSharding(mesh, PartitionSpec())
  pairs = open_folder(tmp_path)
  shown = images.FirstImages(pairs, None)
  rows = evaluate(
    lambda rainy: jax.device_put(rainy, everywhere),
    eval_batches(pairs, batch_size=2),
    list(PROTOCOLS),
    save=shown.add,
  )
  assert all(row.restored == row.input for row in rows) and len(rows) == 8
  whole = [shape for shape in copied if shape[1:] == (33, 45, 3)]
  assert len(whole) == 2  # batches with the three images that are shown
