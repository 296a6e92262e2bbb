"""Damages files of a run's folder at random, and reads the run.

  python -m tests.campaigns.json_files --count 1000

Whatever is wrong with results.json, best.json, metrics.jsonl or an event file,
what was written is read, or a line says which file is damaged.
"""

import argparse
import contextlib
import json
import pathlib
import tempfile
from collections import Counter

import numpy as np
from clu import metric_writers

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.runtime.files import dump_json
from mixdtp_jax.tools.runs.event_log import read_scalars
from mixdtp_jax.tools.runs.run_folder import _final
from mixdtp_jax.training.log import JsonLines

_UPDATES = 20
_JSON = [None, True, -1, 1e400, 'x', [], {}, [[]], {'step': {}}]


def make_run(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Writes the files that a run of 20 updates leaves; returns them by kind."""
  with contextlib.closing(
    metric_writers.MultiWriter(
      [metric_writers.SummaryWriter(str(folder)), JsonLines(str(folder))]
    )
  ) as writer:
    for step in range(1, _UPDATES + 1):
      writer.write_scalars(step, {'loss': 2.0**-step, 'psnr': 20.0 + step})
  score = {'rgb': {'psnr': 30.0, 'ssim': 0.9}, 'y': {'psnr': 'inf', 'ssim': 1}}
  row = {'name': 'a', 'input': score, 'restored': score}
  path = folder / 'results' / 'results.json'
  path.parent.mkdir()
  content = {'context': {'step': _UPDATES}, 'mean': row, 'images': [row]}
  dump_json(content, path, sealed=True)
  (events,) = folder.glob('events*')
  best = {'update': _UPDATES, 'split': 'val', 'images': 1, 'y_psnr': 30.0}
  dump_json(best, folder / saving.BEST, sealed=True)
  return {
    'results.json': path,
    'best.json': folder / saving.BEST,
    'metrics.jsonl': folder / 'metrics.jsonl',
    'events': events,
  }


def damaged(content: bytes, random: np.random.Generator) -> bytes:
  """Returns the content with a bit, a block, an end or a JSON value changed."""
  values = bytearray(content)
  place = int(random.integers(len(values)))
  match random.integers(5):
    case 0:
      values[place] ^= 1 << int(random.integers(8))
    case 1:
      values[place : place + 16] = bytes(len(values[place : place + 16]))
    case 2:
      del values[place:]
    case 3:
      del values[place : place + int(random.integers(1, 40))]
    case 4:
      with contextlib.suppress(ValueError):
        return _other_json(json.loads(content), random)
  return bytes(values)


def _other_json(content, random: np.random.Generator) -> bytes:
  """Replaces a value somewhere in an object."""
  inner, parent, key = content, None, None
  while isinstance(inner, dict | list) and inner and random.random() < 0.8:
    keys = list(inner) if isinstance(inner, dict) else range(len(inner))
    parent, key = inner, keys[int(random.integers(len(keys)))]
    inner = parent[key]
  value = _JSON[int(random.integers(len(_JSON)))]
  if parent is None:
    content = value
  else:
    parent[key] = value
  return json.dumps(content).encode()


def outcome(kind: str, path: pathlib.Path, logged) -> str:
  """Reads a damaged file: 'refused', 'the same', 'shorter', or 'other'.

  Raises:
    AssertionError: an error does not name the file, or is several lines long.
  """
  try:
    if kind == 'results.json':
      found = _final(path.parents[1], _UPDATES)
      return 'the same' if found == logged else 'other'
    if kind == 'best.json':
      found = saving.read_best(path.parent)
      return 'the same' if found == logged else 'other'
    found = read_scalars(path.parent)
  except (ValueError, FileNotFoundError) as error:
    text = str(error)
    assert str(path) in text or f'{path.parent}: no metrics' in text, text
    assert '\n' not in text
    return 'refused'
  for name, points in found.items():
    values = [(p.step, p.value) for p in points]
    if values != logged[name][: len(values)]:
      return 'other'
  return 'the same' if len(found['loss']) == _UPDATES else 'shorter'


def run(count: int, folder: pathlib.Path, seed: int = 0) -> dict[str, Counter]:
  """Damages each kind of file `count` times; returns the outcomes."""
  random = np.random.default_rng(seed)
  files = make_run(folder)
  logged = {
    name: [(p.step, p.value) for p in points]
    for name, points in read_scalars(folder).items()
  }
  found = {}
  written = {
    'results.json': _final(folder, _UPDATES),
    'best.json': saving.read_best(folder),
  }
  for kind, path in files.items():
    sound = path.read_bytes()
    if kind == 'events':  # which are read without the other file
      files['metrics.jsonl'].unlink()
    outcomes: Counter = Counter()
    for _ in range(count):
      path.write_bytes(damaged(sound, random))
      outcomes[outcome(kind, path, written.get(kind, logged))] += 1
    path.write_bytes(sound)
    found[kind] = outcomes
  return found


def main() -> None:
  """Runs the campaign, and prints how often each outcome was seen."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--count', type=int, default=1000)
  with tempfile.TemporaryDirectory() as folder:
    for kind, seen in run(
      parser.parse_args().count, pathlib.Path(folder)
    ).items():
      print(kind, dict(seen))


if __name__ == '__main__':
  main()
