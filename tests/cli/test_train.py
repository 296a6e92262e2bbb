"""train.py as a user runs it: in a process of its own."""

import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mixdtp_jax.checkpoints import saving
from mixdtp_jax.cli import main
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.runtime.mesh import make_mesh, replicated
from mixdtp_jax.training.start import start_state
from tests.conftest import REPOSITORY
from tests.helpers import tiny

pytestmark = pytest.mark.usefixtures('quick_compiler')

_TESTS = pathlib.Path(__file__).parents[1] / 'helpers'


def _command(*arguments, recipe=_TESTS / 'tiny.py'):
  """train.py with the tiny configuration."""
  script = REPOSITORY / 'train.py'
  return [sys.executable, str(script), f'--config={recipe}', *arguments]


# The tiny configuration, which kills the run inside of a save.
_KILLED = r"""
from tests.helpers import kills
from tests.helpers.tiny import get_config

kills.signal_at(r'/12\.orbax-checkpoint-tmp', 30)
"""


def _check_messages(lines, start):
  """A line for the first, each fourth and the last update; no chatter."""
  updates = [line for line in lines if line.startswith('update ')]
  steps = sorted({start + 1, *range(start + 4 - start % 4, 21, 4)})
  for line, step in zip(updates, steps, strict=True):
    text = rf'update {step} of 20  loss -?0\.\d+  PSNR \d+\.\d\d dB'
    assert re.match(text, line)
  assert re.search(r' dB  \d+\.\d images/s  0 s left$', updates[-1])
  others = [line for line in lines if line not in updates]
  told = (
    'Continuing ',
    'Drawing ',
    'Compiling ',
    'Saving checkpoint ',
    'Evaluated update ',
  )
  for line in others:  # orbax tells on a busy machine that it waited
    assert line.startswith(told) or 'previous save to complete' in line
  assert 'Saving checkpoint 20' in others


@pytest.fixture(scope='module')
def options(environment):
  return {
    'env': environment,
    'capture_output': True,
    'text': True,
    'timeout': 500,
  }


@pytest.fixture(scope='module')
def straight(tiny_pairs, options, tmp_path_factory):
  """The folder of an undisturbed run."""
  workdir = tmp_path_factory.mktemp('straight')
  result = subprocess.run(_command(*_words(workdir, tiny_pairs)), **options)
  assert result.returncode == 0, result.stderr
  _check_messages(result.stderr.splitlines(), 0)
  return workdir


def _words(workdir, pairs):
  return f'--workdir={workdir}', f'--config.data.source={pairs}'


def _state(workdir):
  with saving.Manager(workdir) as manager:
    config = make_recipe(tiny.get_config())
    return start_state(manager, config, replicated(make_mesh()))


@pytest.mark.slow
def test_a_killed_run_continues_as_if_it_had_not_been(
  tiny_pairs, straight, options, tmp_path
):
  workdir, killed = tmp_path / 'run', tmp_path / 'killed.py'
  killed.write_text(_KILLED)
  words = _words(workdir, tiny_pairs)
  result = subprocess.run(_command(*words, recipe=killed), **options)
  assert result.returncode == -signal.SIGKILL, result.stderr
  assert list(workdir.glob('checkpoints/12.orbax-checkpoint-tmp*'))
  assert not (workdir / 'results').exists()

  result = subprocess.run(_command(*words), **options)
  assert result.returncode == 0, result.stderr
  assert 'Continuing from the checkpoint of update 8' in result.stderr
  _check_messages(result.stderr.splitlines(), 8)
  # All that a run tells on stdout is its scores.
  assert re.search(r'^y +\d+\.\d+ / ', result.stdout, re.MULTILINE)
  assert 'mean over 3 images' in result.stdout

  continued = _state(workdir)
  assert continued.step == 20
  # The rate of every update is another one, so a wrong count would show.
  jax.tree.map(np.testing.assert_array_equal, continued, _state(straight))
  for name in ('results.csv', 'comparison.png'):
    expected = (straight / 'results' / name).read_bytes()
    assert (workdir / 'results' / name).read_bytes() == expected


