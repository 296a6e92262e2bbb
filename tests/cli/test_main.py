"""What every command does alike: its help, its options and its errors."""

import argparse
import subprocess
import sys

import pytest

from mixdtp_jax.cli import errors, main
from tests.conftest import REPOSITORY

# What takes long to import.
HEAVY = {
  'clu', 'flax', 'jax', 'jaxlib', 'matplotlib', 'numpy', 'orbax', 'scipy',
  'skimage', 'tensorboard', 'tensorflow', 'tensorflow_datasets', 'torch',
}  # fmt: skip
BENCHMARKS = (
  'data', 'device', 'growth', 'inference', 'profile', 'restoring', 'start',
  'training',
)  # fmt: skip
HELPS = [
  [],
  *([name] for name in main.COMMANDS),
  *(['bench', name] for name in BENCHMARKS),
]


def imported_by(*commands, cwd, platform='cpu'):
  """Runs commands in one new process: what it imported, and JAX's backends."""
  program = (
    'import sys\n'
    'from mixdtp_jax.cli.main import run_command\n'
    f'for words in {list(map(list, commands))!r}:\n'
    '  try:\n'
    '    assert run_command(words) == 0, words\n'
    '  except SystemExit as error:\n'
    '    assert error.code == 0, words\n'
    "print('imported', *{name.partition('.')[0] for name in sys.modules})\n"
    "bridge = sys.modules.get('jax._src.xla_bridge')\n"
    "print('backends', *(bridge._backends if bridge else ()))\n"
  )
  result = subprocess.run(
    [sys.executable, '-c', program],
    cwd=cwd,
    env={'PYTHONPATH': str(REPOSITORY), 'JAX_PLATFORMS': platform},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == 0, result.stderr
  *output, modules, backends = result.stdout.splitlines()
  return '\n'.join(output), set(modules.split()), backends.split()[1:]


def test_help_imports_nothing_heavy(tmp_path):
  output, modules, _ = imported_by(
    *([*words, '--help'] for words in HELPS), cwd=tmp_path
  )
  assert not modules & HEAVY
  for words in HELPS:
    assert f'usage: {" ".join(["mixdtp", *words])} ' in output


def test_what_needs_no_device_starts_no_backend(tiny_pairs, tmp_path):
  output, modules, backends = imported_by(
    ['prepare', 'pairs', '--source', str(tiny_pairs), '--data_dir', 'data'],
    ['audit', f'pairs={tiny_pairs}'],
    ['convert', 'general', '--to', 'general.safetensors'],
    cwd=tmp_path,
  )
  assert 'tensorflow' in modules
  assert not backends
  assert output.startswith('pairs: ')  # and TFDS printed nothing before
  assert (tmp_path / 'audit.json').is_file()


@pytest.mark.slow
def test_showing_and_converting_runs_leave_accelerators_alone(
  tiny_run, tmp_path
):
  workdir = str(tiny_run.workdir)
  _, _, backends = imported_by(
    ['runs', workdir, '--out', 'runs'],
    ['convert', workdir, '--to', 'weights'],
    cwd=tmp_path,
    platform='cuda',  # of which there may be none
  )
  assert backends == ['cpu']
  assert (tmp_path / 'runs').is_dir() and (tmp_path / 'weights').is_dir()


@pytest.mark.slow
def test_restoring_converting_and_planning_need_no_tensorflow(
  tiny_run, tiny_pairs, tmp_path
):
  recipe = REPOSITORY / 'tests' / 'helpers' / 'tiny_prenet.py'
  rainy = tiny_pairs / 'test' / 'rainy' / '0.png'
  _, modules, backends = imported_by(
    ['convert', str(tiny_run.workdir), '--to', 'weights'],
    ['derain', str(rainy), '--weights', 'weights', '-o', 'dry.png'],
    ['plan', f'--config={recipe}', '--out', 'plan.json'],
    cwd=tmp_path,
  )
  assert not modules & {'tensorflow', 'tensorflow_datasets', 'clu', 'torch'}
  assert backends == ['cpu']
  assert (tmp_path / 'weights').is_dir()
  assert (tmp_path / 'dry.png').is_file()
  assert (tmp_path / 'plan.json').is_file()


@pytest.mark.parametrize(
  ('words', 'line'),
  [
    (['trian'], '; did you mean train?'),
    (['bench', 'trainign'], '; did you mean training?'),
    ([str(REPOSITORY)], f'to restore {REPOSITORY}: mixdtp derain {REPOSITORY}'),
    (
      ['train', '--config=demo'],
      'required: --workdir, as in: mixdtp train --config=demo --workdir=runs/d',
    ),
    (['derain'], 'required: INPUT, as in: mixdtp derain holiday.jpg (see'),
    (['serve', '--port=99999'], '99999: needs a number from 0 to 65535'),
    (['serve', '--port=80x'], '--port: 80x: needs a number from 0 to 65535'),
    (
      ['train', '--config=demo', '--worddir=x'],
      'unknown option --worddir; did you mean --workdir?',
    ),
    (['eval', '--weight=x'], 'unknown option --weight; did you mean --weights'),
    (
      ['eval', '--weights=x', '--config.seed=1'],
      'unknown option --config.seed',
    ),
    (['convert', 'a', 'b', '--to=c'], 'unexpected argument b'),
    (['plan', '--config=demo', '--config.seed'], '--config.seed needs a value'),
    (['bench', 'start', '--repeats=0'], 'needs at least 1'),
    (['bench', 'data', '--config.seed', '--out=x'], '--config.seed needs a'),
  ],
)
def test_words_that_do_not_fit_are_one_line(words, line, capsys):
  with pytest.raises(SystemExit, match='2'):
    main.run_command(words)
  output = capsys.readouterr()
  (told,) = output.err.splitlines()
  assert told.startswith('error: ')
  assert line in told
  assert not output.out


@pytest.mark.parametrize(
  'words',
  [
    ['--config.model.width=8', '--config.data.source', 'a=b'],
    ['--config.model.width', '8', '--config.data.source=a=b'],
  ],
)
@pytest.mark.parametrize(
  'command',
  [
    ['train', '--workdir=x'],
    ['plan'],
    ['compare', '--random=1', '--out=x'],
    *(['bench', name] for name in BENCHMARKS),
  ],
)
def test_every_recipe_takes_its_options_in_both_spellings(command, words):
  args = main.make_parser().parse_args([*command, '--config=demo', *words])
  assert args.config == 'demo'
  assert args.overrides == ['model.width=8', 'data.source=a=b']


def test_without_a_command_the_help_is_shown(capsys):
  with pytest.raises(SystemExit, match='2'):
    main.run_command([])
  assert 'Take the rain out of pictures' in capsys.readouterr().err


def test_rain_is_not_written_as_png_under_another_name(tmp_path, capsys):
  target = tmp_path / 'rain.jpg'
  picture = str(REPOSITORY / 'docs' / 'rainy.jpg')
  assert main.run_command(['rain', picture, '--to', str(target)]) == 1
  assert 'rain.jpg: needs a name that ends with .png' in capsys.readouterr().err
  assert not target.exists()


def explained(function, command='train'):
  try:
    function()
  except Exception as error:  # noqa: BLE001 - any, as the program does
    return errors.explain(error, command)
  raise AssertionError('no error')


def test_a_package_that_is_missing_names_its_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  monkeypatch.setitem(sys.modules, 'skimage', None)
  assert explained(lambda: __import__('tensorflow_datasets')) == (
    f'tensorflow_datasets is not installed: {sys.executable} -m pip install '
    f"-e '{REPOSITORY}[train]'"
  )
  assert explained(lambda: __import__('mixdtp_jax.nothing')) is None
  # Of a package that is there but broken.
  broken = "No module named 'nothing'"
  assert explained(lambda: __import__('nothing')) == broken
  for command, extra in ('derain', 'video'), ('audit', 'train'):
    line = explained(lambda: __import__('skimage'), command)
    assert line.startswith('skimage is not installed: ')
    assert line.endswith(f"[{extra}]'")


def test_an_error_of_a_library_is_no_users_error():
  def bug():
    raise ValueError('shapes differ')

  assert explained(bug) is None
  assert explained(lambda: {}['x']) is None


def test_errors_that_users_cause_are_one_line(tmp_path):
  from mixdtp_jax.recipe.config_file import load_recipe

  recipe = tmp_path / 'mine.py'
  recipe.write_text('def get_config():\n  return undefined\n')
  assert explained(lambda: load_recipe(recipe)) == (
    f"{recipe}, line 2: NameError: name 'undefined' is not defined"
  )
  assert explained((tmp_path / 'gone').read_text) == (
    f'{tmp_path / "gone"}: No such file or directory'
  )

  def exhausted():
    raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory\nAllocator (GPU_0)')

  assert 'too little memory' in explained(exhausted)
  assert '\n' not in explained(exhausted)


def options_of(parser):
  for action in parser._actions:
    if isinstance(action, argparse._SubParsersAction):
      for command in action.choices.values():
        yield from options_of(command)
    else:
      yield parser.prog, action


@pytest.mark.parametrize(
  ('prog', 'action'),
  [
    pytest.param(prog, action, id=f'{prog} {action.dest}')
    for prog, action in options_of(main.make_parser())
    if action.metavar in ('DIR', 'FILE', 'FOLDER', 'WORKDIR')
    or (prog, action.dest) == ('mixdtp rain', 'to')
  ],
)
def test_a_folder_or_file_is_local(prog, action, monkeypatch, tmp_path):
  """A URL is refused before the work, and ~ is the home folder."""
  monkeypatch.setenv('HOME', str(tmp_path))
  with pytest.raises(argparse.ArgumentTypeError, match='gs://b/x is a URL'):
    action.type('gs://b/x')
  assert action.type('~/x') == str(tmp_path / 'x')
  if action.dest in ('json', 'out', 'plot', 'to'):
    (tmp_path / 'file').touch()
    with pytest.raises(argparse.ArgumentTypeError, match='can be written'):
      action.type('~/file/x')


def test_a_url_is_refused_in_one_line(capsys):
  with pytest.raises(SystemExit) as caught:
    main.run_command(['rain', 'a.png', '--to', 'gs://bucket/x'])
  assert caught.value.code == 2
  assert 'gs://bucket/x is a URL' in capsys.readouterr().err
