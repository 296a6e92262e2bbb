"""Damages prepared copies and audits at random, and reads them.

  python -m tests.campaigns.prepared --count 1000

A damaged copy gives the pairs that were written, or one line that names it and
the command that writes it again. A damaged audit is read or refused by name.
"""

import argparse
import pathlib
import tempfile
from collections import Counter

import numpy as np

from mixdtp_jax.data import findings, images
from mixdtp_jax.data.datasets import registry
from mixdtp_jax.data.findings import Audit, Finding, PairId
from mixdtp_jax.data.pairs import PairFiles
from tests.campaigns.json_files import damaged

_SPLITS = ('train', 'test')


def _read(data_dir: pathlib.Path) -> list[tuple]:
  """Returns split, name, shape and pixels of every pair."""
  builder = registry.prepare('pairs', source='', data_dir=str(data_dir))
  found = []
  for split in _SPLITS:
    pairs = registry.PreparedPairs(builder, split)
    for index in range(len(pairs)):
      pair = pairs[index]
      pixels = pair['rainy'].tobytes(), pair['clean'].tobytes()
      found.append((split, pair['name'], pairs.shape(index), *pixels))
  return found


def _copy(folder: pathlib.Path) -> pathlib.Path:
  random = np.random.default_rng(0)
  for split in _SPLITS:
    for name in ('1', '2', '3'):
      for side in ('rainy', 'clean'):
        path = folder / 'source' / split / side / f'{name}.png'
        images.write_png(random.integers(0, 256, (9, 8, 3), np.uint8), path)
  data_dir = folder / 'data'
  registry.prepare(
    'pairs', source=str(folder / 'source'), data_dir=str(data_dir)
  )
  return data_dir


def copies(count: int, folder: pathlib.Path, seed: int = 0) -> Counter:
  """Damages or deletes a file of a copy `count` times; returns the outcomes.

  Raises:
    AssertionError: pairs are others than those written, or an error does not
      name the copy and the remedy in one line.
  """
  data_dir, random = _copy(folder), np.random.default_rng(seed)
  written = _read(data_dir)
  files = sorted((data_dir / 'pairs/1.0.0').iterdir())
  records = [path for path in files if 'array_record' in path.name]
  seal = data_dir / 'pairs/1.0.0/seal.json'
  seal_bytes = seal.read_bytes()
  outcomes: Counter = Counter()
  for number in range(count):
    # Without a seal, as of large files, records have checksums of their own.
    sealed = number % 2 == 0
    choice = files if sealed else records
    if not sealed:
      seal.unlink()
    path = choice[int(random.integers(len(choice)))]
    sound = path.read_bytes()
    content = sound.rstrip(b'\0')
    if number % 8:
      path.write_bytes(
        damaged(content, random) + bytes(len(sound) - len(content))
      )
    else:
      path.unlink()
    try:
      assert _read(data_dir) == written, f'{path} gave other pairs'
      outcomes['the same'] += 1
    except ValueError as error:
      text = str(error)
      assert '\n' not in text
      assert str(path.parent) in text
      assert 'mixdtp prepare pairs --source FOLDER' in text, text
      outcomes['refused'] += 1
    path.write_bytes(sound)
    seal.write_bytes(seal_bytes)
  return outcomes


def audits(count: int, folder: pathlib.Path, seed: int = 0) -> Counter:
  """Damages an audit `count` times; returns the outcomes.

  Raises:
    AssertionError: an error is several lines, or does not name the file.
  """
  first, second = PairId('set', 'train', 'a'), PairId('set', 'test', 'a')
  audit = Audit(
    {'set': {'train': 2, 'test': 1}},
    (
      Finding('leak', (first, second), excluded=(first,)),
      Finding('size', (second,), 'other sizes'),
    ),
  )
  path, random = folder / 'audit.json', np.random.default_rng(seed)
  findings.write_audit(audit, path)
  sound, outcomes = path.read_bytes(), Counter()
  pairs = {s: [PairFiles('a', None, None)] for s in _SPLITS}
  pairs['train'] = [*pairs['train'], PairFiles('b', None, None)]
  for _ in range(count):
    path.write_bytes(damaged(sound, random))
    try:
      found = findings.read_audit(path)
      findings.leave_out('set', pairs, found)
      assert found == audit
      outcomes['the same'] += 1
    except ValueError as error:
      text = str(error)
      assert '\n' not in text
      assert str(path) in text or 'audit' in text
      outcomes['refused'] += 1
  return outcomes


def main() -> None:
  """Runs the campaign, and prints how often each outcome was seen."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--count', type=int, default=1000)
  count = parser.parse_args().count
  with tempfile.TemporaryDirectory() as folder:
    print('audits', dict(audits(count, pathlib.Path(folder))))
    print('copies', dict(copies(count, pathlib.Path(folder))))


if __name__ == '__main__':
  main()
