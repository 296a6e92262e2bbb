"""Results as a table, CSV, JSON and PNG files.

Every file is written under a temporary name in its folder and then renamed,
so that a file which exists is whole. Folders are made as needed.
"""

import contextlib
import csv
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mixdtp_jax.evaluate import Row, mean_row
from mixdtp_jax.metrics import Score

if TYPE_CHECKING:  # writing an image alone needs no TensorFlow
  from mixdtp_jax.data.folders import Pairs

_GAP = 8  # pixels between panels
_COMPARED = 3  # images that Panels shows


def format_table(rows: Sequence[Row]) -> str:
  """Mean PSNR and SSIM by protocol: of the input, the result, and the gain.

  The single images are in the CSV and JSON files.
  """
  mean = mean_row(rows)
  head = ('protocol', 'input', 'restored', 'gain')
  lines = [('', *('PSNR / SSIM' for _ in head[1:]))]
  for name, before in mean.input.items():
    after = mean.restored[name]
    gain = Score(*(new - old for new, old in zip(after, before, strict=True)))
    lines.append(
      (
        name,
        f'{before.psnr:.4f} / {before.ssim:.4f}',
        f'{after.psnr:.4f} / {after.ssim:.4f}',
        f'{gain.psnr:+.4f} / {gain.ssim:+.4f}',
      )
    )
  text = [
    f'{first:<8}' + ''.join(f'{cell:>20}' for cell in cells)
    for first, *cells in (head, *lines)
  ]
  return '\n'.join([*text, f'mean over {len(rows)} images; PSNR in dB'])


def write_csv(rows: Sequence[Row], path: str | os.PathLike) -> None:
  """One line an image; columns name, PROTOCOL_{input,restored}_{psnr,ssim}.

  Full precision; the PSNR of identical images is written as inf.
  """
  table = [{'name': row.name, **_columns(row)} for row in rows]
  with replacing(path) as temporary, open(temporary, 'w', newline='') as file:
    writer = csv.DictWriter(file, list(table[0]))
    writer.writeheader()
    writer.writerows(table)


def _columns(row: Row) -> dict[str, float]:
  return {
    f'{protocol}_{which}_{field}': value
    for protocol in row.input
    for which in ('input', 'restored')
    for field, value in getattr(row, which)[protocol]._asdict().items()
  }


def write_json(
  rows: Sequence[Row],
  path: str | os.PathLike,
  context: Mapping[str, Any],
  published: Mapping[str, Any] | None = None,
) -> None:
  """{'context', 'published', 'mean': row, 'images': [row, ...]}, `dump_json`'s.

  A row is {'name', 'input', 'restored'}, the latter two {protocol: {'psnr',
  'ssim'}}.
  """
  content = {
    'context': dict(context),
    'published': dict(published or {}),
    'mean': _as_dict(mean_row(rows)),
    'images': [_as_dict(row) for row in rows],
  }
  dump_json(content, path)


def dump_json(content: Mapping[str, Any], path: str | os.PathLike) -> None:
  """Writes an object as JSON.

  JSON has no infinity and no NaN: they become the strings 'inf', '-inf' and
  'nan', which Python's float() reads back.
  """
  with replacing(path) as temporary, open(temporary, 'w') as file:
    json.dump(_json_safe(content), file, indent=2, allow_nan=False)
    file.write('\n')


def _as_dict(row: Row) -> dict[str, Any]:
  scores = {
    which: {name: s._asdict() for name, s in getattr(row, which).items()}
    for which in ('input', 'restored')
  }
  return {'name': row.name, **scores}


