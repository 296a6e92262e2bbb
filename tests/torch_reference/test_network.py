"""The network in PyTorch against the original's values and the JAX network."""

import dataclasses
import functools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.helpers import golden_values

torch = pytest.importorskip('torch', reason='PyTorch is not installed')

from mixdtp_jax.models.config import MixDTPConfig
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.models.mixdtp import MixDTP
from mixdtp_jax.torch_reference.network import TorchMixDTP
from mixdtp_jax.weights.state_dict import to_torch

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures('quick_compiler')]

# PyTorch's threads wait for one another in a busy loop: two of them on cores
# that other processes use too take 30 times as long as one.
torch.set_num_threads(1)

CASES = {'reference_64x64': 3, 'reference_48x80_batch2_iter6': 6}
TINY = MixDTPConfig(
  width=8,
  encoder_blocks=(2, 1, 1, 1),
  decoder_blocks=(1, 1, 2),
  refinement_blocks=1,
  heads=(1, 2, 2, 4),
  ffn_expansion=2.2,
  recurrent_width=4,
  steps=2,
)


def to_nchw(images, dtype):
  return torch.from_numpy(images).movedim(-1, 1).contiguous().to(dtype)


def to_nhwc(tensor):
  return tensor.detach().movedim(1, -1).numpy()


def assert_close_to_largest(actual, expected, tolerance):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


@functools.cache
def reference(case):
  return golden_values.load(case)


def golden_network(case, dtype):
  with torch.device('meta'):  # its own 45 million numbers are not needed
    network = TorchMixDTP(MixDTPConfig(steps=CASES[case]))
  weights = golden_values.state_dict(dtype)
  network.load_state_dict(
    {name: torch.from_numpy(value) for name, value in weights.items()},
    strict=True,
    assign=True,
  )
  return network


def ssim(x, y):
  """Mean SSIM of NCHW images, its window zero-padded at the border."""
  offsets = torch.arange(-5, 6, dtype=torch.float64)
  taps = torch.exp(-(offsets**2) / (2 * 1.5**2))
  window = torch.outer(taps, taps) / taps.sum() ** 2
  window = window.to(x.dtype).expand(3, 1, 11, 11)

  def mean(z):
    return torch.nn.functional.conv2d(z, window, padding=5, groups=3)

  mean_x, mean_y = mean(x), mean(y)
  var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
  covariance = mean(x * y) - mean_x * mean_y
  c1, c2 = 0.01**2, 0.03**2
  likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
  return (
    likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
  ).mean()


def loss_published(outputs, clean):
  final, coarse = outputs
  return -ssim(final, clean) + 0.5 * ssim(coarse, clean)


def outputs_and_gradients(case, network, dtype):
  data = reference(case)
  outputs = network(to_nchw(data['rainy'], dtype))
  loss = loss_published(outputs, to_nchw(data['clean'], dtype))
  assert loss.item() == pytest.approx(float(data['loss_published']), abs=1e-5)
  loss.backward()
  gradients = {name: p.grad.numpy() for name, p in network.named_parameters()}
  return outputs, gradients


def assert_outputs_close(case, outputs):
  for name, image in zip(('final', 'coarse'), outputs, strict=True):
    assert_close_to_largest(to_nhwc(image), reference(case)[name], 2e-5)


def assert_gradients_close(case, gradients):
  data = reference(case)
  assert set(gradients) == set(data['grad_names'])
  for name, norm, probe in zip(
    data['grad_names'], data['grad_norms'], data['grad_probe'], strict=True
  ):
    gradient = gradients[name].astype(np.float64)
    assert np.linalg.norm(gradient) == pytest.approx(norm, rel=1e-3), name
    u = golden_values.uniform(f'probe/{name}', gradient.shape)
    assert np.sum(gradient * u) == pytest.approx(probe, abs=1e-3 * norm), name


def test_names_and_shapes_are_the_published_ones():
  with torch.device('meta'):
    network = TorchMixDTP(MixDTPConfig())
  shapes = {name: list(v.shape) for name, v in network.state_dict().items()}
  assert shapes == golden_values.SHAPES


