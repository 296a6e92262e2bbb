"""What `compare` takes, and what it says of settings that do not fit."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('torch', reason='PyTorch is not installed')

from mixdtp_jax.cli import main
from mixdtp_jax.data import pairs as pairs_lib
from mixdtp_jax.data.datasets import photographs
from mixdtp_jax.data.matching import open_folder
from mixdtp_jax.tools.compare import command

pytestmark = pytest.mark.torch

_REPOSITORY = pathlib.Path(__file__).parents[2]
_TINY = str(_REPOSITORY / 'tests' / 'helpers' / 'tiny.py')
_SETTINGS = {
  'random': 1, 'num_images': 2, 'size': 16, 'train_steps': 2, 'batch_size': 2,
  'crop': 8, 'config': _TINY, 'out': 'nowhere',
}  # fmt: skip


def test_the_centre_is_cut_out(tiny_pairs):
  pairs = open_folder(tiny_pairs / 'test')  # three of 24x40
  cut = pairs_lib.centre_crops(pairs, count=2, size=32)
  assert len(cut) == 2
  assert cut.shape(1) == (24, 32)
  for side in ('rainy', 'clean'):
    np.testing.assert_array_equal(cut[1][side], pairs[1][side][:, 4:36])
  assert cut[1]['name'] == pairs[1]['name']
  whole = pairs_lib.centre_crops(pairs, count=9, size=0)
  assert len(whole) == 3
  assert whole.shape(0) == (24, 40)


@pytest.mark.slow
def test_photographs_need_no_files(monkeypatch):
  monkeypatch.setattr(photographs, 'TRAIN_VERSIONS', 1)  # they take a while
  with command.open_pairs() as pairs:
    assert pairs[0]['name'] == 'chelsea-01'
    assert len(pairs) == 4


def test_a_data_set(tiny_pairs, tmp_path):
  with command.open_pairs(
    data='pairs',
    data_dir=str(tmp_path / 'data'),
    source=tiny_pairs,
    split='train',
  ) as pairs:
    assert len(pairs) == 4
  assert (tmp_path / 'data').is_dir()


@pytest.mark.parametrize(
  'change, message',
  [
    ({'steps': 2}, '--steps goes with --weights'),
    ({'size': -8}, '--size -8: needs 0 or more'),
    ({'folder': 'a', 'split': 'b'}, '--folder goes without --split'),
    ({'data': 'pairs'}, '--data pairs needs --data_dir'),
    ({'folder': 'PAIRS', 'crop': 24}, 'too few for crops of 24'),
    (
      {'folder': 'PAIRS', 'crop': 12},
      '--crop 12: the network needs a multiple',
    ),
    ({'overrides': ['nothing=1']}, '--config.nothing is an unknown option'),
  ],
)
def test_settings_that_do_not_fit(tiny_pairs, monkeypatch, change, message):
  # Drawing weights would take ten seconds.
  monkeypatch.setattr(
    command, '_load_network', lambda recipe, *_: (recipe.model, None)
  )
  if change.get('folder') == 'PAIRS':
    change = change | {'folder': str(tiny_pairs / 'test')}
  with pytest.raises(ValueError, match=re.escape(message)):
    command.compare_frameworks(**_SETTINGS | change)


@pytest.mark.parametrize(
  'words, message',
  [
    ([], 'one of the arguments --weights --random is required'),
    (['--random=1', '--weights=a'], 'not allowed with'),
    (['--random=1', '--train_steps=0'], 'needs at least 1'),
    (['--random=1', '--repeats=2'], 'unknown option --repeats'),
  ],
)
def test_options_that_do_not_fit(words, message, capsys):
  with pytest.raises(SystemExit, match='2'):
    main.run_command(['compare', '--out=nowhere', *words])
  assert message in capsys.readouterr().err


@pytest.mark.slow
def test_without_pytorch_the_remedy_is_told(tmp_path):
  (tmp_path / 'torch.py').write_text('raise ImportError("no torch")')
  result = subprocess.run(
    [sys.executable, '-m', 'mixdtp_jax', 'compare', '--random=0', '--out=out'],
    env=os.environ | {'PYTHONPATH': f'{tmp_path}:{_REPOSITORY}'},
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 1
  assert 'pip install' in result.stderr and 'torch' in result.stderr
  assert 'Traceback' not in result.stderr
  assert not (tmp_path / 'out').exists()