def _json_safe(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {str(key): _json_safe(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_json_safe(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value


def image_path(folder: str | os.PathLike, name: str) -> pathlib.Path:
  """FOLDER/NAME.png; a name such as 'a/b' keeps its folders.

  Raises:
    ValueError: the name is empty or leads out of the folder.
  """
  parts = pathlib.PurePosixPath(name).parts
  if not parts or '..' in parts or parts[0] == '/':
    raise ValueError(
      f'image name {name!r} is not a path inside the output folder'
    )
  return pathlib.Path(folder, *parts[:-1], f'{parts[-1]}.png')


def write_png(image: np.ndarray, path: str | os.PathLike) -> None:
  """Writes (H, W, 3): uint8, or float in [0, 1], which is rounded."""
  with replacing(path) as temporary:
    Image.fromarray(to_uint8(image)).save(temporary, format='PNG')


def to_uint8(image: np.ndarray) -> np.ndarray:
  """(H, W, 3), uint8 or float in [0, 1], as uint8: clamped and rounded.

  Raises:
    ValueError: the image has another shape, or values that are not finite.
  """
  image = np.asarray(image)
  if image.ndim != 3 or image.shape[2] != 3:
    raise ValueError(f'image of shape {image.shape}: needs (H, W, 3)')
  if image.dtype == np.uint8:
    return image
  if not np.isfinite(image).all():
    raise ValueError('the image has values that are not finite')
  # In float32, as protocol rgb8 rounds: both see the same image.
  scaled = np.float32(255) * np.clip(image.astype(np.float32), 0, 1)
  return np.round(scaled).astype(np.uint8)


def side_by_side(images: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
  """Labelled images in one row, (H', W', 3) uint8 on white.

  Args:
    images: (label, image) pairs, each as for `write_png`; heights may differ.

  Raises:
    ValueError: there are no images, or one is not (H, W, 3).
  """
  if not images:
    raise ValueError('no images to put side by side')
  panels = [(label, to_uint8(image)) for label, image in images]
  tallest = max(image.shape[0] for _, image in panels)
  font = ImageFont.load_default(size=max(12, tallest // 20))
  boxes = [font.getbbox(label) for label, _ in panels]
  strip = round(max(box[3] for box in boxes)) + _GAP
  widths = [
    max(image.shape[1], round(box[2]))
    for (_, image), box in zip(panels, boxes, strict=True)
  ]
  size = (sum(widths) + _GAP * (len(panels) - 1), strip + tallest)
  canvas = Image.new('RGB', size, 'white')
  draw = ImageDraw.Draw(canvas)
  left = 0
  for (label, image), width in zip(panels, widths, strict=True):
    draw.text((left, _GAP // 2), label, fill='black', font=font)
    canvas.paste(Image.fromarray(image), (left, strip))
    left += width + _GAP
  return np.asarray(canvas)


class Panels:
  """Keeps rainy, restored and clean of the first images, side by side.

  `add` is the `save` of `evaluate`: it also writes each restored image to
  FOLDER/images, where there is a folder.
  """

  def __init__(self, pairs: 'Pairs', folder: str | os.PathLike | None) -> None:
    """Takes the first few pairs of what is going to be evaluated."""
    first = [pairs[i] for i in range(min(_COMPARED, len(pairs)))]
    self._pairs = {pair['name']: pair for pair in first}
    self._pictures = {}
    self._folder = folder

  def add(self, name: str, restored: np.ndarray) -> None:
    """Takes a restored image (H, W, 3) float in [0, 1]."""
    if self._folder is not None:
      folder = os.path.join(self._folder, 'images')
      write_png(restored, image_path(folder, name))
    if name in self._pairs:
      pair = self._pairs[name]
      self._pictures[name] = side_by_side(
        [
          (f'{name}: rainy', pair['rainy']),
          ('restored', restored),
          ('clean', pair['clean']),
        ]
      )

  @property
  def image(self) -> np.ndarray:
    """What was added of the first images, below each other: (H, W, 3) uint8.

    Raises:
      ValueError: none of them was added.
    """
    if not self._pictures:
      raise ValueError('none of the first images was restored')
    width = max(picture.shape[1] for picture in self._pictures.values())
    return np.concatenate(
      [
        np.pad(
          picture,
          ((0, _GAP), (0, width - picture.shape[1]), (0, 0)),
          constant_values=255,
        )
        for picture in self._pictures.values()
      ]
    )


def write_results(
  folder: str | os.PathLike,
  rows: Sequence[Row],
  image: np.ndarray,
  context: Mapping[str, Any],
  published: Mapping[str, Any] | None = None,
) -> list[pathlib.Path]:
  """Writes results.csv, results.json and comparison.png, and returns them.

  Args:
    folder: is made if need be.
    rows: of the images.
    image: `Panels.image`.
    context: what the rows are of; anything that JSON holds.
    published: `published.placement` of the means, where they have one.
  """
  names = ('results.csv', 'results.json', 'comparison.png')
  paths = [pathlib.Path(folder, name) for name in names]
  write_csv(rows, paths[0])
  write_json(rows, paths[1], context, published)
  write_png(image, paths[2])
  return paths


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[str]:
  """A temporary name to write; it becomes `path`, or goes on an error."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # A folder of our own gives the new file the permissions of any other.
  with tempfile.TemporaryDirectory(
    dir=path.parent, prefix='.writing-'
  ) as folder:
    temporary = os.path.join(folder, path.name)
    yield temporary
    os.replace(temporary, path)
