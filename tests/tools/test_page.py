"""Pages as a parser reads them, and as a browser shows them."""

import base64
import html.parser
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.tools.pages import page

_VOID = {'meta', 'img', 'input'}
_NASTY = '<b title="x">&amp; \'quoted\'</b>'
_RED = np.full((4, 6, 3), (255, 0, 0), np.uint8)
_BLUE = np.full((4, 6, 3), (0.0, 0.0, 0.75), np.float32)


class _Reader(html.parser.HTMLParser):
  """Elements as (tag, attributes, text); fails where tags are not balanced."""

  def __init__(self, content):
    super().__init__()
    self.elements, self._open = [], []
    self.feed(content)
    self.close()
    assert not self._open

  def handle_starttag(self, tag, attrs):
    element = [tag, dict(attrs), '']
    self.elements.append(element)
    if tag not in _VOID:
      self._open.append(element)

  def handle_startendtag(self, tag, attrs):
    self.elements.append([tag, dict(attrs), ''])

  def handle_endtag(self, tag):
    assert self._open.pop()[0] == tag

  def handle_data(self, data):
    if self._open:
      self._open[-1][2] += data

  def get(self, tag, **attributes):
    return [
      element
      for element in self.elements
      if element[0] == tag and attributes.items() <= element[1].items()
    ]

  def texts(self, tag):
    return [text for _, _, text in self.get(tag)]


def _whole_page(label):
  return page.document(
    label,
    page.section(
      label,
      page.paragraph(label),
      page.table([label, 'n'], [[label, '1.5'], [label, '-']]),
      page.line_chart(label, label, label, [(label, [1, 2], [3, 4])]),
      page.picture(label, _RED),
      page.slider(label, _RED, label, _BLUE),
    ),
  )


def test_every_text_is_escaped():
  reader = _Reader(_whole_page(_NASTY))
  assert not reader.get('b')
  for tag in ('title', 'h1', 'h2', 'p', 'th', 'td', 'text', 'figcaption'):
    assert _NASTY in reader.texts(tag), tag
  assert [e[1]['alt'] for e in reader.get('img')] == [_NASTY] * 3
  assert reader.get('svg', **{'aria-label': _NASTY})
  # The same page but for the texts: nothing of them became markup.
  plain = _Reader(_whole_page('plain'))
  tags = [element[0] for element in reader.elements]
  assert tags == [element[0] for element in plain.elements]


def test_a_page_needs_no_other_file():
  content = _whole_page('plain')
  assert content.startswith('<!doctype html>')
  assert 'http:' not in content and 'https:' not in content
  assert '@import' not in content and 'url(' not in content
  reader = _Reader(content)
  for _, attributes, _ in reader.elements:
    assert 'href' not in attributes
    assert attributes.get('src', 'data:').startswith('data:')
  (policy,) = reader.get('meta', **{'http-equiv': 'Content-Security-Policy'})
  assert "default-src 'none'" in policy[1]['content']


def test_columns_of_numbers_are_aligned_right():
  head = ['run', 'PSNR', 'gain', 'loss']
  rows = [
    ['1', '30.1', '+1,000 dB', 'mse'],
    ['2', '-', '', '2 of 3'],
    ['3', 'inf', '-.5', '1'],
  ]
  reader = _Reader(page.table(head, rows))
  assert reader.texts('td') == [cell for row in rows for cell in row]
  for tag, times in (('th', 1), ('td', 3)):
    kinds = [attributes.get('class') for _, attributes, _ in reader.get(tag)]
    assert kinds == [None, 'number', 'number', None] * times
  with pytest.raises(ValueError, match='zip'):
    page.table(['a', 'b'], [['1']])


def _numbers(reader, anchor):
  """Value -> pixel of the tick labels: 'middle' for x, 'end' for y."""
  axis = 'x' if anchor == 'middle' else 'y'
  return {
    float(text.replace(',', '')): float(attributes[axis])
    for _, attributes, text in reader.get('text', **{'text-anchor': anchor})
    if re.fullmatch(r'-?[\d,.]+(e-?\d+)?', text)
  }


