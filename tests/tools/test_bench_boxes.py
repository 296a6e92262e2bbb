"""The boxes of a network: what is counted, and that they do their work."""

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixdtp_jax.measure.flops import count_flops
from mixdtp_jax.measure.roofline import Roofline, seconds_each
from mixdtp_jax.models.config import (
  MixDTPConfig,
  PReNetConfig,
  make_model_config,
)
from mixdtp_jax.tools.bench.boxes import find_boxes
from mixdtp_jax.tools.bench.parts import draw, measure_part
from tests.helpers import tiny

_LINE = Roofline({'float32': (1e9,), 'bfloat16': (2e9,)}, (1e6,))


def _config(**changes):
  config = tiny.get_config()
  config.model.update(changes)
  return make_model_config(config.model)


def _counts(cfg):
  counts = collections.Counter()
  for box, count in find_boxes(cfg, (2, 16, 24, 3)).items():
    counts[box.kind] += count
  return counts


@pytest.mark.parametrize('remat', ['none', 'blocks', 'full'])
def test_each_block_counts_though_a_stage_is_one_loop(remat):
  blocks = {'encoder_blocks': (3, 1, 2, 1), 'decoder_blocks': (1, 1, 2)}
  counts = _counts(_config(**blocks, refinement_blocks=2, remat=remat, steps=3))
  assert counts['residual sums'] == 3 + 1 + 2 + 1 + 1 + 1 + 2 + 2
  assert counts['channel attention'] == counts['feed-forward'] == 13
  assert counts['layer_norm'] == 2 * 13
  assert counts['conv1x1'] == 3  # where the decoder joins
  # Embedding 2, image 1, three ways down, and up twice for the coupling.
  assert counts['conv3x3'] == 2 + 1 + 3 + 2 * 3 + 3 * 13
  assert counts['convlstm gates'] == 3


def test_a_network_of_other_boxes():
  counts = _counts(PReNetConfig(recurrent_width=4, steps=2))
  assert counts == {'conv3x3': 2 * 13, 'convlstm gates': 2}


def test_shapes_are_those_of_the_network():
  boxes = find_boxes(_config(), (2, 16, 24, 3))
  inputs = {
    box.inputs[0].shape for box in boxes if box.kind == 'channel attention'
  }
  assert inputs == {
    (2, 16, 24, 8),
    (2, 8, 12, 16),
    (2, 4, 6, 32),
    (2, 2, 3, 64),
  }


@pytest.mark.parametrize(
  'kind', ['channel attention', 'feed-forward', 'convlstm gates']
)
def test_a_box_does_what_the_network_does(kind):
  """With what its parts really return, it returns what its module does."""
  box = next(b for b in find_boxes(_config(), (1, 8, 8, 3)) if b.kind == kind)
  inputs = draw(box.inputs, seed=0)
  params = box.module.init(jax.random.key(0), *inputs)['params']
  results, arguments = [], []

  def listen(next_fun, args, kwargs, context):
    result = next_fun(*args, **kwargs)
    if context.module.path:
      arguments.extend(args)
      results.append(result)
    return result

  with nn.intercept_methods(listen):
    want = box.module.apply({'params': params}, *inputs)
  own = {k: v for k, v in params.items() if k in box.params}
  got = box(own, inputs, tuple(results))
  known = {id(leaf) for leaf in jax.tree.leaves((inputs, results))}
  new = [x for x in jax.tree.leaves((arguments, want)) if id(x) not in known]
  assert len(got) == len(new) > 0
  for ours, theirs in zip(got, new, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_operations_and_bytes_of_a_product():
  x, kernel = jnp.ones((1, 4, 8, 16)), jnp.ones((16, 32))
  forward, backward = measure_part(jnp.matmul, (x, kernel), (), _LINE, 2)
  assert forward.flops == 2 * 32 * 16 * 32
  assert backward.flops == 2 * forward.flops
  assert forward.bytes == 4 * (32 * 16 + 16 * 32 + 32 * 32)
  assert backward.bytes == forward.bytes + 4 * (32 * 16 + 16 * 32)
  assert forward.bound == forward.bytes / 1e6
  assert len(forward.seconds) == len(backward.seconds) == 2
  assert min(forward.seconds + backward.seconds) > 0


def test_what_is_fixed_has_no_gradient():
  x = jnp.ones((64, 64))
  _, both = measure_part(jnp.matmul, (x, x), (), _LINE, 1)
  _, one = measure_part(jnp.matmul, (x,), (x,), _LINE, 1)
  assert one.flops == both.flops / 2


def test_the_bound_is_of_the_dtype():
  assert _LINE.bound('float32', 4e9, 1e6) == 4
  assert _LINE.bound('bfloat16', 4e9, 1e6) == 2
  assert _LINE.bound('bfloat16', 4e9, 3e6) == 3


def test_short_calls_are_timed_many_at_once():
  calls = []

  def call():
    calls.append(1)
    return jnp.zeros(())

  times = seconds_each(call, repeats=3)
  assert len(times) == 3
  assert len(calls) > 3 + 2
  assert max(times) < 0.02


def test_the_operations_of_the_whole_network():
  """The paper's network: 472 GFLOP for an image of 256x256 pixels."""
  total = 0
  for box, count in find_boxes(MixDTPConfig(), (1, 256, 256, 3)).items():
    shapes = dict(box.params), box.inputs, box.parts
    total += count * count_flops(box, *shapes)
  assert total == pytest.approx(472e9, rel=0.01)
