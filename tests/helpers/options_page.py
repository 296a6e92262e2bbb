"""The tables of docs/options.md, from the table of options in the code.

`python -m tests.helpers.options_page` writes them into the page.
"""

import dataclasses
import pathlib

from mixdtp_jax.models.config import NETWORKS, PReNetConfig, UNetConfig
from mixdtp_jax.recipe.knobs import Data, Loss, Optimizer, Recipe, Schedule
from mixdtp_jax.recipe.rain_ranges import PRESETS, RainRanges

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'options.md'
START, END = '<!-- from the code -->\n', '<!-- end -->\n'


def rules(kind):
  """Yields (name, default, what it needs, rule) of a class's own options."""
  shared = () if kind is UNetConfig else dataclasses.fields(UNetConfig)
  shared = {(field.name, field.default) for field in shared}
  for field in dataclasses.fields(kind):
    rule = field.metadata.get('rule')
    own = (field.name, field.default) not in shared or kind is PReNetConfig
    if rule and own:
      default = PRESETS['mixed'] if kind is RainRanges else kind()
      value = getattr(default, field.name)
      yield kind.prefix + field.name, value, rule.needs(field.type), rule


def table(kind) -> str:
  lines = ['| option | default | values | meaning |', '|---|---|---|---|']
  for name, value, needs, rule in rules(kind):
    unit = rule.unit and f'; {rule.unit}'
    lines.append(f'| `{name}` | `{value!r}` | {needs}{unit} | {rule.meaning} |')
  return '\n'.join(lines) + '\n'


def tables() -> str:
  parts = [
    ('The run', Recipe),
    ('Data', Data),
    ('Rain', RainRanges),
    ('Loss', Loss),
    ('Optimizer', Optimizer),
    ('Learning rate', Schedule),
    ('The network', UNetConfig),
    *((f'The network {name}', kind) for name, kind in NETWORKS.items()),
  ]
  text = ''
  for title, kind in parts:
    about = (kind.__doc__ or '').replace('`add_rain`', 'the program')
    about = '\n'.join(line.strip() for line in about.strip().split('\n'))
    about = about.replace('; see `losses`.', '.')
    text += f'\n## {title}\n\n{about}\n\n{table(kind)}'
  return text + '\n'


def page() -> str:
  """Returns the page with the tables of the code."""
  before, _, rest = PAGE.read_text().partition(START)
  return before + START + tables() + END + rest.partition(END)[2]


if __name__ == '__main__':
  PAGE.write_text(page())
