"""The documents: sizes, links, and that every command in them exists."""

import contextlib
import functools
import io
import pathlib
import re
import shlex
import subprocess

import pytest

from mixdtp_jax.cli.main import COMMANDS, make_parser
from mixdtp_jax.recipe.config_file import flat_config, load_recipe
from mixdtp_jax.recipe.knobs import as_mapping

REPOSITORY = pathlib.Path(__file__).parents[1]
PAGES = [
  *(REPOSITORY / name for name in ('README.md', 'CONTRIBUTING.md')),
  *sorted((REPOSITORY / 'docs').glob('*.md')),
  *sorted((REPOSITORY / 'examples').rglob('*.md')),
]
# Options of srun and mpirun.
LAUNCHERS = {'--gpus-per-node', '--gpus-per-task', '--signal', '--mca'}
# What stands for a number in a command.
NUMBER = re.compile(r'\$\w+|\bN\b|\bI\b')


def by_name(page: pathlib.Path) -> str:
  return str(page.relative_to(REPOSITORY))


def commands(page: pathlib.Path) -> list[list[str]]:
  """The words after `mixdtp` of every command in a page's shell blocks."""
  found = []
  for block in re.findall(r'```sh\n(.*?)```', page.read_text(), re.DOTALL):
    text = re.sub(r'#.*', '', block.replace('\\\n', ' ')).replace("'", '')
    for line in re.split(r'\n|&&|;', text):
      _, is_one, words = line.partition('mixdtp ')
      if is_one:
        found.append(shlex.split(NUMBER.sub('1', words)))
  return found


def spans(page: pathlib.Path) -> list[str]:
  """What a page prints as code within its text, each on one line."""
  text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
  return [' '.join(code.split()) for code in re.findall(r'`([^`]+)`', text)]


@functools.cache
def help_text(*command: str) -> str:
  out = io.StringIO()
  with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
    make_parser().parse_args([*command, '--help'])
  return out.getvalue()


@functools.cache
def options() -> set[str]:
  """Names of all options of recipes, and of their groups."""
  names = set(flat_config(as_mapping(load_recipe('default'))))
  return names | {name.rpartition('.')[0] for name in names}


def test_readme_has_at_most_200_lines():
  lines = (REPOSITORY / 'README.md').read_text().splitlines()
  assert len(lines) <= 200


def test_pictures_are_small():
  pictures = [
    path
    for path in (REPOSITORY / 'docs').rglob('*')
    if path.suffix in ('.png', '.jpg', '.jpeg', '.webp', '.svg', '.gif')
  ]
  assert pictures
  large = {p.name: p.stat().st_size for p in pictures if p.stat().st_size > 3e5}
  assert not large, f'over 300 kB: {large}'


@pytest.mark.parametrize('page', PAGES, ids=by_name)
def test_relative_links_lead_to_files(page):
  links = re.findall(r'\]\(([^)#\s]+)', page.read_text())
  broken = [
    link
    for link in links
    if '://' not in link and not (page.parent / link).exists()
  ]
  assert not broken


@pytest.mark.parametrize('page', PAGES, ids=by_name)
def test_paths_in_the_text_exist(page):
  missing = [
    code
    for code in spans(page)
    if re.fullmatch(r'(mixdtp_jax|configs|tests|docs)/[\w./]+', code)
    and not (REPOSITORY / code).exists()
  ]
  assert not missing


@pytest.mark.parametrize('page', PAGES, ids=by_name)
def test_commands_can_be_parsed_and_their_recipes_loaded(page):
  for words in commands(page):
    if words == ['--help']:
      continue
    try:
      args = make_parser().parse_args(words)
    except SystemExit:
      pytest.fail(f'mixdtp {shlex.join(words)}')
    if getattr(args, 'config', None):
      load_recipe(args.config, args.overrides)
    files = [word for word in words if word.startswith(('docs/', 'examples/'))]
    assert all((REPOSITORY / file).exists() for file in files), files


@pytest.mark.parametrize('page', PAGES, ids=by_name)
def test_commands_in_the_text_have_the_options_they_name(page):
  for code in spans(page):
    words = code.split()
    if words[:1] != ['mixdtp'] or len(words) < 2 or words[1].isupper():
      continue
    command, rest = words[1], words[2:]
    assert command in COMMANDS, code
    inner = [word for word in rest[:1] if command == 'bench' and word.islower()]
    for word in rest:
      name = word.partition('=')[0]
      if name.startswith('--') and not name.startswith('--config.'):
        assert name in help_text(command, *inner), code


@pytest.mark.parametrize('page', PAGES, ids=by_name)
def test_options_named_alone_are_those_of_some_command(page):
  benchmarks = re.findall(r'^    (\w+)', help_text('bench'), re.MULTILINE)
  helps = [help_text(name) for name in COMMANDS]
  helps += [help_text('bench', name) for name in benchmarks]
  known = set(re.findall(r'--[\w-]+', ' '.join(helps))) | LAUNCHERS
  named = {
    code.partition(' ')[0].partition('=')[0]
    for code in spans(page)
    if code.startswith('--') and not code.startswith('--config.')
  }
  assert named <= known


@pytest.mark.parametrize('page', PAGES, ids=by_name)
def test_options_of_recipes_exist(page):
  for code in spans(page):
    match = re.match(r'(?:--config\.|config\.)?([a-z_.]+)( ?=|$)', code)
    if not match or match[1] == 'config':
      continue
    is_option = code.startswith(('--config.', 'config.')) or (
      match[2] and not code.startswith('-')
    )
    if is_option and match[1].split('.')[0] in {
      name.split('.')[0] for name in options()
    }:
      assert match[1] in options(), code


def test_every_command_is_shown():
  shown = {words[0] for page in PAGES for words in commands(page)}
  assert set(COMMANDS) <= shown


def test_every_recipe_is_in_the_list_of_training():
  listed = set(spans(REPOSITORY / 'docs' / 'training.md'))
  recipes = {path.stem for path in (REPOSITORY / 'configs').glob('[!_]*.py')}
  assert recipes - {'ablation'} <= listed  # that one needs a name behind it


def test_ci_finds_the_tests_command_in_readme():
  ci = (REPOSITORY / '.ci' / 'run').read_text()
  script = re.search(r"sed -n '(.*)' README.md", ci)[1]
  found = subprocess.run(
    ['sed', '-n', script, 'README.md'],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert found.startswith('python3 -m venv .venv')
  assert found.rstrip().endswith(
    '.venv/bin/python -m pytest -n 2 -m "not slow"'
  )
  assert '.venv/bin/python -m pytest -n 2 -m slow\n' in ci  # all the others