def _markers(reader):
  return np.array(
    [
      (float(a['cx']), float(a['cy']))
      for _, a, _ in reader.get('circle')
      if a['r'] != '3.5' or a['cx'] != '15'  # the legend's
    ]
  )


@pytest.mark.parametrize('log', [False, True])
@pytest.mark.parametrize(
  'ys',
  [
    [0.02, 0.5, 7.0],
    [30.01, 30.5, 30.25],
    [1e-9, 1e-3, 1e8],
    [4.0, 4.0, 4.0],
    [1.0, 2.5, 10.0],
  ],
)
def test_points_lie_where_the_ticks_say(ys, log):
  xs = [0, 150_000, 300_000]
  chart = page.line_chart('t', 'x', 'y', [('s', xs, ys)], log_y=log)
  reader = _Reader(chart)
  scale = np.log if log else np.asarray
  markers = _markers(reader)
  for anchor, values, got, change in (
    ('middle', xs, markers[:, 0], np.asarray),
    ('end', ys, markers[:, 1], scale),
  ):
    ticks = _numbers(reader, anchor)
    assert 2 <= len(ticks) <= 11
    value = change(np.array(list(ticks)))
    pixel = np.array(list(ticks.values()))
    assert min(ticks) <= min(values) and max(values) <= max(ticks)
    slope = (pixel[-1] - pixel[0]) / (value[-1] - value[0])
    assert (slope > 0) == (anchor == 'middle')  # to the right, and up
    offset = 4 if anchor == 'end' else 0  # text stands on its baseline
    np.testing.assert_allclose(
      pixel, pixel[0] + slope * (value - value[0]), atol=0.11
    )
    want = pixel[0] + slope * (change(np.array(values)) - value[0]) - offset
    np.testing.assert_allclose(got, want, atol=0.11)
  line = reader.get('polyline')[0][1]['points']
  np.testing.assert_allclose(
    [[float(v) for v in point.split(',')] for point in line.split()], markers
  )


