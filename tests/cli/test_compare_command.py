"""What `compare` takes, and what it says of settings that do not fit."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('torch', reason='PyTorch is not installed')

from mixdtp_jax import __main__
from mixdtp_jax.data import pairs as pairs_lib
from mixdtp_jax.data.datasets import photographs
from mixdtp_jax.data.matching import open_folder
from mixdtp_jax.tools.compare import command

_REPOSITORY = pathlib.Path(__file__).parents[2]
_SETTINGS = dict.fromkeys(
  ('weights', 'random', 'steps', 'folder', 'data', 'data_dir', 'source',
   'split', 'config')
) | {
  'num_images': 2, 'size': 16, 'train_steps': 2, 'batch_size': 2, 'crop': 8,
  'repeats': 1, 'out': 'nowhere',
}  # fmt: skip


def test_the_centre_is_cut_out(tiny_pairs):
  pairs = open_folder(tiny_pairs / 'test')  # three of 24x40
  cut = pairs_lib.CentreCrops(pairs, count=2, size=32)
  assert len(cut) == 2
  assert cut.shape(1) == (24, 32)
  for side in ('rainy', 'clean'):
    np.testing.assert_array_equal(cut[1][side], pairs[1][side][:, 4:36])
  assert cut[1]['name'] == pairs[1]['name']
  whole = pairs_lib.CentreCrops(pairs, count=9, size=0)
  assert len(whole) == 3
  assert whole.shape(0) == (24, 40)


def test_photographs_need_no_files(monkeypatch):
  monkeypatch.setattr(photographs, 'TRAIN_VERSIONS', 1)  # they take a while
  with command._opened(None, None, None, None, None) as pairs:
    assert pairs[0]['name'] == 'chelsea-01'
    assert len(pairs) == 4


def test_a_data_set(tiny_pairs, tmp_path):
  data_dir = str(tmp_path / 'data')
  with command._opened(None, 'pairs', data_dir, tiny_pairs, 'train') as pairs:
    assert len(pairs) == 4
  assert (tmp_path / 'data').is_dir()


@pytest.mark.parametrize(
  'change, message',
  [
    ({}, 'either --weights, or --random'),
    ({'weights': 'a', 'random': 1}, 'either --weights, or --random'),
    ({'random': 1, 'steps': 2}, '--steps goes with --weights'),
    ({'random': 1, 'repeats': 0}, '--repeats 0: needs at least 1'),
    ({'random': 1, 'train_steps': 0}, '--train_steps 0: needs at least 1'),
    ({'random': 1, 'size': -8}, '--size -8: needs 0 or more'),
    ({'random': 1, 'crop': 0}, '--crop 0: needs at least 1'),
    ({'random': 1, 'folder': 'a', 'split': 'b'}, '--folder needs no --split'),
    ({'random': 1, 'data': 'pairs'}, '--data pairs needs --data_dir'),
    ({'random': 1, 'folder': 'PAIRS', 'crop': 24}, 'too few for crops of 24'),
    ({'random': 1, 'config': 'FILE'}, 'defines no get_config'),
  ],
)
def test_settings_that_do_not_fit(tiny_pairs, tmp_path, change, message):
  file = tmp_path / 'empty.py'
  file.touch()
  names = {'PAIRS': str(tiny_pairs / 'test'), 'FILE': str(file)}
  config = {'config': str(_REPOSITORY / 'tests' / 'helpers' / 'tiny.py')}
  change = config | {k: names.get(v, v) for k, v in change.items()}
  with pytest.raises(ValueError, match=re.escape(message)):
    command.compare_frameworks(**_SETTINGS | change)


def test_runs_take_no_flags_of_the_other_comparison():
  flags = ['compare', '--runs', 'a', 'b', '--out', 'c', '--crop', '32']
  args = __main__._parser().parse_args(flags)
  with pytest.raises(ValueError, match='--runs needs no --crop'):
    args.run(args)


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
  assert 'pip install torch' in result.stderr
  assert 'Traceback' not in result.stderr
  assert not (tmp_path / 'out').exists()
