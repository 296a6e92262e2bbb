"""A network in JAX beside the same one in PyTorch, and the command."""

import html.parser
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import tiny

torch = pytest.importorskip('torch', reason='PyTorch is not installed')

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.data.images import write_png
from mixdtp_jax.data.matching import open_folder
from mixdtp_jax.evaluation.metrics import PROTOCOLS
from mixdtp_jax.models.config import (
  PReNetConfig,
  RestormerConfig,
  make_model_config,
)
from mixdtp_jax.recipe import config_file
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.tools.compare import command, networks, tables
from mixdtp_jax.tools.compare.networks import crop_batches, train_both
from mixdtp_jax.torch_reference.network import make_torch_network
from mixdtp_jax.weights.state_dict import from_torch

pytestmark = [
  pytest.mark.slow,
  pytest.mark.torch,
  pytest.mark.usefixtures('quick_compiler'),
]

torch.set_num_threads(1)

_REPOSITORY = pathlib.Path(__file__).parents[2]
_STAGES = [
  'patch_embed', 'conv1_2', 'conv2_3', 'conv3_4', 'conv4_L', 'conv4_3_HSI',
  'conv3_2_HSI', 'conv2_1_HSI', 'outc', 'conv_final', 'coarse', 'conv, step 1',
  'conv, step 2', 'final',
]  # fmt: skip


def _config():
  """The recipe, and the network with two steps."""
  config = tiny.get_config()
  config.model.steps = 2
  config.loss.final = 'l1'  # compiles faster than SSIM
  config.schedule.warmup_steps = 0
  config.batch_size, config.data.crop = 2, 16
  return config


def _networks(cfg):
  """Both networks, with the same random weights."""
  torch.manual_seed(0)
  weights = make_torch_network(cfg).state_dict()
  params = from_torch({n: v.numpy() for n, v in weights.items()}, cfg)
  return networks.make_networks(cfg, params)


@pytest.fixture(scope='module')
def pair():
  # As the command has it, so that it finds in the cache what is compiled here.
  with jax.default_matmul_precision('highest'):
    yield _networks(make_model_config(_config().model))


@pytest.fixture(scope='module')
def folder(tiny_pairs, tmp_path_factory):
  """Two pairs of 20x24 pixels: one side is no multiple of 8."""
  folder = tmp_path_factory.mktemp('pairs')
  pairs = open_folder(tiny_pairs / 'test')
  for index in range(2):
    for side in ('rainy', 'clean'):
      image = pairs[index][side][:20, :24]
      write_png(image, folder / side / f'{index}.png')
  return folder


@pytest.fixture(scope='module')
def images(folder):
  return open_folder(folder)


@pytest.fixture
def perturbed(pair):
  """A function that changes a weight of PyTorch's network for a test."""
  before = {n: v.clone() for n, v in pair.torch.state_dict().items()}

  def perturb(name, by=1):
    with torch.no_grad():
      pair.torch.get_parameter(name).ravel()[0] += by
    return pair

  yield perturb
  pair.torch.load_state_dict(before)


def test_equal_networks_agree_at_every_stage(pair, images):
  found = networks.stage_differences(pair, images)
  assert [difference['stage'] for difference in found] == _STAGES
  for difference in found:
    assert 0 < difference['relative'] < 5e-6
    mean, largest = difference['mean'], difference['largest']
    assert 0 < mean < largest < difference['scale']


@pytest.mark.parametrize(
  'cfg, first, count',
  [
    (PReNetConfig(recurrent_width=4, steps=2), 'coarse', 4),
    (
      RestormerConfig(
        width=8,
        encoder_blocks=(1, 1, 1, 1),
        decoder_blocks=(1, 1, 1),
        refinement_blocks=1,
        heads=(1, 1, 2, 2),
      ),
      'patch_embed',
      12,
    ),
  ],
  ids=lambda value: getattr(value, 'name', None),
)
def test_the_other_networks_agree_too(images, cfg, first, count):
  found = networks.stage_differences(_networks(cfg), images)
  assert found[0]['stage'] == first
  assert len(found) == count
  assert all(0 < difference['relative'] < 5e-6 for difference in found)


