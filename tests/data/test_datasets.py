import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from mixdtp_jax.data import images, matching
from mixdtp_jax.data.datasets import registry, writing
from mixdtp_jax.data.threads import map_in_threads
from mixdtp_jax.runtime import files
from tests.campaigns import prepared as campaign
from tests.helpers.image_files import save


@pytest.fixture
def source(tmp_path):
  for number, name in enumerate(('a.png', 'c.jpg', 'b.png')):
    for split in ('train', 'test'):
      for side in ('rainy', 'clean'):
        save(tmp_path / 'source' / split / side / name, seed=number)
  return tmp_path / 'source'


def prepare(source, crop=32, data_dir=None, **options):
  data_dir = str(data_dir or source.parent / 'data')
  source = source and str(source)
  return registry.prepare(
    'pairs', source=source, data_dir=data_dir, crop=crop, **options
  )


def open_split(source, split, crop=32):
  data_dir = source.parent / 'data'
  return registry.open_split(
    'pairs',
    source=str(source),
    data_dir=str(data_dir),
    split=split,
    crop=crop,
  )


def test_keeps_the_files_and_their_order(source):
  pairs = open_split(source, 'train')
  found = matching.find_pairs(source / 'train')
  assert [pairs[i]['name'] for i in range(len(pairs))] == ['a', 'b', 'c']
  for index, file in enumerate(found):
    assert pairs.shape(index) == (36, 40)
    for side in ('rainy', 'clean'):
      image = images.read_image(getattr(file, side))
      np.testing.assert_array_equal(pairs[index][side], image)


def test_prepares_once(source):
  folder = prepare(source).data_path
  times = {p: p.stat().mtime for p in folder.iterdir()}
  assert prepare(source).data_path == folder
  assert {p: p.stat().mtime for p in folder.iterdir()} == times


def test_a_host_that_finishes_second_takes_the_first_copy(source, monkeypatch):
  move = registry._move

  def overtaken(*ours):
    monkeypatch.setattr(registry, '_move', move)
    prepare(source)  # another host's whole preparation, in the middle of ours
    assert ours[0].exists()  # was not taken for a leftover
    move(*ours)

  monkeypatch.setattr(registry, '_move', overtaken)
  assert len(registry.PreparedPairs(prepare(source), 'train')) == 3
  assert [p.name for p in (source.parent / 'data/pairs').iterdir()] == ['1.0.0']


def damage_partner(source):
  (source / 'train/clean/b.png').unlink()


def damage_size(source):
  save(source / 'train/clean/b.png', (40, 37))


def damage_crop(source):
  for side in ('rainy', 'clean'):
    save(source / f'train/{side}/b.png', (40, 31))


def damage_mode(source):
  save(source / 'train/clean/b.png', mode='L')


def damage_bytes(source):
  path = source / 'train/clean/b.png'
  path.write_bytes(path.read_bytes()[:-300])


def test_a_changed_source_is_noticed_and_prepared_again(source):
  before = prepare(source).data_path
  path = source / 'train/clean/a.png'
  pixels, times = path.read_bytes(), path.stat()
  os.utime(path, (1, 1))  # as a copied folder has it
  prepare(source)
  save(path, seed=7)
  changed = r'source has changed since .*data/pairs was .*{}.* --again'
  with pytest.raises(ValueError, match=changed.format('replaced')):
    prepare(source)
  with pytest.raises(ValueError, match=changed.format('replaced')):
    open_split(source, 'test')
  with pytest.raises(ValueError, match=changed.format('replaced')):
    prepare(None, data_dir=source.parent / 'data')  # that of the copy
  path.write_bytes(pixels)
  os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
  prepare(source)
  save(source / 'train/clean/d.png', seed=3)
  with pytest.raises(ValueError, match=changed.format('without a rainy image')):
    prepare(source)
  save(source / 'train/rainy/d.png', seed=3)
  with pytest.raises(ValueError, match=changed.format('added')):
    prepare(source)
  assert len(registry.PreparedPairs(prepare(source, again=True), 'train')) == 4
  assert len(open_split(source, 'train')) == 4
  source.rename(source.with_name('gone'))  # is no change
  assert len(open_split(source, 'train')) == 4
  assert [p.name for p in before.parent.iterdir()] == ['1.0.0']


def test_any_name_of_the_same_source_will_do(source, monkeypatch):
  data_dir = source.parent / 'data'
  monkeypatch.chdir(source)
  for name in ('.', './', f'{source}/', '../source'):
    registry.prepare('pairs', source=name, data_dir=str(data_dir))
    os.utime('train/clean/a.png', (1, 1))  # reads the files once more
  prepare(None, data_dir=data_dir)
  [copy] = (data_dir / 'pairs').iterdir()
  written = copy.stat()
  source.rename(source.with_name('moved'))
  source.symlink_to(source.with_name('moved'))
  prepare(None, data_dir=data_dir)
  assert copy.stat().st_ino == written.st_ino  # was not prepared again


