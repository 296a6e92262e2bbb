import os
import pathlib

import pytest

from mixdtp_jax.restoration.folders import make_plan


@pytest.fixture
def here(tmp_path, monkeypatch):
  """A folder to work in, with files of these names."""
  monkeypatch.chdir(tmp_path)

  def make(*names):
    for name in names:
      path = pathlib.Path(name)
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(b'picture')

  return make


def pairs(plan):
  return {job.source.as_posix(): job.target.as_posix() for job in plan.jobs}


def test_results_lie_beside_the_inputs(here):
  here('a.jpg', 'b.v2.PNG', 'in/c.tif')
  assert pairs(make_plan(['a.jpg', 'b.v2.PNG', 'in/c.tif'])) == {
    'a.jpg': 'a_derained.jpg',
    'b.v2.PNG': 'b.v2_derained.PNG',
    'in/c.tif': 'in/c_derained.tif',
  }


def test_a_folder_keeps_names_and_structure(here):
  here('in/a.jpg', 'in/x/b.png', 'in/x/notes.txt', 'in/.c.png', 'in/.d/e.png')
  assert pairs(make_plan(['in'], 'out')) == {
    'in/a.jpg': 'out/a.jpg',
    'in/x/b.png': 'out/x/b.png',
  }
  assert pairs(make_plan(['in'], 'out', format='WEBP')) == {
    'in/a.jpg': 'out/a.webp',
    'in/x/b.png': 'out/x/b.webp',
  }


def test_patterns_keep_what_is_below_their_fixed_part(here):
  here('in/x/a.png', 'in/y/z/a.png', 'in/b.txt', 'in/b.png')
  assert pairs(make_plan(['in/*/a.png'], 'out')) == {
    'in/x/a.png': 'out/x/a.png'
  }
  assert set(pairs(make_plan(['in/**'], 'out')).values()) == {
    'out/b.png',
    'out/x/a.png',
    'out/y/z/a.png',
  }


def test_an_input_that_is_given_twice_is_restored_once(here):
  here('in/x/a.png')
  inputs = ['in', 'in/x', 'in/x/a.png', './in/x/a.png', os.path.abspath('in')]
  for output in (None, 'out'):
    assert pairs(make_plan(['in', inputs[-1]], output)).keys() == {'in/x/a.png'}
  assert len(make_plan(inputs).jobs) == 1


def test_signs_of_patterns_in_names(here):
  here('a[1].png', 'a1.png', 'what?.png')
  assert pairs(make_plan(['a[1].png', 'what?.png'], 'out')) == {
    'a[1].png': 'out/a[1].png',
    'what?.png': 'out/what?.png',
  }


def test_one_input_may_become_a_file(here):
  here('a.png')
  (job,) = make_plan(['a.png'], 'b.jpg').jobs
  assert (job.target, job.format) == (pathlib.Path('b.jpg'), 'JPEG')
  assert pairs(make_plan(['a.png'], 'out')) == {'a.png': 'out/a.png'}
  assert pairs(make_plan(['a.png'], 'v1.5/')) == {'a.png': 'v1.5/a.png'}
  pathlib.Path('old.jpg').mkdir()
  assert pairs(make_plan(['a.png'], 'old.jpg')) == {'a.png': 'old.jpg/a.png'}


def test_the_output_folder_is_not_read(here):
  here('in/a.png', 'in/out/a.png', 'in/out/x/a.png', 'in/outside/b.png')
  expected = {
    'in/a.png': 'in/out/a.png',
    'in/outside/b.png': 'in/out/outside/b.png',
  }
  for inputs in (['in'], ['in/**']):
    assert pairs(make_plan(inputs, 'in/out', overwrite=True)) == expected
  # But a folder below the output folder is, if it is given.
  here('all/in/a.png')
  for inputs in (['all/in'], ['all/in/*.png']):
    assert pairs(make_plan(inputs, 'all')) == {'all/in/a.png': 'all/a.png'}


def test_what_exists_is_skipped(here):
  here('in/a.png', 'in/b.png', 'out/a.png')
  plan = make_plan(['in'], 'out')
  assert pairs(plan) == {'in/b.png': 'out/b.png'}
  assert [job.source for job in plan.done] == [pathlib.Path('in/a.png')]
  assert len(make_plan(['in'], 'out', overwrite=True).jobs) == 2
  here('out/b_compare.jpg')
  first, second = make_plan(['in'], 'out', compare=True).jobs
  assert (first.kept, first.sheet.name) == (True, 'a_compare.jpg')
  assert (second.kept, second.sheet) == (False, None)


