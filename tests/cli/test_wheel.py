"""The package as pip installs it: built, installed, and used elsewhere."""

import functools
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.request

import pytest

from mixdtp_jax.cli import main
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

pytest.importorskip('setuptools', reason='nothing builds a wheel')

# The smallest network, of a recipe that is found by its name.
TINY = (
  '--config=prenet_rain100l',
  '--config.model.recurrent_width=4',
  '--config.model.steps=1',
  '--config.data.name=pairs',
  '--config.data.crop=16',
  '--config.batch_size=2',
  '--config.num_train_steps=2',
)


RUN = functools.partial(subprocess.run, timeout=500)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """A folder with the wheel's files, as in site-packages."""
  folder = tmp_path_factory.mktemp('wheel')
  source, site = folder / 'source', folder / 'site'
  # A copy: setuptools takes along what an older build left beside the source.
  ignored = shutil.ignore_patterns('__pycache__', '*.egg-info')
  for name in ('mixdtp_jax', 'configs'):
    shutil.copytree(
      REPOSITORY / name, source / name, symlinks=True, ignore=ignored
    )
  for name in ('pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(REPOSITORY / name, source)
  pip = [sys.executable, '-m', 'pip', '--quiet']
  build = ['wheel', '--no-deps', '--no-build-isolation', '--no-index']
  subprocess.run(
    [*pip, *build, '--wheel-dir', folder, source], check=True, timeout=300
  )
  (wheel,) = folder.glob('*.whl')
  subprocess.run(
    [*pip, 'install', '--no-deps', '--no-index', '--target', site, wheel],
    check=True,
    timeout=300,
  )
  return site


@pytest.fixture(scope='module')
def mixdtp(site, environment, tmp_path_factory):
  """Runs the console script in an empty folder."""
  here = tmp_path_factory.mktemp('elsewhere')

  def run(*words, start=RUN):
    return start(
      [site / 'bin' / 'mixdtp', *map(str, words)],
      cwd=here,
      env=environment | {'PYTHONPATH': str(site), 'XLA_FLAGS': ''},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  run.folder = here
  return run


def test_the_wheel_has_the_package_alone_and_all_its_files(site):
  names = {path.name for path in site.iterdir() if path.suffix != '.dist-info'}
  assert names == {'mixdtp_jax', 'bin'}
  missing = [
    path
    for path in _files(REPOSITORY / 'mixdtp_jax')
    if not (site / 'mixdtp_jax' / path).is_file()
  ]
  assert not missing
  assert not (site / 'mixdtp_jax' / 'configs').is_symlink()


def _files(folder):
  """Files of the package by their paths, without what tools keep."""
  for parent, _, names in os.walk(folder, followlinks=True):
    for name in names:
      if not {'__pycache__', '.mypy_cache'} & set(pathlib.Path(parent).parts):
        yield pathlib.Path(parent, name).relative_to(folder)


@pytest.mark.parametrize('name', main.COMMANDS)
def test_every_command_shows_its_help(mixdtp, name):
  result = mixdtp(name, '--help')
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith(f'usage: mixdtp {name} ')


def test_trains_scores_converts_restores_and_exports(mixdtp, tiny_pairs):
  source = f'--config.data.source={tiny_pairs}'
  for words, told in (
    (['train', '--workdir=run', source, *TINY], 'mean over 3 images'),
    (['eval', '--weights=run', '--out=results'], 'mean over 3 images'),
    (['convert', 'run', '--to', 'weights'], 'run -> weights: '),
    (
      ['eval', '--weights=weights', f'--folder={tiny_pairs / "test"}'],
      'mean over 3 images',
    ),
    (
      ['derain', tiny_pairs / 'test' / 'rainy' / '0.png', '-o', 'dry.png'],
      '0.png -> dry.png: ',
    ),
    (['export', '--format=stablehlo', '-o', 'net.stablehlo'], '-> net.stable'),
  ):
    result = mixdtp(*words)
    assert result.returncode == 0, result.stderr
    assert told in result.stdout
  folder = mixdtp.folder
  for workdir in (folder / 'run' / 'results', folder / 'results'):
    assert (workdir / 'results.json').is_file()


def test_serves(mixdtp):
  with mixdtp('serve', '--port=0', start=subprocess.Popen) as server:
    try:
      address = server.stdout.readline().split()[0]
      for name, words in ('', b'<title>'), ('page.js', b'import'):
        with urllib.request.urlopen(address + name, timeout=60) as answer:
          assert words in answer.read()
    finally:
      server.terminate()


def test_a_recipe_that_does_not_exist_names_those_that_do(mixdtp):
  result = mixdtp('train', '--config=rain200', '--workdir=run')
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert 'did you mean rain200l?' in line