@pytest.mark.parametrize(
  'weight, first',
  [
    ('patch_embed.transform1.0.weight', 'patch_embed'),
    ('conv3_4.0.ffn.project_out.weight', 'conv3_4'),
    ('conv2_1_HSI.0.ffn.project_out.weight', 'conv2_1_HSI'),
    ('conv.0.bias', 'conv, step 1'),
  ],
)
def test_a_planted_difference_shows_from_its_stage_on(
  perturbed, images, weight, first
):
  found = networks.stage_differences(perturbed(weight, by=10), images)
  place = _STAGES.index(first)
  relative = np.array([difference['relative'] for difference in found])
  assert relative[:place].max(initial=0) < 5e-6 < relative[place:].min()


def test_differences_are_over_all_images(perturbed, folder, images, tmp_path):
  pair = perturbed('conv.0.bias')
  parts = []
  for name in '01':
    one = shutil.copytree(folder, tmp_path / name)
    for path in one.glob('*/*.png'):
      if path.stem != name:
        path.unlink()
    parts.append(networks.stage_differences(pair, open_folder(one))[-1])
  both = networks.stage_differences(pair, images)[-1]
  assert both['largest'] == max(part['largest'] for part in parts)
  assert both['mean'] == pytest.approx(np.mean([p['mean'] for p in parts]))
  assert both['scale'] == max(part['scale'] for part in parts)


def test_both_restore_and_score_the_same(pair, images):
  jax_rows, torch_rows, restored = networks.restore_both(pair, images)
  for ours, theirs in zip(jax_rows, torch_rows, strict=True):
    assert set(ours.restored) == set(PROTOCOLS)
    for name, score in ours.restored.items():
      # Rounding to uint8 can turn on float32's last digit.
      assert score == pytest.approx(theirs.restored[name], rel=1e-3)
  for image, source in zip(restored, images, strict=True):
    assert image.name == source['name']
    np.testing.assert_array_equal(np.round(255 * image.rainy), source['rainy'])
    np.testing.assert_array_equal(np.round(255 * image.clean), source['clean'])
    np.testing.assert_allclose(image.jax, image.torch, atol=1e-5)
    assert image.torch.shape == (20, 24, 3)
    assert 0 <= image.torch.min() < image.torch.max() <= 1


def test_scores_are_each_networks_own(perturbed, images):
  [ours, _], [theirs, _], _ = networks.restore_both(
    perturbed('conv.0.bias'), images
  )
  assert abs(ours.restored['rgb'].psnr - theirs.restored['rgb'].psnr) > 0.01


def test_crops_are_windows_of_the_images(images):
  def batches(seed, steps=4):
    return crop_batches(images, steps=steps, batch_size=3, crop=16, seed=seed)

  first = batches(0)
  assert len(first) == 4
  for batch in first:
    for rainy, clean in zip(batch['rainy'], batch['clean'], strict=True):
      assert rainy.dtype == np.float32
      assert any(_is_window(rainy, clean, pair) for pair in images)
  assert not np.array_equal(first[0]['rainy'], first[1]['rainy'])
  for one, other in zip(first, batches(0), strict=True):
    jax.tree.map(np.testing.assert_array_equal, one, other)
  assert not np.array_equal(first[0]['rainy'], batches(1)[0]['rainy'])


def _is_window(rainy, clean, pair):
  rows, columns = (20 - 16 + 1, 24 - 16 + 1)
  return any(
    np.array_equal(np.round(255 * rainy), pair['rainy'][window])
    and np.array_equal(np.round(255 * clean), pair['clean'][window])
    for top in range(rows)
    for left in range(columns)
    for window in [np.s_[top : top + 16, left : left + 16]]
  )


def test_other_weights_train_another_way(perturbed, images):
  pair = perturbed('conv.0.bias')
  batches = crop_batches(images, steps=2, batch_size=2, crop=16, seed=0)
  training = train_both(pair, make_recipe(_config()), batches)
  losses = zip(training['jax_losses'], training['torch_losses'], strict=True)
  assert all(abs(ours - theirs) > 0.1 for ours, theirs in losses)
  assert training['apart'] == pytest.approx(1, rel=0.2)  # what was planted
  assert training['of_movement'] == training['apart'] / training['moved']
  assert training['of_size'] == training['apart'] / training['size']
  # The network itself was not trained.
  found = networks.stage_differences(pair, images)
  assert found[-2]['relative'] > 0.1 > 5e-6 > found[-4]['relative']