def test_results_are_not_restored_again(here):
  here('in/a.png', 'in/a_derained.png', 'in/a_compare.jpg', 'in/b_derained.png')
  plan = make_plan(['in'])
  assert pairs(plan) == {'in/b_derained.png': 'in/b_derained_derained.png'}
  assert plan.results == 2
  assert [job.source for job in plan.done] == [pathlib.Path('in/a.png')]
  assert len(make_plan(['in'], 'out').jobs) == 4


def test_sheets_get_names_of_their_own(here):
  here('in/a.png')
  (job,) = make_plan(['in'], compare=True).jobs
  assert job.sheet == pathlib.Path('in/a_compare.jpg')
  (job,) = make_plan(['in'], 'out', compare=True).jobs
  assert job.sheet == pathlib.Path('out/a_compare.jpg')


@pytest.mark.parametrize(
  ('inputs', 'output', 'options', 'message'),
  [
    (['x/a.png', 'y/a.png'], 'out', {}, r'x/a\.png and y/a\.png would both'),
    (['x', 'y'], 'out', {}, r'x/a\.png and y/a\.png would both become'),
    (['x'], None, {'format': 'WEBP'}, r'x/a\.jpg and x/a\.png would both'),
    (['x'], None, {'compare': True}, r'would both become x/a_compare\.jpg'),
    (['x/a.png'], 'x/a.png', {}, r'x/a\.png would be overwritten'),
    (['x'], 'x', {'overwrite': True}, r'x/a\.jpg would be overwritten'),
    (['x'], 'all.png', {}, 'several inputs need a folder, such as -o all/'),
    (['x/*.png'], 'all.png', {}, 'several inputs need a folder'),
    (['x/a.png'], 'a.xyz', {}, r'\.xyz is no format .* folder that ends in /'),
    (['x/a.png'], 'a.jpg', {'format': 'PNG'}, 'ends like JPEG.*drop one'),
    (['x/a.png'], 'z', {}, r'z/a\.png is a folder'),
    (['x/a.png', 'w/A.png'], 'out', {}, 'out/a.png and out/A.png, .* in case'),
  ],
)
def test_what_would_collide_is_refused(here, inputs, output, options, message):
  here('x/a.png', 'x/a.jpg', 'y/a.png', 'w/A.png')
  os.makedirs('z/a.png')
  with pytest.raises(ValueError, match=message):
    make_plan(inputs, output, **options)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('absent.png', r'absent\.png: no such file'),
    ('in', 'in has no pictures, which are .* .png'),
    ('vids', r"vids has no pictures, .*for its clips give 'vids/x/\*\.mp4'"),
    ('*.png', r'\*\.png: no picture matches'),
    ('https://rain.org/a.png', 'addresses are not read; download'),
  ],
)
def test_missing_inputs_are_named(here, text, message):
  here('in/notes.txt', 'vids/x/a.mp4')
  with pytest.raises(FileNotFoundError, match=message):
    make_plan([text])


def test_a_home_folder_is_found(here, monkeypatch):
  here('in/a.png')
  monkeypatch.setenv('HOME', os.getcwd())
  monkeypatch.setenv('USERPROFILE', os.getcwd())
  (job,) = make_plan(['~/in/a.png'], '~/out/').jobs
  assert job.source == pathlib.Path.cwd() / 'in/a.png'
  assert job.target == pathlib.Path.cwd() / 'out/a.png'


def test_a_link_counts_as_its_file(here):
  here('in/a.png')
  os.symlink('a.png', 'in/b.png')
  os.symlink('absent', 'in/c.png')
  os.symlink('.', 'in/again')  # a folder in itself
  assert len(make_plan(['in'], 'out').jobs) == 3
  with pytest.raises(ValueError, match='would be overwritten'):
    make_plan(['in/a.png'], 'in/b.png')


def test_another_spelling_of_a_source_is_not_overwritten(here):
  """Where case does not count, A.JPG is a.jpg: here one file has both names."""
  here('in/A.JPG')
  os.link('in/A.JPG', 'in/A.jpg')
  with pytest.raises(ValueError, match=r'in/A\.JPG would be overwritten'):
    make_plan(['in/A.JPG'], 'in', format='JPEG', overwrite=True)


def test_a_file_in_the_way_of_the_output_folder_is_named(here):
  here('in/a.png', 'file')
  with pytest.raises(PermissionError, match='file/out: nothing can be written'):
    make_plan(['in'], 'file/out')


def test_strange_names(here):
  names = ['in/-n.png', 'in/ü.png', os.fsdecode(b'in/\xff.png'), 'in/a\nb.png']
  here(*names)
  assert set(pairs(make_plan(['in'], 'out'))) == set(names)