def test_ticks_are_round():
  series = [('s', [0, 6000], [25.31, 33.4])]
  reader = _Reader(page.line_chart('t', 'x', 'y', series))
  assert list(_numbers(reader, 'middle')) == [0, 2000, 4000, 6000]
  assert list(_numbers(reader, 'end')) == [24, 26, 28, 30, 32, 34]
  series = [('s', [0, 0.3], [0.03, 4])]
  reader = _Reader(page.line_chart('t', 'x', 'y', series, log_y=True))
  assert list(_numbers(reader, 'end')) == [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
  # No 0.30000000000000004.
  assert list(_numbers(reader, 'middle')) == [0, 0.1, 0.2, 0.3]


def test_points_without_a_place_are_left_out():
  xs = [0, 1, 2, np.nan, 4, 5]
  ys = [1.0, np.nan, np.inf, 3.0, 0.0, 2.0]
  series = [('s', xs, ys), ('one point', [3], [2])]
  reader = _Reader(page.line_chart('t', 'x', 'y', series))
  assert [t for t in reader.texts('title') if t[0] == 's'] == [
    's: 0, 1', 's: 4, 0', 's: 5, 2',
  ]  # fmt: skip
  assert 'one point: 3, 2' in reader.texts('title')
  reader = _Reader(page.line_chart('t', 'x', 'y', series, log_y=True))
  assert 's: 4, 0' not in reader.texts('title') and len(_markers(reader)) == 3
  for nothing in ([], [('s', [], [])], [('s', [1], [np.nan])]):
    assert 'no points' in page.line_chart('t', 'x', 'y', nothing)
  with pytest.raises(ValueError, match='zip'):
    page.line_chart('t', 'x', 'y', [('s', [1, 2], [1])])


def test_series_look_different_and_as_in_the_legend():
  series = [(f's{i}', [i], [i]) for i in range(20)]
  reader = _Reader(page.line_chart('t', 'x', 'y', series))
  lines = [attributes['style'] for _, attributes, _ in reader.get('g')]
  legend = [attributes['style'] for _, attributes, _ in reader.get('li')]
  assert len(set(lines)) == 20 and lines == legend
  assert reader.texts('span') == [name for name, _, _ in series]


def _pixels(element):
  data = element[1]['src'].removeprefix('data:image/png;base64,')
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_images_are_exact():
  reader = _Reader(page.slider('rainy', _RED, 'clean', _BLUE))
  before, after = reader.get('img')
  np.testing.assert_array_equal(_pixels(before), _RED)
  np.testing.assert_array_equal(_pixels(after), np.round(_BLUE * 255))
  (picture,) = _Reader(page.picture('large', np.zeros((2, 900, 3)))).get('img')
  assert picture[1]['width'] == '900' and 'class' not in picture[1]
  # What is too small to see is shown larger, with its pixels as squares.
  assert before[1]['class'] == 'enlarged'
  width, height = int(before[1]['width']), int(before[1]['height'])
  assert width > 200 and width * 4 == height * 6
  with pytest.raises(ValueError, match='need one shape'):
    page.slider('rainy', _RED, 'clean', _BLUE[:2])


def test_a_page_is_written_as_utf8(tmp_path):
  path = tmp_path / 'new' / 'page.html'
  page.write_page(page.document('é 雨'), path)
  assert 'é 雨' in path.read_text(encoding='utf-8')
  assert [p.name for p in path.parent.iterdir()] == ['page.html']


@pytest.fixture
def browse(tmp_path):
  """Shows a page in a browser; returns it as it is then, and the log."""
  names = ('chromium', 'chromium-browser', 'google-chrome')
  browser = next(filter(None, map(shutil.which, names)), None)
  if browser is None:
    pytest.skip(f'no browser: none of {", ".join(names)} is installed')

  def show(content):
    flags = '--headless --no-sandbox --disable-gpu --enable-logging=stderr'
    # A browser in a container of its own may not read our files.
    data = base64.b64encode(content.encode()).decode()
    result = subprocess.run(
      [
        browser,
        *flags.split(),
        '--v=0',
        f'--user-data-dir={tmp_path}',
        '--dump-dom',
        f'data:text/html;base64,{data}',
      ],
      capture_output=True,
      text=True,
      timeout=120,
      check=True,
    )
    return result.stdout, result.stderr

  return show


# Says where the divider and the edge of the second image are.
_PROBE = """<script>
const input = document.querySelector('.slider input');
const say = (name, value) => document.body.setAttribute(name, value);
const look = (name) => {
  const box = document.querySelector('.slider').getBoundingClientRect();
  const line = document.querySelector('.divider').getBoundingClientRect();
  const middle = (line.left + line.right) / 2;
  say(name, ((middle - box.left) / box.width).toFixed(3) + ' ' +
    getComputedStyle(document.querySelectorAll('.slider img')[1]).clipPath);
};
look('data-before');
input.value = 20;
input.dispatchEvent(new Event('input'));
look('data-after');
</script>"""


def test_a_browser_shows_it_without_a_complaint(browse):
  content = _whole_page('plain').replace('</body>', _PROBE + '</body>')
  shown, log = browse(content)
  assert 'CONSOLE' not in log, log
  (body,) = _Reader(shown).get('body')
  assert body[1]['data-before'] == '0.500 inset(0px 0px 0px 50%)'
  assert body[1]['data-after'] == '0.200 inset(0px 0px 0px 20%)'


@pytest.mark.parametrize(
  'fault',
  ['<script>nonsense()</script>', '<img src="https://example.org/x.png">'],
)
def test_the_browser_would_have_complained(browse, fault):
  content = _whole_page('plain').replace('</body>', fault + '</body>')
  assert 'CONSOLE' in browse(content)[1]
