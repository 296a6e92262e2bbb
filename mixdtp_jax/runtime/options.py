"""Options: fields of frozen dataclasses, with their range, unit and meaning.

The fields are the table of options: they are checked by it, and the documents
show it.
"""

import dataclasses
import difflib
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

_WORDS = {int: 'whole number', float: 'number', str: 'text'}
# Whole numbers have 31 bits, as sizes of arrays have; others are finite in
# float32.
_LIMITS = {int: 2**31 - 1, float: (2 - 2**-23) * 2.0**127}


@dataclasses.dataclass(frozen=True)
class Rule:
  """Which values an option takes, and what they mean."""

  meaning: str  # what the option does, without a full stop
  unit: str = ''  # of numbers, such as 'pixels'
  least: float | None = None  # the smallest number, also of those in a tuple
  most: float | None = None  # the largest number
  multiple: int = 1  # a number that divides the option's
  choices: tuple[str, ...] = ()  # all texts that are allowed; () allows any
  form: str = ''  # what a tuple consists of, in words

  def needs(self, kind: Any) -> str:
    """Says in words which values of a type the option takes."""
    if kind is bool:
      return 'True or False'
    if self.choices:
      return f'one of {", ".join(self.choices)}'
    text = self.form or _in_words(kind)
    if self.least is not None and self.most is not None:
      limits = f'from {self.least:g} to {self.most:g}'
    elif self.least is not None:
      limits = f'at least {self.least:g}'
    elif self.most is not None:
      limits = f'at most {self.most:g}'
    else:
      return text
    text += f', {limits}'
    return text + (f', a multiple of {self.multiple}' * (self.multiple > 1))

  def takes(self, value: Any) -> bool:
    """Returns whether a value of the right type is in the range."""
    if self.choices and value not in self.choices:
      return False
    return all(
      (-_LIMITS[type(n)] if self.least is None else self.least)
      <= n
      <= (_LIMITS[type(n)] if self.most is None else self.most)
      and (self.multiple == 1 or n % self.multiple == 0)
      for n in _numbers(value)
    )


def option(default: Any, meaning: str, **rule: Any) -> Any:
  """Makes a field of a class of `Options`; for `rule` see `Rule`."""
  metadata = {'rule': Rule(meaning, **rule)}
  return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Options:
  """Base of frozen dataclasses whose fields are options or groups of them.

  `prefix` stands before the names of the fields, such as 'data.'.
  """

  prefix: ClassVar[str] = ''

  def __post_init__(self):
    """Gives every value its type: lists become tuples, whole numbers floats.

    ValueError if a value is of another type, or out of its range.
    """
    for field in dataclasses.fields(self):
      if (rule := field.metadata.get('rule')) is None:
        continue
      value = getattr(self, field.name)
      try:
        typed = _typed(value, field.type)
        fits = rule.takes(typed)
      except (TypeError, ValueError, OverflowError):
        fits = False
      self.require(fits, field.name, rule.needs(field.type))
      object.__setattr__(self, field.name, typed)

  def require(self, holds: bool, name: str, needs: str) -> None:
    """Raises ValueError for the option `name` unless `holds`."""
    if not holds:
      value = repr(getattr(self, name))
      raise ValueError(f'{self.prefix}{name} = {value:.200}: needs {needs}')


_Options = TypeVar('_Options', bound=Options)


def build(
  kind: type[_Options],
  values: Mapping[str, Any],
  required: Collection[str] = (),
) -> _Options:
  """Builds options of a class from a mapping, in which groups are mappings.

  What is missing, and not `required`, has its default. ValueError if a name is
  unknown or missing, or a value does not fit.
  """
  if not isinstance(values, Mapping):
    raise ValueError(
      f'{kind.prefix[:-1]} = {values!r:.200}: needs a group of options'
    )
  fields = {field.name: field.type for field in dataclasses.fields(kind)}
  if unknown := sorted(set(values) - set(fields)):
    raise ValueError(
      f'unknown option {kind.prefix}{unknown[0]}'
      f'{did_you_mean(unknown[0], fields)}'
    )
  if missing := sorted(set(required) - set(values)):
    raise ValueError(f'missing option {kind.prefix}{missing[0]}')
  groups = {
    name: build(group, values[name])
    for name, group in fields.items()
    if name in values and isinstance(group, type) and issubclass(group, Options)
  }
  return kind(**{**values, **groups})


def _typed(value: Any, kind: Any) -> Any:
  if parts := typing.get_args(kind):
    if not isinstance(value, list | tuple):
      raise TypeError
    if parts[-1] is ...:
      parts = parts[:1] * len(value)
    return tuple(_typed(v, p) for v, p in zip(value, parts, strict=True))
  if kind is float and type(value) is int:
    return float(value)
  if type(value) is not kind:
    raise TypeError
  return value


def _numbers(value: Any) -> Iterator[int | float]:
  if isinstance(value, tuple):
    for part in value:
      yield from _numbers(part)
  elif type(value) in _LIMITS:
    yield value


def _in_words(kind: Any) -> str:
  if parts := typing.get_args(kind):
    count = '' if parts[-1] is ... else f'{len(parts)} '
    return f'{count}{_WORDS[parts[0]]}s'
  return f'a {_WORDS[kind]}'


def did_you_mean(name: str, names: Iterable[str]) -> str:
  """Returns '; did you mean NEAREST?', or '' if no name is near."""
  near = difflib.get_close_matches(name, list(names), n=1)
  return f'; did you mean {near[0]}?' if near else ''
