"""mixdtp plan."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import jax
import pytest

from mixdtp_jax.cli import main
from mixdtp_jax.recipe.config_file import load_recipe
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.tools.plan import run, targets
from mixdtp_jax.tools.plan.step import abstract_state
from mixdtp_jax.training.step import abstract_batch, make_train_step
from tests.helpers import tiny
from tests.helpers.h100 import needs_cuda_plugin
from tests.tools.test_plan_targets import needs_libtpu

pytestmark = pytest.mark.slow

_TESTS = pathlib.Path(__file__).parents[1] / 'helpers'
_CONFIG = """
import ml_collections
from mixdtp_jax.configs.default import get_config as get_default_config
from mixdtp_jax.models.config import PReNetConfig, as_mapping

def get_config():
  config = get_default_config()
  config.model = ml_collections.ConfigDict(
    as_mapping(PReNetConfig(recurrent_width=4, steps=1))
  )
  config.batch_size, config.data.crop = 8, 16
  config.num_train_steps = 100
  config.schedule.boundaries = ()
  return config
"""


@pytest.fixture(scope='module')
def prenet(tmp_path_factory):
  """The file of a configuration that compiles in seconds."""
  path = tmp_path_factory.mktemp('config') / 'prenet.py'
  path.write_text(_CONFIG)
  return path


def _plan(*arguments, environment=None):
  return subprocess.run(
    [sys.executable, '-m', 'mixdtp_jax', 'plan', *arguments],
    cwd=tempfile.gettempdir(),
    env=(environment or os.environ) | {'PYTHONPATH': str(_TESTS.parents[1])},
    capture_output=True,
    text=True,
    timeout=600,
  )


def test_plans_this_machine(prenet, environment, tmp_path):
  out = tmp_path / 'new' / 'plan.json'
  result = _plan(
    f'--config={prenet}',
    '--config.model.remat=blocks',
    '--utilisation=0.5',
    f'--out={out}',
    environment=environment,
  )
  assert result.returncode == 0, result.stderr
  content = json.loads(out.read_text())
  config = load_recipe(prenet)
  assert content['config']['model']['remat'] == 'blocks'
  assert content['target']['devices'] == 8
  (stage,) = content['stages']
  assert (stage['batch_size'], stage['crop']) == (8, config.data.crop)
  state = abstract_state(config, make_mesh())
  held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
  batch = 2 * config.data.crop**2 * 3  # a pair of crops, of 8 bits a value
  assert stage['memory']['arguments'] == pytest.approx(held + batch, rel=0.01)
  assert stage['needed'] == sum(stage['memory'].values())
  products = stage['flops'] / content['target']['peak'] / 0.5
  assert stage['seconds']['products'] == pytest.approx(products)
  assert stage['seconds']['step'] == pytest.approx(products)
  assert content['fits'] is stage['fits'] is True
  assert 'fits' in result.stdout
  assert '8 crops of 16 pixels, 1 a device; float32, remat blocks' in (
    result.stdout
  )
  assert 'Compiling the step of 8 crops' in result.stderr


def _plan_of_the_absent(config, tmp_path, *flags):
  """The finished command, and the plan of its only stage, for four devices."""
  out = tmp_path / 'plan.json'
  environment = dict(os.environ)
  del environment['JAX_PLATFORMS']  # the command sees to that
  result = _plan(
    f'--config={config}',
    '--config.model.dtype=bfloat16',
    f'--out={out}',
    *flags,
    environment=environment,
  )
  assert result.returncode == 0, result.stderr
  content = json.loads(out.read_text())
  assert content['target']['devices'] == 4
  (stage,) = content['stages']
  assert stage['available'] == content['target']['memory']
  took = stage['seconds']
  assert took['step'] == pytest.approx(
    max(took['products'], took['memory']) + took['exchange']
  )
  return result, stage


@needs_libtpu
def test_plans_a_slice_that_is_not_there(prenet, tmp_path):
  result, stage = _plan_of_the_absent(prenet, tmp_path, '--topology=v5e:2x2')
  assert 'libtpu' not in result.stderr  # which looks for a TPU, if let
  assert {c['kind'] for c in stage['collectives']} == {'all-reduce'}
  assert {c['devices'] for c in stage['collectives']} == {4}
  assert 0 < stage['traffic'] < stage['xla_bytes']
  assert '819 GB/s' in result.stdout


@needs_cuda_plugin
@pytest.mark.parametrize('space', [1, 2])
def test_plans_gpus_that_are_not_there(prenet, tmp_path, space):
  result, stage = _plan_of_the_absent(
    prenet,
    tmp_path,
    '--topology=h100:4',
    f'--config.mesh_space={space}',
    '--config.data.crop=32',
  )
  kinds = {c['kind']: c['devices'] for c in stage['collectives']}
  assert kinds['all-reduce'] == 4
  # Neighbours in a pair exchange the rows at their border.
  assert ('collective-permute' in kinds) == (space == 2)
  assert stage['traffic'] > 0
  assert '3,350 GB/s' in result.stdout


@needs_libtpu
def test_what_does_not_fit_is_told_with_status_1(prenet):
  result = _plan(
    f'--config={prenet}',
    '--config.batch_size=65536',
    '--config.data.crop=2048',
    '--topology=v5e:2x2',
  )
  assert result.returncode == 1
  assert 'of 15.75 GiB: DOES NOT FIT (the compiler gave up)' in result.stdout
  assert result.stderr.splitlines()[-1] == 'error: it does not fit'


def test_a_tpu_gets_the_general_depthwise_convolution():
  """And not what ops.py has for a CPU alone."""
  config = tiny.get_config()
  mesh = make_mesh(jax.devices()[:1])
  state = abstract_state(make_recipe(config), mesh)
  batch = abstract_batch(8, config.data.crop, mesh)
  step = make_train_step(make_recipe(config), mesh)
  traced = step.trace(state, batch)
  grouped = {
    platform: len(
      re.findall(
        r'(?:feature|batch)_group_count = (?!1 )\d+',
        traced.lower(lowering_platforms=(platform,)).as_text(),
      )
    )
    for platform in ('cpu', 'tpu')
  }
  assert grouped['cpu'] == 0
  # Two of each block of eight, each with two gradients.
  assert grouped['tpu'] >= 8 * 2 * 3


def test_each_stage_of_growth_is_planned(prenet, capsys, quick_compiler):
  assert run.plan(
    config=str(prenet),
    topology=None,
    utilisation=0.3,
    search=None,
    out=None,
    overrides=['growth=((20, 24, 16),)'],
  )
  printed = capsys.readouterr().out
  assert 'updates 0 to 20: 8 crops of 16 pixels, 1 a device' in printed
  assert 'updates 20 to 100: 16 crops of 24 pixels, 2 a device' in printed


def test_searches_the_largest_batch(
  prenet, monkeypatch, tmp_path, capsys, quick_compiler
):
  real = targets.this_machine

  def small(dtype):
    return dataclasses.replace(real(dtype), memory=4 * 2**20)

  monkeypatch.setattr(targets, 'this_machine', small)
  out = tmp_path / 'plan.json'
  run.plan(
    config=str(prenet),
    topology=None,
    utilisation=0.3,
    search=[],
    out=str(out),
    overrides=[],
  )
  printed = capsys.readouterr().out
  content = json.loads(out.read_text())
  assert list(content['largest_batches']) == ['none', 'blocks']
  for found in content['largest_batches'].values():
    best, tried = found['best'], found['tried']
    assert best['needed'] <= 4 * 2**20
    assert any(plan['needed'] > 4 * 2**20 for plan in tried)
    assert f' {best["batch_size"]} ' in printed


@pytest.mark.parametrize(
  ('words', 'status', 'message'),
  [
    (['--config=gone.py'], 1, '--config=gone.py: there is no such file'),
    (['--utilisation=2'], 1, '--utilisation 2.0: needs more than 0, up to 1'),
    (['--topology=v1:2'], 1, '--topology v1:2: choose one of'),
    (['--config.model.depth=2'], 1, '--config.model.depth is an unknown opt'),
    (['--config.batch_size=12'], 1, 'batch_size = 12 is not a multiple of'),
    (['--search', 'full'], 1, '--search full: choose from none, blocks'),
    (['--unknown=2'], 2, 'unknown option --unknown'),
    ([], 2, 'the following arguments are required: --config'),
  ],
)
def test_bad_input_is_one_line(prenet, words, status, message, capsys):
  if words and not words[0].startswith('--config='):
    words = [f'--config={prenet}', *words]
  try:
    found = main.run_command(['plan', *words])
  except SystemExit as stopped:
    found = stopped.code
  assert found == status
  assert message in capsys.readouterr().err.splitlines()[-1]
