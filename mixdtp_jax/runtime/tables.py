"""Tables on the console, the same in every command.

On a terminal, `show` uses bold type, a rule under the head, and as many lines
as a long cell needs. Into a pipe or a file it prints `str(table)`, which
programs can read: a line a row, columns two spaces or more apart, '-' for an
empty cell, no colour and no limit to the width.

    Scores
    protocol   PSNR   SSIM
    rgb       37.48  0.979
    y         39.02      -
    Mean over 100 images; PSNR in dB.
"""

import dataclasses
import functools
import io
import re
import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.table import Table as RichTable

# Of a column that is aligned right; '2 of 3' and '30.1 / 0.9' begin so, too.
_NUMBER = re.compile(r'([-+±]?(\d|\.\d|inf|nan)|-$)')
# A console for which nothing in a name is markup or a code for a picture.
_Console = functools.partial(
  Console, markup=False, emoji=False, highlight=False
)


@dataclasses.dataclass(frozen=True)
class Table:
  """A table whose rows begin with their names."""

  title: str  # line above the table; '' for none
  head: Sequence[str]  # names of the columns; all '' for a table without a head
  rows: Sequence[Sequence[str | None]]  # cells; None and '' are printed as '-'
  note: str = ''  # text below the table

  def __str__(self) -> str:
    text = io.StringIO()
    console = _Console(file=text, width=10**6, color_system=None)
    console.print(self.rich(no_wrap=True))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return '\n'.join(filter(None, (self.title, *lines, self.note)))

  def rich(self, box: Box | None = None, no_wrap: bool = False) -> RichTable:
    """Returns the head and the rows; columns of numbers are aligned right."""
    table = RichTable(
      box=box,
      padding=(0, 2, 0, 0),
      pad_edge=False,
      show_edge=False,
      show_header=any(self.head),
    )
    rows = [
      [' '.join((cell or '').split()) or '-' for cell in row]
      for row in self.rows
    ]
    for i, (name, *cells) in enumerate(zip(self.head, *rows, strict=True)):
      numbers = i > 0 and all(map(_NUMBER.match, cells))
      table.add_column(
        name, justify='right' if numbers else 'left', no_wrap=no_wrap
      )
    for row in rows:
      table.add_row(*row)
    return table


def show(*blocks: Table | str) -> None:
  """Prints tables and paragraphs, with empty lines between them."""
  if not sys.stdout.isatty():
    print('\n\n'.join(map(str, blocks)), flush=True)
    return
  console = _Console()
  for number, block in enumerate(blocks):
    if number:
      console.print()
    if isinstance(block, str):
      console.print(block)
      continue
    if block.title:
      console.print(block.title, style='bold')
    console.print(block.rich(SIMPLE_HEAD))
    if block.note:
      console.print(block.note, style='dim')