def test_a_new_network_starts_from_plain_norms_and_temperatures():
  for name, value in TorchMixDTP(TINY).state_dict().items():
    if '.norm' in name or name.endswith('temperature'):
      assert (value == (0 if name.endswith('bias') else 1)).all(), name
    else:  # U(-1/sqrt(fan_in), 1/sqrt(fan_in)), and no two alike
      assert value.unique().numel() > 1, name
      fan_in = value[0].numel() if value.ndim == 4 else 1
      assert value.abs().max() <= fan_in**-0.5, name


@pytest.mark.slow
def test_stages_outputs_and_gradients_in_float32():
  case = 'reference_64x64'
  data, captured = reference(case), {}
  network = golden_network(case, np.float32)

  def capture(name):
    def hook(module, inputs, output):
      captured.setdefault(name, []).append(to_nhwc(output))

    network.get_submodule(name).register_forward_hook(hook)

  stages = [key.split('/')[1] for key in data if key.startswith('stage/')]
  assert len(stages) == 10
  for name in (*stages, 'conv'):
    capture(name)
  outputs, gradients = outputs_and_gradients(case, network, torch.float32)
  for stage in stages:
    [actual] = captured[stage]
    every = 1 if actual.shape[-1] == 3 else 8
    assert_close_to_largest(actual[..., ::every], data[f'stage/{stage}'], 2e-5)
  residuals = np.stack(captured['conv'])
  assert_close_to_largest(residuals, data['recurrent_residuals'], 2e-5)
  assert_outputs_close(case, outputs)
  assert_gradients_close(case, gradients)


@pytest.mark.slow
def test_six_steps_of_a_batch_in_float32():
  case = 'reference_48x80_batch2_iter6'
  network = golden_network(case, np.float32)
  with torch.inference_mode():
    outputs = network(to_nchw(reference(case)['rainy'], torch.float32))
  assert_outputs_close(case, outputs)


@pytest.mark.slow
def test_six_steps_of_a_batch_and_their_gradients_in_float64():
  case = 'reference_48x80_batch2_iter6'
  network = golden_network(case, np.float64)
  outputs, gradients = outputs_and_gradients(case, network, torch.float64)
  assert_outputs_close(case, outputs)
  assert_gradients_close(case, gradients)


@pytest.mark.slow
@pytest.mark.parametrize(
  'change',
  [
    {},
    {'coupling': False, 'steps': 0},
    {'detail_dilation': False, 'steps': 0},
  ],
  ids=str,
)
def test_every_switch_does_what_it_does_in_jax(change):
  # In float64: a layer norm of nearly equal channels blows up the rounding.
  cfg = dataclasses.replace(TINY, **change)
  random = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: random.normal(0, 0.3, leaf.shape), abstract_params(cfg)
  )
  images = random.random((2, 16, 24, 3))
  with jax.enable_x64(True):
    apply = jax.jit(MixDTP(cfg).apply).lower({'params': params}, images)
    apply = apply.compile({'xla_backend_optimization_level': 0})
    expected = jax.tree.map(np.asarray, apply({'params': params}, images))
  network = TorchMixDTP(cfg).double()
  network.load_state_dict(
    {n: torch.from_numpy(value) for n, value in to_torch(params, cfg).items()},
    strict=True,
  )
  actual = network(to_nchw(images, torch.float64))
  for ours, theirs in zip(expected, actual, strict=True):
    assert ours.dtype == np.float64
    assert_close_to_largest(to_nhwc(theirs), ours, 1e-9)


@pytest.mark.parametrize(
  'shape', [(3, 16, 16), (1, 4, 16, 16), (1, 3, 16, 12), (1, 3, 12, 16)]
)
def test_an_image_that_does_not_fit_is_refused(shape):
  with pytest.raises(ValueError, match='multiples of 8'):
    TorchMixDTP(TINY)(torch.zeros(shape))


def test_without_pytorch_only_this_module_asks_for_it(tmp_path):
  (tmp_path / 'torch.py').write_text('raise ImportError("no torch")')
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      'import mixdtp_jax.weights.pth; print("imported")\n'
      'import mixdtp_jax.torch_reference.network; print("imported")',
    ],
    capture_output=True,
    text=True,
    check=False,
    env=os.environ | {'PYTHONPATH': str(tmp_path)},
  )
  assert done.stdout == 'imported\n', done.stderr
  assert "[torch]'" in done.stderr
