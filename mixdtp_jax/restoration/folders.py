"""Which pictures and clips are restored, and where the results go.

All is decided before the first one is decoded.
"""

import contextlib
import dataclasses
import glob
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mixdtp_jax.data.images import name_of
from mixdtp_jax.restoration.encoding import ENDINGS, ending_of, format_of
from mixdtp_jax.runtime.files import is_writable, local_path

RESTORED, COMPARED = '_derained', '_compare'  # ends of names
CLIP_ENDINGS = (
  '.3g2', '.3gp', '.asf', '.avi', '.divx', '.dv', '.f4v', '.flv', '.h264',
  '.hevc', '.ivf', '.m2ts', '.m2v', '.m4v', '.mj2', '.mkv', '.mov', '.mp4',
  '.mpeg', '.mpg', '.mts', '.mxf', '.nut', '.ogv', '.rm', '.rmvb', '.ts',
  '.vob', '.webm', '.wmv', '.wtv', '.y4m',
)  # fmt: skip
_WILD = '*?['


@dataclasses.dataclass(frozen=True)
class Job:
  """A picture or clip to restore."""

  source: Path | bytes  # the file to read, or its bytes
  target: Path | None  # the file to write; None for standard output
  sheet: Path | None  # the before/after sheet to write
  format: str  # of the picture to write; '' for that of the source
  size: int  # of the source, in bytes, as a measure of the work
  kept: bool = False  # the target exists and stays; only the sheet is made
  clip: bool = False  # whether it is a video


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is restored, in order, and what is left out."""

  jobs: Sequence[Job]
  done: Sequence[Job] = ()  # whose results exist already
  results: int = 0  # inputs that are results of this command


class _Input(NamedTuple):
  path: Path
  below: Path  # its place below the folder that was given


def make_plan(
  inputs: Sequence[str],
  output: str | None = None,
  *,
  format: str = '',
  compare: bool = False,
  overwrite: bool = False,
  codec: str = 'h264',
) -> Plan:
  """Decides which file becomes which.

  Args:
    inputs: files, folders, of which all pictures below are meant, and patterns.
    output: a file, for one input that is a file, or a folder, in which names
      and folders are kept; None writes NAME_derained.EXT beside each input.
    format: of pictures, such as 'PNG'; '' for that of each input.
    compare: whether to write sheets, too.
    overwrite: whether to redo what exists.
    codec: of clips, which keep their container if that holds it.

  Raises:
    FileNotFoundError: an input is not there, or has no pictures.
    PermissionError: nothing can be written into a folder.
    ValueError: two inputs would have one output, or an input would be
      overwritten.
  """
  file, folder = places(inputs, output, format)
  found = list(dict.fromkeys(_find(inputs, folder)))
  ours = _results_among(each.path for each in found) if output is None else ()
  unique: dict[Any, Job] = {}
  for each in found:
    if each.path not in ours:
      job = _job(each, file, folder, format, compare, codec)
      unique.setdefault((_file(job.source), _plain(job.target)), job)
  jobs = list(unique.values())
  _check_collisions(jobs)
  for folder in {job.target.parent for job in jobs if job.target}:
    if not is_writable(folder):
      raise PermissionError(
        f'{name_of(folder)}: nothing can be written there; give another folder '
        'by -o'
      )
  if not overwrite:
    jobs = list(map(_without_what_exists, jobs))
  return Plan(
    [job for job in jobs if job.sheet or not job.kept],
    [job for job in jobs if job.kept and not job.sheet],
    sum(each.path in ours for each in found),
  )


def is_clip(path: Path) -> bool:
  """Returns whether a file is a video: by its name, or else its content."""
  if path.suffix.lower() in CLIP_ENDINGS:
    return True
  if format_of(path.name) or not path.is_file():
    return False
  try:
    from mixdtp_jax.restoration import clips
  except ModuleNotFoundError:  # PyAV, which is an extra
    return False
  return clips.is_video(path)


def _results_among(paths: Iterable[Path]) -> set[Path]:
  """Returns the files that have the name of a result of another one."""
  paths = list(paths)
  ours = {
    (p.parent, p.stem + end) for p in paths for end in (RESTORED, COMPARED)
  }
  return {path for path in paths if (path.parent, path.stem) in ours}


def _without_what_exists(job: Job) -> Job:
  sheet = job.sheet if job.sheet and not job.sheet.exists() else None
  kept = bool(job.target and job.target.exists())
  return dataclasses.replace(job, sheet=sheet, kept=kept)


def places(
  inputs: Sequence[str], output: str | None, format: str
) -> tuple[Path | None, Path | None]:
  """Returns the file, or the folder, that results go to; see `make_plan`."""
  if output is None:
    return None, None
  path = Path(local_path(output))
  as_folder = path.is_dir() or output.endswith(('/', os.sep))
  if as_folder or (not path.suffix and not path.exists()):
    return None, path
  first, *others = inputs
  if others or _is_wild(first) or os.path.isdir(os.path.expanduser(first)):
    raise ValueError(
      f'-o {output}: several inputs need a folder, such as -o '
      f'{path.with_suffix("")}{os.sep}'
    )
  if is_clip(Path(os.path.expanduser(first))):
    return path, None
  if not (named := format_of(path.name)):
    raise ValueError(
      f'-o {output}: {path.suffix or "no ending"} is no format that is '
      f'written: use one of {" ".join(ENDINGS)}, or a folder that ends in '
      f'{os.sep}'
    )
  if format and named != format:
    raise ValueError(
      f'-o {output} ends like {named}, and --format is {format}: drop one'
    )
  return path, None


def _job(found, file, folder, format, compare, codec) -> Job:
  source, clip = found.path, is_clip(found.path)
  ending = ending_of(format) if format else source.suffix
  if clip:
    from mixdtp_jax.restoration.clip_files import HOLDS  # needs PyAV

    if codec not in HOLDS.get(source.suffix.lower(), ()):
      ending = '.mkv'
  if file:
    target, format = file, format_of(file.name)
  elif folder:
    target = folder / found.below.with_suffix(ending)
  else:
    target = source.with_name(f'{source.stem}{RESTORED}{ending}')
  stem = target.stem.removesuffix(RESTORED)
  sheet = target.with_name(f'{stem}{COMPARED}.jpg') if compare else None
  size = source.stat().st_size if source.exists() else 0
  return Job(source, target, sheet, format, size, clip=clip)


def _find(inputs: Sequence[str], output: Path | None) -> Iterator[_Input]:
  """Finds the files that the inputs name, without those below `output`."""
  for text in inputs:
    path = Path(text)
    if not path.exists():
      path = Path(os.path.expanduser(text))
    if path.is_dir():
      found = list(_pictures_below(path, output))
      if not found:
        files = sorted(path.rglob('*'))
        clips = [f for f in files if f.suffix.lower() in CLIP_ENDINGS]
        similar = [name_of(f.with_name(f'*{f.suffix}')) for f in clips[:1]]
        raise FileNotFoundError(
          f'{name_of(path)} has no pictures, which are files that end in '
          f'{" ".join(ENDINGS)}'
          + ''.join(f"; for its clips give '{like}'" for like in similar)
        )
      yield from (_Input(file, file.relative_to(path)) for file in found)
    elif path.exists():
      yield _Input(path, Path(path.name))
    elif _is_wild(text):
      yield from _matches(path, output)
    elif '://' in text:
      raise FileNotFoundError(f'{text}: addresses are not read; download it')
    else:
      raise FileNotFoundError(f'{name_of(path)}: no such file or folder')


def _matches(pattern: Path, output: Path | None) -> list[_Input]:
  fixed = Path()
  for part in pattern.parts[:-1]:
    if any(sign in part for sign in _WILD):
      break
    fixed /= part
  kind = 'clip' if pattern.suffix.lower() in CLIP_ENDINGS else 'picture'
  wanted = is_clip if kind == 'clip' else _is_picture
  paths = map(Path, sorted(glob.glob(str(pattern), recursive=True)))
  found = [_Input(p, p.relative_to(fixed)) for p in paths if wanted(p)]
  if output and _is_below(output, fixed):
    found = [each for each in found if not _is_below(each.path, output)]
  if not found:
    raise FileNotFoundError(f'{name_of(pattern)}: no {kind} matches')
  return found


def _pictures_below(folder: Path, output: Path | None) -> Iterator[Path]:
  """Yields the pictures below a folder, without hidden ones, in order."""

  def fail(error: OSError) -> None:
    raise error

  output = output and output.resolve()
  for place, folders, names in os.walk(folder, onerror=fail):
    folders[:] = sorted(
      name
      for name in folders
      if not name.startswith('.') and Path(place, name).resolve() != output
    )
    yield from filter(_is_picture, (Path(place, n) for n in sorted(names)))


def _is_picture(path: Path) -> bool:
  hidden = path.name.startswith('.')
  return not hidden and bool(format_of(path.name)) and not path.is_dir()


def _is_below(path: Path, folder: Path) -> bool:
  return folder.resolve() in path.resolve().parents


def _is_wild(text: str) -> bool:
  return any(sign in text for sign in _WILD) and not Path(text).exists()


def _check_collisions(jobs: Sequence[Job]) -> None:
  sources = {_file(job.source): job.source for job in jobs}
  writers: dict[str, tuple[Path | bytes, Path]] = {}
  for job in jobs:
    for file in filter(None, (job.target, job.sheet)):
      if source := sources.get(_file(file)):
        raise ValueError(
          f'{name_of(source)} would be overwritten by a result: give another '
          'folder by -o'
        )
      if file.is_dir():
        raise ValueError(
          f'{name_of(file)} is a folder, where a result would be: rename it'
        )
      other, first = writers.setdefault(_plain(file), (job.source, file))
      if other != job.source:
        become = f'both become {name_of(file)}'
        if first.name != file.name:
          become = (
            f'become {name_of(first)} and {name_of(file)}, whose names differ '
            'only in case and are one file on many systems'
          )
        raise ValueError(
          f'{name_of(other)} and {name_of(job.source)} would {become}: restore '
          'them apart, each with its own -o'
        )


def _file(path: Path | bytes) -> tuple[int, int] | str:
  """Returns what is equal for all names of one file."""
  with contextlib.suppress(OSError):  # it is not there
    found = os.stat(path)
    if found.st_ino:  # some file systems do not number their files
      return found.st_dev, found.st_ino
  return _plain(path)


def _plain(path: Path | bytes | None) -> str:
  """Returns a text that is equal for names that are one on some system."""
  text = str(os.path.realpath(path or ''))
  return unicodedata.normalize('NFC', text).casefold()