@pytest.mark.slow
def test_sigterm_saves_and_is_a_good_end(tiny_pairs, environment, tmp_path):
  workdir, recipe = tmp_path / 'run', tmp_path / 'prenet.py'
  recipe.write_text(
    'from tests.helpers.tiny import get_prenet_config as get_config\n'
  )
  with open(tmp_path / 'output.txt', 'w+') as output:
    process = subprocess.Popen(
      _command(
        *_words(workdir, tiny_pairs),
        '--config.num_train_steps=100000',  # it is stopped long before
        '--config.checkpoint_every_steps=3',
        '--config.eval_every_steps=0',
        recipe=recipe,
      ),
      env=environment,
      stdout=output,
      stderr=subprocess.STDOUT,
    )
    try:
      deadline = time.monotonic() + 500
      while not any(p.name.isdigit() for p in workdir.glob('checkpoints/*')):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
      process.terminate()
      assert process.wait(60) == 0
    finally:
      process.kill()
    output.seek(0)
    text = output.read()
  (step,) = re.findall(r'Stopped by SIGTERM after update (\d+) of', text)
  assert (workdir / 'checkpoints' / step).is_dir()
  assert 'Traceback' not in text


def test_an_unknown_option_is_one_line(tmp_path):
  result = subprocess.run(
    _command('--workdir=run', '--config.data.nam', 'x'),
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert line.startswith('error: --config.data.nam is an unknown option; did')
  assert not result.stdout
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--config.batch_size=x'], "batch_size = 'x': needs a whole number"),
    (['--config.batch_size=9'], 'batch_size'),  # of eight devices
    (['--config.model.steps=-1'], 'model.steps = -1'),
    (['--config.optimizer.eps=0'], 'optimizer.eps = 0.0: needs a number, from'),
    (['--config.data.name=rain100'], "data.name = 'rain100': needs one of"),
    (['--config.data.source=/nowhere'], '/nowhere'),
    (['--config.init_from=/nowhere'], '/nowhere'),
    (['--process_id=1'], '--coordinator'),
    (['--profile=11'], '--profile 11: the first 10 updates are not traced'),
  ],
)
def test_errors_are_one_line(tiny_pairs, tmp_path, capsys, words, message):
  config = f'--config={_TESTS / "tiny.py"}'
  source = f'--config.data.source={tiny_pairs}'
  workdir = f'--workdir={tmp_path / "run"}'
  assert main.run_command(['train', config, workdir, source, *words]) == 1
  output = capsys.readouterr()
  line = output.err.splitlines()[-1]
  assert line.startswith('error: ')
  assert message in line
  assert 'Traceback' not in output.err
  assert not output.out


def test_ctrl_c_is_one_line(monkeypatch, capsys):
  def interrupt(args):
    raise KeyboardInterrupt

  monkeypatch.setattr(main.COMMANDS['train'], 'run', interrupt)
  words = ['train', '--config=demo', '--workdir=run']
  assert main.run_command(words) == 130
  assert capsys.readouterr().err == 'stopped by Ctrl-C\n'


@pytest.mark.slow
def test_the_demo_needs_no_files(environment, tmp_path):
  """The README's first command, with less of everything."""
  result = subprocess.run(
    [
      sys.executable,
      'train.py',
      '--config=configs/demo.py',
      f'--workdir={tmp_path}',
      '--config.num_train_steps=10',
      '--config.schedule.warmup_steps=4',
      '--config.model.width=4',
      '--config.model.heads=(1,1,1,1)',
      '--config.model.recurrent_width=4',
      '--config.model.steps=1',
      '--config.data.crop=16',
      '--config.batch_size=2',
    ],
    env=environment | {'XLA_FLAGS': ''},  # one device, as a user has
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    timeout=500,
  )
  assert result.returncode == 0, result.stderr
  assert 'mean over 4 images' in result.stdout
  assert (tmp_path / 'results' / 'comparison.png').is_file()