def test_amplification_leaves_the_largest_in_range():
  assert tables._factor([np.array([0.1, 0.013]), np.array([0.03])]) == 10
  assert tables._factor([np.zeros(3)]) == 1


@pytest.fixture(scope='module')
def workdir(pair, tmp_path_factory):
  """A run that was saved before its first update."""
  workdir = tmp_path_factory.mktemp('run')
  step = jnp.zeros((), jnp.int32)
  state = TrainState(step, pair.params, {'count': step})
  with saving.Manager(workdir) as manager:
    saving.save(manager, state, make_recipe(_config()))
  return workdir


class _Page(html.parser.HTMLParser):
  """Collects the words and the tags of a page."""

  def __init__(self, text):
    super().__init__()
    self.words, self.tags = '', []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_data(self, data):
    self.words += data


def test_a_shipped_name_is_not_the_run_in_a_folder_of_that_name(
  workdir, tmp_path, monkeypatch
):
  shutil.copytree(workdir, tmp_path / 'general')
  monkeypatch.chdir(tmp_path)
  recipe = command._load_recipe(None, 'general', ())
  assert recipe == config_file.load_recipe('default', ())
  assert command._load_recipe(None, './general', ()) != recipe


def test_muon_is_refused_before_the_work(tmp_path):
  with pytest.raises(ValueError, match='optimizer.name = muon'):
    command.compare_frameworks(
      out=str(tmp_path / 'out'),
      random=0,
      overrides=['optimizer.name=muon'],
      folder='not opened',
    )
  assert not any(tmp_path.iterdir())


def test_the_command(workdir, folder, environment, tmp_path):
  arguments = {
    'weights': workdir, 'folder': folder, 'num_images': 2, 'size': 24,
    'train_steps': 2, 'batch_size': 2, 'crop': 16, 'out': tmp_path / 'out',
  }  # fmt: skip
  result = subprocess.run(
    [sys.executable, '-m', 'mixdtp_jax', 'compare']
    + [f'--{name}={value}' for name, value in arguments.items()],
    env=environment | {'OMP_NUM_THREADS': '1'},
    cwd=_REPOSITORY,
    capture_output=True,
    text=True,
    timeout=500,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  found = json.loads((tmp_path / 'out' / 'compare.json').read_text())
  assert found['settings'] == {
    name: str(value) if isinstance(value, pathlib.Path) else value
    for name, value in arguments.items()
  }
  # The run's own recipe, but for what the flags say.
  assert found['config']['optimizer']['eps'] == 1e-3
  assert found['config']['batch_size'] == 2
  assert found['config']['data']['crop'] == 16
  assert found['environment']['versions']['jax'] == jax.__version__
  assert found['environment']['torch']['threads'] == 1
  assert all(stage['relative'] < 1e-5 for stage in found['stages'])
  assert [score['name'] for score in found['scores']] == ['0', '1']
  assert set(found['scores'][0]['torch']) == set(PROTOCOLS)
  training = found['training']
  assert len(set(training['jax_losses'])) == 2
  assert training['jax_losses'] == pytest.approx(
    training['torch_losses'], rel=1e-4
  )
  assert 0 < training['of_size'] < training['of_movement'] < 1e-2

  page = _Page((tmp_path / 'out' / 'compare.html').read_text())
  kinds = [tag for tag, _ in page.tags]
  assert kinds.count('table') == 3
  assert kinds.count('svg') >= 1
  assert kinds.count('input') == 4  # two sliders an image
  assert kinds.count('img') == 2 * (4 + 3)
  for text in (page.words, result.stdout):
    assert f'{found["training"]["jax_losses"][0]:.6f}' in text
    assert 'conv4_3_HSI' in text
  assert 'Compiling the training step' in result.stderr
  assert sorted(os.listdir(tmp_path / 'out')) == [
    'compare.html', 'compare.json',
  ]  # fmt: skip
