"""Amounts of memory as people write them."""

import re

_UNITS = {
  '': 1,
  'k': 10**3,
  'm': 10**6,
  'g': 10**9,
  't': 10**12,
  'ki': 2**10,
  'mi': 2**20,
  'gi': 2**30,
  'ti': 2**40,
}
_SIZE = re.compile(r'(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]i?|)b?', re.IGNORECASE)


def parse_bytes(text: str) -> int:
  """Reads an amount of memory, such as 2GB, 1.5 GiB, 800M or 1000000.

  Raises:
    ValueError: the text is no such amount, is 0, or is below 1000000 without a
      unit.
  """
  match = _SIZE.fullmatch(text.strip())
  size = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
  if not size:
    raise ValueError(f'{text!r} is no amount of memory, such as 2GB or 800MB')
  if size < 10**6 and not text.strip()[-1].isalpha():
    raise ValueError(f'{text!r} has no unit: {text.strip()}GB?')
  return size
