"""Damaged and hostile .pth and .safetensors files through load_weights.

  python -m tests.campaigns.weight_files --count 1000

Each file gives finite weights, or one line that names it; nothing that it holds
is executed. The exit status is 1 if not.
"""

import argparse
import collections
import io
import logging
import os
import pathlib
import pickle
import sys
import tempfile
import zipfile

import jax
import numpy as np
import safetensors.numpy
from absl import logging as absl_logging

from mixdtp_jax.models.config import PReNetConfig
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.weights.load import load_weights
from mixdtp_jax.weights.safetensors_file import write_safetensors
from mixdtp_jax.weights.state_dict import to_torch

_CFG = PReNetConfig(recurrent_width=4, steps=1)
_FORBIDDEN = ('os.system', 'subprocess.Popen', 'os.exec', 'socket.connect')
_executed = []


def _hook(event, arguments):
  if event in _FORBIDDEN:
    _executed.append((event, arguments))


class _Hostile:
  def __reduce__(self):
    return os.system, ('true',)


def _tensors():
  random = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: random.standard_normal(x.shape, x.dtype), abstract_params(_CFG)
  )
  return params, to_torch(params, _CFG)


def sound_pth() -> list[bytes]:
  """Returns .pth files that are as PyTorch writes them, or hostile."""
  import torch

  state_dict = {k: torch.from_numpy(v) for k, v in _tensors()[1].items()}
  optimizer = {'state': {0: {'step': 3}}, 'param_groups': [{'lr': 0.1}]}
  itself = {}
  itself['params'] = itself
  contents = [
    state_dict,
    {'params_ema': state_dict, 'params': {}, 'epoch': 3},
    {'state_dict': {f'model.{k}': v for k, v in state_dict.items()}},
    {'optimizer': optimizer},
    {k: torch.nn.Parameter(v) for k, v in state_dict.items()},
    {'conv0.0.weight': torch.zeros(3).to_sparse()},
    {'conv0.0.weight': torch.zeros(4, 6, 3, 3, device='meta')},
    {'conv0.0.weight': _Hostile(), **state_dict},
    torch.nn.Conv2d(1, 1, 1),
    itself,
  ]
  files = []
  for content in contents:
    file = io.BytesIO()
    torch.save(content, file)
    files.append(file.getvalue())
  old = io.BytesIO()
  torch.save(state_dict, old, _use_new_zipfile_serialization=False)
  return [*files, old.getvalue(), pickle.dumps(_Hostile())]


def sound_safetensors() -> list[bytes]:
  """Returns our file, a foreign one, and one in float16."""
  params, state_dict = _tensors()
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, 'a.safetensors')
    files = []
    for dtype in ('float32', 'float16'):
      write_safetensors(path, _CFG, params, dtype=dtype)
      files.append(path.read_bytes())
  foreign = {f'net.{name}': value for name, value in state_dict.items()}
  return [*files, safetensors.numpy.save(foreign, {'format': 'pt'})]


def mutated(data: bytes, random: np.random.Generator) -> bytes:
  """Returns bytes with one to three random changes."""
  changed = bytearray(data)
  for _ in range(random.integers(1, 4)):
    # The ends hold the headers, and a pickle is where the zip file begins.
    span = len(changed) if random.integers(2) else min(2000, len(changed))
    place = int(random.integers(max(span, 1)))
    place = place if random.integers(2) else max(0, len(changed) - 1 - place)
    match random.integers(5):
      case 0:
        changed[place : place + 1] = bytes([random.integers(256)])
      case 1:
        del changed[place:]
      case 2:
        del changed[place : place + int(random.integers(1, 64))]
      case 3:
        changed[place:place] = random.bytes(random.integers(1, 64))
      case 4:
        changed[place : place + 64] = bytes(len(changed[place : place + 64]))
  return bytes(changed)


def _with_changed_pickle(data, random):
  """Returns a .pth whose pickle is changed, with sums that are right again."""
  file = io.BytesIO()
  with (
    zipfile.ZipFile(io.BytesIO(data)) as source,
    zipfile.ZipFile(file, 'w') as target,
  ):
    for entry in source.infolist():
      content = source.read(entry)
      if entry.filename.endswith('data.pkl'):
        content = mutated(content, random)
      target.writestr(entry.filename, content)
  return file.getvalue()


def campaign(suffix: str, count: int, seed: int = 0):
  """Yields (outcome, number) of damaged files."""
  random = np.random.default_rng(seed)
  sound = {'.pth': sound_pth, '.safetensors': sound_safetensors}[suffix]()
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, f'weights{suffix}')
    for number in range(count):
      data = sound[number % len(sound)]
      if number >= len(sound):  # the sound ones come first
        change = mutated
        if zipfile.is_zipfile(io.BytesIO(data)) and random.integers(2):
          change = _with_changed_pickle
        data = change(data, random)
      path.write_bytes(data)
      yield _outcome(path), number


def _outcome(path):
  _executed.clear()
  try:
    _, params = load_weights(path)
    outcome = 'loaded'
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(params)):
      outcome = 'WRONG: not finite'
  except ValueError as error:
    text = str(error)
    outcome = 'refused'
    if str(path) not in text or '\n' in text:
      outcome = f'WRONG: {text}'
  except Exception as error:  # noqa: BLE001 - what is looked for
    outcome = f'WRONG: {type(error).__name__}: {error}'
  return f'WRONG: {_executed}' if _executed else outcome


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--count', type=int, default=1000)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  absl_logging.set_verbosity(absl_logging.FATAL)
  logging.disable(logging.CRITICAL)
  watch()
  wrong = 0
  for suffix in ('.pth', '.safetensors'):
    counts = collections.Counter()
    for outcome, number in campaign(suffix, args.count, args.seed):
      if outcome.startswith('WRONG'):
        print(f'{suffix} {number}: {outcome}', flush=True)
        outcome = 'WRONG'
      counts[outcome] += 1
    print(f'{suffix}: {dict(counts)}', flush=True)
    wrong += counts['WRONG']
  return bool(wrong)


def watch() -> None:
  """Notes from now on what is executed."""
  sys.addaudithook(_hook)


if __name__ == '__main__':
  sys.exit(main())