def test_a_failed_second_preparation_leaves_the_first(source):
  prepare(source)
  damage_bytes(source)
  with pytest.raises(ValueError, match='cannot be decoded'):
    prepare(source, again=True)
  data_dir = str(source.parent / 'data')
  pairs = registry.open_split(
    'pairs', source='', data_dir=data_dir, split='train'
  )
  assert pairs[1]['clean'].shape == (36, 40, 3)


def test_damaged_copies_are_named_or_give_what_was_written(tmp_path):
  outcomes = campaign.copies(200, tmp_path)
  assert min(outcomes['refused'], outcomes['the same']) > 5


def test_a_copy_of_an_older_version_is_read(source):
  path = pathlib.Path(prepare(source).data_path)
  (path / 'seal.json').unlink()
  info = json.loads((path / 'metadata.json').read_text())
  for name in ('listing', 'contents'):
    del info[name]
  (path / 'metadata.json').write_text(json.dumps(info))
  save(source / 'train/clean/a.png', seed=7)
  assert len(open_split(source, 'train')) == 3


def test_images_are_decoded_within_the_memory(tmp_path):
  for number in range(6):
    for folder in ('train/rainy', 'train/clean', 'test/rainy', 'test/clean'):
      save(tmp_path / 'source' / folder / f'{number}.png', (300, 200))
  decoding, most = writing._BYTES_PER_PIXEL * 300 * 200, []
  memory = writing._Memory(2.5 * decoding / 2**20)
  together = threading.Barrier(2, timeout=20)  # breaks if only one has room

  def work(_):
    with memory.taken(decoding, 'x'):
      most.append(memory._free)
      together.wait()

  assert len(list(map_in_threads(work, range(8)))) == 8
  assert min(most) == decoding // 2
  with pytest.raises(
    ValueError, match=r'0\.png takes about 0 MiB .*--memory_mb'
  ):
    prepare(tmp_path / 'source', memory_mb=0.5)
  prepare(tmp_path / 'source', memory_mb=1)


def damage_pipe(source):
  (source / 'train/clean/b.png').unlink()
  os.mkfifo(source / 'train/clean/b.png')


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (damage_pipe, r'clean/b\.png is not a file but a folder, pipe or device'),
    (damage_partner, r'without a clean image: .*rainy/b\.png'),
    (damage_size, r'b: the rainy image is 40x36'),
    (damage_crop, r'b.*b\.png.* side of 31.*data\.crop = 32'),
    (damage_mode, r'clean/b\.png is not RGB'),
    (damage_bytes, r'clean/b\.png cannot be decoded'),
  ],
)
def test_stops_at_a_bad_file_and_leaves_nothing(source, damage, message):
  damage(source)
  with pytest.raises(ValueError, match=message):
    prepare(source)
  data = source.parent / 'data'
  assert not [p for p in data.rglob('*') if p.is_file()]
  for side in ('rainy', 'clean'):
    (source / f'train/{side}/b.png').unlink(missing_ok=True)
    save(source / f'train/{side}/b.png')
  assert len(open_split(source, 'train')) == 3


def test_a_validation_split(source):
  (source / 'test').rename(source / 'val')
  with pytest.raises(FileNotFoundError, match='has train/, val/; expected'):
    prepare(source)
  (source / 'test').symlink_to(source / 'train')
  assert list(prepare(source).info.splits) == ['train', 'val', 'test']


def test_small_test_images_are_fine(source):
  for side in ('rainy', 'clean'):
    save(source / f'test/{side}/b.png', (9, 8))
  assert open_split(source, 'test').shape(1) == (8, 9)


def test_refuses_a_copy_of_another_source(source):
  prepare(source)
  other = source.rename(source.parent / 'other')
  with pytest.raises(ValueError, match=r"prepared from '.*source', not from"):
    prepare(other)
  pairs = registry.open_split(
    'pairs', source='', data_dir=str(source.parent / 'data'), split='test'
  )
  assert len(pairs) == 3


def test_refuses_a_copy_with_images_below_the_crop(source):
  prepare(source)
  with pytest.raises(ValueError, match=r'side of 36 .*data\.crop = 37'):
    prepare(source, crop=37)


def test_refuses_unknown_names_and_splits(source):
  with pytest.raises(ValueError, match=r"'rain'.*pairs, .*rain100l"):
    registry.prepare('rain', source='', data_dir=str(source.parent))
  with pytest.raises(ValueError, match=r"no split 'val', only test, train"):
    open_split(source, 'val')


