"""Flipped bits and zeroed blocks in checkpoints and in a weights folder.

  python -m tests.campaigns.checkpoints --flips 1000 --blocks 200

Whatever happens to a file, a run continues with exactly the values that were
saved last or the time before, and weights have exactly the values that were
saved or are refused in one line with their name. The exit status is 1 if not.
"""

import argparse
import collections
import logging
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging as absl_logging

from mixdtp_jax.checkpoints import restoring, saving
from mixdtp_jax.checkpoints.state import TrainState
from mixdtp_jax.models.config import PReNetConfig, as_mapping
from mixdtp_jax.models.factory import abstract_params
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.recipe.optimizer import make_optimizer
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from mixdtp_jax.weights.folder import save_weights
from mixdtp_jax.weights.load import load_weights

_CFG = PReNetConfig(recurrent_width=16, steps=2)
_RECIPE = make_recipe({'model': as_mapping(_CFG), 'ema_decay': 0.9})


def _params(seed):
  random = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(random.standard_normal(x.shape, x.dtype)),
    abstract_params(_CFG),
  )


def _state(update):
  params = _params(update)
  moments = make_optimizer(_RECIPE).init(params)
  moments = jax.tree.map(lambda x: x + update, moments)
  return TrainState(jnp.int32(update), params, moments, _params(update + 10))


def damages(
  folder: pathlib.Path, flips: int, blocks: int, seed: int
) -> Iterator[str]:
  """Damages one file of a folder, yields what was done, and undoes it.

  Half of the time the file is drawn by its size, else each is as likely.
  """
  random = np.random.default_rng(seed)
  files = [p for p in sorted(folder.rglob('*')) if p.stat().st_size]
  files = [p for p in files if p.is_file()]
  sizes = np.array([p.stat().st_size for p in files])
  for number in range(flips + blocks):
    by_size = random.integers(2)
    path = files[
      random.choice(len(files), p=sizes / sizes.sum() if by_size else None)
    ]
    sound = path.read_bytes()
    damaged = bytearray(sound)
    place = int(random.integers(len(sound)))
    if number < flips:
      damaged[place] ^= 1 << int(random.integers(8))
      what = 'bit flipped'
    else:
      length = int(2 ** random.integers(4, 13))
      place -= place % length
      damaged[place : place + length] = bytes(
        len(damaged[place : place + length])
      )
      what = f'{length} bytes zeroed'
    path.write_bytes(damaged)
    yield f'{path.relative_to(folder)}, byte {place}: {what}'
    path.write_bytes(sound)


def _same(found, saved) -> bool:
  leaves = [jax.tree.leaves(tree) for tree in (found, saved)]
  return all(
    np.asarray(x).tobytes() == np.asarray(y).tobytes()
    for x, y in zip(*leaves, strict=True)
  )


def damage_checkpoints(folder, flips, blocks, seed=0):
  """Yields (outcome, what was done) for damaged newest checkpoints of a run."""
  sharding = replicated(make_mesh(jax.devices()[:1]))
  states = {update: _state(update) for update in (1, 2)}
  with saving.Manager(folder) as manager:
    for state in states.values():
      saving.save(manager, state, _RECIPE)
  newest = folder / 'checkpoints' / '2'
  aside = folder / 'damaged_checkpoints' / '2'
  for what in damages(newest, flips, blocks, seed):
    with saving.Manager(folder) as manager:
      found = restoring.restore_or_init(
        manager, _RECIPE, lambda: states[1], sharding
      )
    update = int(found.step)
    right = update in states and _same(found, states[update])
    if aside.exists():
      right &= update == 1
      aside.rename(newest)
    outcome = {1: 'the one before', 2: 'as saved'}.get(update, '')
    yield outcome if right else 'WRONG', what


def damage_weights(folder, flips, blocks, seed=0):
  """Yields (outcome, what was done) for a damaged weights folder."""
  params = _params(0)
  path = folder / 'weights'
  save_weights(path, _CFG, params)
  for what in damages(path, flips, blocks, seed):
    try:
      cfg, found = load_weights(path)
      right = cfg == _CFG and _same(found, params)
      outcome = 'as saved'
    except (ValueError, FileNotFoundError) as error:
      text = str(error)
      right = str(path) in text and '\n' not in text
      outcome = 'refused'
    yield outcome if right else 'WRONG', what


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--flips', type=int, default=1000)
  parser.add_argument('--blocks', type=int, default=200)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  absl_logging.set_verbosity(absl_logging.FATAL)
  logging.disable(logging.CRITICAL)
  wrong = 0
  for campaign in (damage_checkpoints, damage_weights):
    folder = pathlib.Path(tempfile.mkdtemp())
    counts = collections.Counter()
    for outcome, what in campaign(folder, args.flips, args.blocks, args.seed):
      counts[outcome] += 1
      if outcome == 'WRONG':
        print(f'WRONG: {what}', flush=True)
    shutil.rmtree(folder)
    print(f'{campaign.__name__}: {dict(counts)}', flush=True)
    wrong += counts['WRONG']
  return bool(wrong)


if __name__ == '__main__':
  sys.exit(main())
