"""Damaged images through every reader, and through derain on folders of them.

  python -m tests.campaigns.images --count 10000

One process reads all of them. Each image becomes a picture, or one line that
names the file; and nothing half-written is left. A hang ends with a traceback.
What breaks this is kept in the folder --keep, and the exit status is 1.
"""

import argparse
import collections
import contextlib
import faulthandler
import itertools
import json
import os
import pathlib
import sys
import tempfile
import warnings
from unittest import mock

import numpy as np
from PIL import Image

import mixdtp_jax
from mixdtp_jax.cli.main import run_command
from mixdtp_jax.data import images
from mixdtp_jax.data.images import ImageError
from mixdtp_jax.restoration.encoding import encode
from mixdtp_jax.restoration.pictures import open_picture
from tests.helpers import hostile

_NAME = 'HOLIDAY'
_FOLDER = 200  # files
_SECONDS = 120  # for an image or a folder


def damaged(count, seed):
  """Yields (kind, bytes) of damaged images: a few of every kind in turn."""
  each = -(-count // len(hostile.NAMES))
  streams = [
    zip(itertools.repeat(name), hostile.damaged(name, each, seed))
    for name in hostile.NAMES
  ]
  turns = itertools.chain.from_iterable(zip(*streams, strict=True))
  return itertools.islice(turns, count)


def _restored(data):
  picture = open_picture(data, _NAME)
  if picture.pixels > 10**6 * picture.count:
    raise images.ImageError(f'{_NAME} takes too long')
  frames = list(itertools.islice(picture.frames(), 50))
  written = encode(picture, frames, frames[0].metadata)
  first = next(open_picture(written, 'written').frames())
  assert first.pixels.shape[:2] == frames[0].pixels.shape[:2]


READERS = {
  'image_shape': lambda data: images.image_shape(data, _NAME),
  'read_image': lambda data: images.read_image(data, _NAME),
  'open_picture': _restored,
}


def read(data):
  """Gives an image to each reader; returns how many could read it.

  Raises:
    AssertionError, or what a reader raised: an error that names no file.
  """
  sound = 0
  for reader in READERS.values():
    try:
      reader(data)
      sound += 1
    except ImageError as error:
      line = str(error)
      assert _NAME in line and '\n' not in line, line
  return sound


class Network:
  """Stands for a network: dark becomes light."""

  def check(self, height, width, kept):
    if height * width + kept > 1_000_000:
      raise ValueError('there is too little memory')

  def restore(self, pixels, progress):
    progress(0.5)
    return np.iinfo(pixels.dtype).max - pixels


@contextlib.contextmanager
def _captured(folder):
  """Yields files with all that is printed, by libraries in C too."""
  streams = {'out': sys.stdout, 'err': sys.stderr}
  paths, kept = {}, {}
  for name, stream in streams.items():
    stream.flush()
    paths[name], number = folder / name, {'out': 1, 'err': 2}[name]
    kept[number] = os.dup(number)
    with paths[name].open('wb') as file:
      os.dup2(file.fileno(), number)
  try:
    with (
      os.fdopen(1, 'w', closefd=False) as out,
      os.fdopen(2, 'w', closefd=False) as err,
      contextlib.redirect_stdout(out),
      contextlib.redirect_stderr(err),
    ):
      yield paths
  finally:
    for number, copy in kept.items():
      os.dup2(copy, number)
      os.close(copy)


def derain(files):
  """Runs the command on a folder; returns how many pictures it restored.

  Args:
    files: (kind, bytes) of each.

  Raises:
    AssertionError: a file is neither restored nor named in one line, or there
      is another file or another line.
  """
  with tempfile.TemporaryDirectory() as place:
    place = pathlib.Path(place)
    rainy, dry = place / 'rainy', place / 'dry'
    rainy.mkdir()
    for number, (kind, data) in enumerate(files):
      path = rainy / f'{number}_{kind}.{kind.partition("_")[0]}'
      path.write_bytes(data)
    with (
      mock.patch.object(mixdtp_jax, 'load', lambda *_, **__: Network()),
      mock.patch.object(Image, 'MAX_IMAGE_PIXELS', None),
      mock.patch('signal.signal'),
      _captured(place) as printed,
    ):
      run_command(['derain', str(rainy), '-o', str(dry), '--json'])
    lines = [json.loads(line) for line in printed['out'].open()]
    errors = printed['err'].read_text().splitlines()
    by_status = collections.defaultdict(list)
    for line in lines:
      by_status[line['status']].append(line)
    restored, failed = by_status['restored'], by_status['failed']
    assert len(lines) == len(restored) + len(failed) == number + 1, errors
    for line in failed:
      assert f'error: {line["error"]}' in errors, line
      assert line['input'] in line['error'] and '\n' not in line['error'], line
    others = {e for e in errors if not e.startswith('error: ')}
    known = f'warning: {rainy}', f'{len(restored)} restored', f'{len(failed)} '
    assert all(line.startswith(known) for line in others), others
    assert len(errors) - len(others) == len(failed), errors
    written = {str(path) for path in dry.rglob('*')}
    assert written == {line['output'] for line in restored}, written
    for path in written:
      with Image.open(path) as image:
        image.load()
    return len(restored)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--count', type=int, default=10_000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--keep', type=pathlib.Path, default='broken')
  args = parser.parse_args()
  warnings.simplefilter('ignore')  # Pillow's, of damaged tags
  found = collections.Counter()
  folder = []

  def attempt(use, files):
    faulthandler.dump_traceback_later(_SECONDS, exit=True)
    try:
      return use()
    except Exception as error:  # noqa: BLE001  any error is a finding
      found['broken'] += 1
      print(f'{type(error).__name__}: {error}'[:500])
      args.keep.mkdir(exist_ok=True)
      for number, (kind, data) in enumerate(files):
        (args.keep / f'{found["broken"]}_{number}_{kind}').write_bytes(data)
      return 0
    finally:
      faulthandler.cancel_dump_traceback_later()

  for kind, data in damaged(args.count, args.seed):
    found['read'] += attempt(lambda d=data: read(d), [(kind, data)])
    folder.append((kind, data))
    found['images'] += 1
    if len(folder) == _FOLDER or found['images'] == args.count:
      found['restored'] += attempt(lambda: derain(folder), folder)
      folder.clear()
  print(
    f'{found["images"]:,} images, {len(READERS)} readers and derain: '
    f'{found["read"]:,} times read, {found["restored"]:,} restored, '
    f'{found["broken"]:,} faults'
  )
  sys.exit(bool(found['broken']))


if __name__ == '__main__':
  main()