def test_says_what_a_folder_of_pairs_lacks(source):
  with pytest.raises(
    FileNotFoundError, match='clean/, rainy/; expected, in .*train: rainy with'
  ):
    prepare(source / 'train')


def test_large_sets_are_in_several_files(source, monkeypatch):
  for number in range(20):
    for side in ('rainy', 'clean'):
      save(source / f'train/{side}/{number}.png', seed=number)
  monkeypatch.setattr(writing, '_SHARD', 7)
  pairs = open_split(source, 'train')
  names = [pairs[i]['name'] for i in range(len(pairs))]
  assert names == [*map(str, range(20)), 'a', 'b', 'c']
  shards = list((source.parent / 'data/pairs/1.0.0').glob('pairs-train*'))
  assert len(shards) == 4


_WRITES = """
import pathlib, sys
from mixdtp_jax.runtime import files
folder = pathlib.Path(sys.argv[1])
with files.locked(folder), files.working_folder(folder, clean=False) as new:
  print(new, flush=True)
  sys.stdin.read()
"""


def test_removes_what_a_killed_process_left_unless_one_writes(source, caplog):
  folder = source.parent / 'data/pairs'
  users, older = folder / 'incomplete.scans', folder / 'incomplete.ABC'
  (users / 'notes').mkdir(parents=True)
  left = [
    older,
    folder / '.writing-another_machine-999999999-x',
    folder / f'{files._writing()}{os.getppid()}-x',  # a number in use again
  ]
  for path in left:
    (path / '1.0.0').mkdir(parents=True)
  with subprocess.Popen(
    [sys.executable, '-c', _WRITES, folder],
    cwd=pathlib.Path(__file__).parents[2],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as other:
    theirs = pathlib.Path(other.stdout.readline().strip())
    assert len(open_split(source, 'train')) == 3
    assert {*folder.iterdir()} == {folder / '1.0.0', users, theirs, *left}
    assert 'is being written by another process' in caplog.text
    other.kill()
  assert theirs.exists()
  (folder / '1.0.0').rename(older / 'old')  # as a killed --again leaves it
  shutil.rmtree(source)
  data_dir = str(folder.parent)
  assert registry.prepare('pairs', source='', data_dir=data_dir)
  assert {*folder.iterdir()} == {folder / '1.0.0', users}
  assert (users / 'notes').exists()
  # Killed after the new copy was in its place, which the user then deletes.
  older.mkdir()
  (folder / '1.0.0').rename(older / 'old')
  with pytest.raises(FileNotFoundError, match='has no prepared pairs'):
    registry.prepare('pairs', source='', data_dir=data_dir)
  assert {*folder.iterdir()} == {users}


def test_numbers_of_processes_decide_without_locks(source, monkeypatch):
  monkeypatch.setattr(files, 'fcntl', None)  # as on Windows
  folder = source.parent / 'data/pairs'
  left = folder / f'{files._writing()}999999999-x'
  others = [
    folder / f'{files._writing()}{os.getppid()}-x',
    folder / '.writing-another_machine-999999999-x',
    folder / 'scans',
  ]
  for path in (left, *others):
    (path / '1.0.0').mkdir(parents=True)
  assert len(open_split(source, 'train')) == 3
  assert {*folder.iterdir()} == {folder / '1.0.0', *others}
  assert all((path / '1.0.0').exists() for path in others)


@pytest.mark.parametrize('killed', [False, True])
def test_a_copy_survives_a_replacement_that_fails(source, monkeypatch, killed):
  path = pathlib.Path(prepare(source).data_path)
  real = pathlib.Path.rename

  def fails(self, target):
    if target == path and self.name == '1.0.0':
      if killed:
        real(path.parent, path.parents[1] / 'killed')  # nothing cleans up
      raise OSError('lost')
    return real(self, target)

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, 'rename', fails)
    with pytest.raises(OSError, match='lost'):
      prepare(source, again=True)
  if killed:
    (path.parents[1] / 'killed').rename(path.parent)
    assert not path.exists()
  shutil.rmtree(source)  # it cannot be made again
  opened = registry.open_split(
    'pairs', source='', data_dir=str(path.parents[1]), split='train'
  )
  assert len(opened) == 3
  assert [p.name for p in path.parent.iterdir()] == ['1.0.0']


def test_a_data_dir_that_cannot_be_is_refused_before_the_work(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(PermissionError, match='nothing can be written there'):
    registry.prepare(
      'photographs', source='', data_dir=str(tmp_path / 'file' / 'data')
    )
