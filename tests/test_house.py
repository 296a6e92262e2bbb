"""The order of the rooms: every import points downwards, in no circle."""

import ast
import pathlib
import re

import mixdtp_jax

PACKAGE = pathlib.Path(mixdtp_jax.__file__).parent

# A room may import from itself and from the rooms before it.
ROOMS = (
  'runtime',
  'ops',
  'models',
  'recipe',
  'configs',
  'data',
  'checkpoints',
  'weights',
  'restoration',
  'evaluation',
  'training',
  'measure',
  'torch_reference',
  'tools',
  'cli',
)


def modules() -> dict[str, pathlib.Path]:
  """Every module of the package by its dotted name."""
  found = {}
  for path in sorted(PACKAGE.rglob('*.py')):
    parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
    found['.'.join(parts).removesuffix('.__init__')] = path
  for path in (PACKAGE / 'configs').glob('*.py'):  # rglob follows no link
    found[f'mixdtp_jax.configs.{path.stem}'.removesuffix('.__init__')] = path
  return found


def imports(path: pathlib.Path, known) -> set[str]:
  """Modules of the package that a file imports, inside functions too."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative imports hide their room'
      for alias in node.names:
        whole = f'{node.module}.{alias.name}'
        found.add(whole if whole in known else node.module)
  return {name for name in found if name in known}


def room(module: str) -> int:
  """The room's place in the order; the door and __main__ are the last."""
  parts = module.split('.')
  return ROOMS.index(parts[1]) if parts[1:2] != ['__main__'] else len(ROOMS)


def test_every_folder_is_a_room():
  folders = {
    path.name
    for path in PACKAGE.iterdir()
    if path.is_dir() and path.name != '__pycache__'
  }
  assert folders == set(ROOMS)
  files = {path.name for path in PACKAGE.glob('*.py')}
  assert files <= {'__init__.py', '__main__.py'}


def test_the_tests_have_the_same_rooms():
  tests = {p.parent.name for p in pathlib.Path(__file__).parent.glob('*/*.py')}
  assert tests - {'helpers', 'campaigns'} <= set(ROOMS)


def test_every_import_points_to_a_room_before():
  known = modules()
  upward = [
    f'{name} imports {other}'
    for name, path in known.items()
    if name != 'mixdtp_jax'
    for other in imports(path, known)
    if other != 'mixdtp_jax' and room(other) > room(name)
  ]
  assert not upward, '\n'.join(upward)


def test_tensorflow_is_imported_where_it_is_kept_off_gpus():
  own = PACKAGE / 'data' / 'tf.py'
  importers = [
    path
    for path in modules().values()
    if re.search(r'^\s*(import|from) tensorflow', path.read_text(), re.M)
  ]
  assert importers == [own]


def test_there_are_no_circles():
  known = modules()
  wanted = {name: imports(path, known) - {name} for name, path in known.items()}
  while leaves := [
    n for n, others in wanted.items() if not others & wanted.keys()
  ]:
    for name in leaves:
      del wanted[name]
  assert not wanted, f'in or above a circle: {sorted(wanted)}'
