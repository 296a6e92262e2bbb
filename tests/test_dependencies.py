"""What restoring needs stays small: no TensorFlow, and less than 800 MB."""

import tomllib
from importlib import metadata

from packaging.requirements import Requirement

from tests.conftest import REPOSITORY


def _installed(requirements):
  """Returns the distributions that requirements need, by name."""
  found, waiting = {}, [(Requirement(line), '') for line in requirements]
  while waiting:
    requirement, extra = waiting.pop()
    marker = requirement.marker
    if marker and not marker.evaluate({'extra': extra}):
      continue
    distribution = metadata.distribution(requirement.name)
    for extra in ('', *requirement.extras):
      key = requirement.name.lower().replace('_', '-'), extra
      if key not in found:
        found[key] = distribution
        needs = distribution.requires or ()
        waiting += [(Requirement(line), extra) for line in needs]
  return {name: distribution for (name, _), distribution in found.items()}


def test_the_base_is_small():
  project = tomllib.loads((REPOSITORY / 'pyproject.toml').read_text())[
    'project'
  ]
  found = _installed(project['dependencies'])
  assert {'jaxlib', 'scipy', 'tensorstore', 'pillow', 'rich'} <= found.keys()
  for name in ('tensorflow', 'tensorflow-cpu', 'torch', 'matplotlib'):
    assert name not in found
  for name in ('tensorboard', 'tensorflow-datasets', 'scikit-image', 'clu'):
    assert name not in found
  files = [
    file.locate()
    for distribution in found.values()
    for file in distribution.files or ()
  ]
  size = sum(file.stat().st_size for file in files if file.is_file())
  assert 400e6 < size < 800e6
