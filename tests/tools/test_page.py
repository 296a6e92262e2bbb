"""Pages as a parser reads them, and as a browser shows them."""

import base64
import html.parser
import io
import re
import shutil
import subprocess
import xml.etree.ElementTree

import jinja2
import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.runtime.tables import Table
from mixdtp_jax.tools.pages import page
from mixdtp_jax.tools.pages.chart import Chart, svg_file, svg_in_page

_VOID = {'meta', 'img', 'input'}
_NASTY = '<b title="x">&amp; \'quoted\' {{ 1 }} $x$ é 雨</b>'
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


def _render(path, label):
  """Both pages, with this text wherever a page has text."""
  table = Table(label, (label, 'n'), [(label, '1.5'), (label, None)], label)
  chart = Chart(label, label, label, [(label, [1, 2], [3, 4])])
  red, blue = page.picture(label, _RED), page.picture(label, _BLUE)
  page.write_page(
    'compare.html',
    path / 'compare.html',
    summary=label,
    settings={label: label},
    tables=[table],
    losses=chart,
    images=[{'name': label, 'sliders': [(red, blue)], 'differences': [red]}],
  )
  page.write_page(
    'runs.html',
    path / 'runs.html',
    note=label,
    results=table,
    protocols=table,
    options=table,
    charts=[chart, chart],
    variants=[table],
    chart_notes=[label],
  )
  names = 'compare.html', 'runs.html'
  return [(path / name).read_text(encoding='utf-8') for name in names]


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
  return _render(tmp_path_factory.mktemp('plain'), 'plain')


def test_every_text_is_escaped(plain, tmp_path):
  compare, runs = map(_Reader, _render(tmp_path, _NASTY))
  for tag in ('h2', 'p', 'th', 'td', 'text', 'figcaption'):
    assert _NASTY in compare.texts(tag), tag
  for tag in ('h2', 'p', 'th', 'td', 'text'):
    assert _NASTY in runs.texts(tag), tag
  assert [e[1]['alt'] for e in compare.get('img')] == [_NASTY] * 3
  # The same pages but for the texts: none of them became markup.
  for nasty, other in zip((compare, runs), map(_Reader, plain), strict=True):
    assert not nasty.get('b')
    tags = [element[0] for element in nasty.elements if element[0] != 'use']
    other = [element[0] for element in other.elements if element[0] != 'use']
    assert tags == other


def test_a_page_needs_no_other_file(plain):
  for content in plain:
    assert content.startswith('<!doctype html>')
    assert '@import' not in content
    assert all(name[0] == '#' for name in re.findall(r'url\((.*?)\)', content))
    reader = _Reader(content)
    for _, attributes, _ in reader.elements:
      assert 'href' not in attributes
      assert attributes.get('xlink:href', '#').startswith('#')
      assert attributes.get('src', 'data:').startswith('data:')
    (policy,) = reader.get('meta', **{'http-equiv': 'Content-Security-Policy'})
    assert "default-src 'none'" in policy[1]['content']


def test_a_page_needs_every_value_and_leaves_the_old_file_alone(tmp_path):
  path = tmp_path / 'page.html'
  path.write_text('before')
  with pytest.raises(jinja2.UndefinedError, match='summary'):
    page.write_page('compare.html', path)
  assert path.read_text() == 'before'
  assert list(tmp_path.iterdir()) == [path]


def test_columns_of_numbers_are_aligned_right(plain):
  reader = _Reader(plain[0])
  for tag, times in (('th', 1), ('td', 2)):
    kinds = [attributes.get('class') for _, attributes, _ in reader.get(tag)]
    assert kinds == [None, 'number'] * times
  assert reader.texts('td') == ['plain', '1.5', 'plain', '-']


def test_charts_have_the_colours_of_their_page(plain):
  reader = _Reader(plain[1])
  assert len(reader.get('svg')) == 2
  colours = set(re.findall(r'#[0-9a-f]{6}\b', str(reader.get('path'))))
  assert colours == {'#0072b2'}  # the line's
  names = re.findall(r' id="(.*?)"', svg_in_page(Chart('', '', '', [])))
  assert len(names) == len(set(names))


_SVG = '{http://www.w3.org/2000/svg}'


def _words(svg):
  root = xml.etree.ElementTree.fromstring(svg)
  return [text.text for text in root.iter(f'{_SVG}text')]


def test_charts_show_their_points():
  chart = Chart('Title', 'x', 'y', [('a <line>', [0, 1, 2], [0.1, 0.3, 0.2])])
  svg = svg_file([chart, chart])
  words = _words(svg)
  assert words.count('Title') == words.count('a <line>') == 2
  assert '0.3' in words
  assert svg == svg_file([chart, chart])
  with pytest.raises(ValueError, match='same first dimension'):
    svg_file([Chart('', '', '', [('s', [1, 2], [1])])])


def _drawn(xs, ys):
  """The number of markers of a series on logarithmic axes."""
  svg = svg_file([Chart('', '', '', [('s', xs, ys)], log=True)])
  return len(re.findall('<use [^>]*fill: #0072b2', svg)) - 1  # the legend's


def test_points_without_a_place_are_left_out():
  assert _drawn([1, 2, 3, 4, 5, 60], [1, 2, 3, 4, 5, 600]) == 6
  assert _drawn([0, 2, 3, np.nan, 5, 60], [1, -2, np.inf, 4, np.nan, 600]) == 1


def test_series_look_different():
  series = [(f's{i}', [i, i + 1], [i, i]) for i in range(18)]
  svg = svg_file([Chart('t', 'x', 'y', series)])
  looks = re.findall(r'style="fill: none; ([^"]*stroke-width: 1.5[^"]*)"', svg)
  assert len(looks) == 2 * 18 and len(set(looks)) == 18  # line and legend


def _pixels(picture):
  data = picture.source.removeprefix('data:image/png;base64,')
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_images_are_exact():
  red, blue = page.picture('rainy', _RED), page.picture('clean', _BLUE)
  np.testing.assert_array_equal(_pixels(red), _RED)
  np.testing.assert_array_equal(_pixels(blue), np.round(_BLUE * 255))
  # What is too small to see is shown larger, with its pixels as squares.
  assert red.enlarged and red.width > 200 and red.width * 4 == red.height * 6
  large = page.picture('large', np.zeros((2, 900, 3)))
  assert large.width == 900 and not large.enlarged


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


def test_a_browser_shows_it_without_a_complaint(browse, plain):
  shown, log = browse(plain[0].replace('</body>', _PROBE + '</body>'))
  assert 'CONSOLE' not in log, log
  (body,) = _Reader(shown).get('body')
  assert body[1]['data-before'] == '0.500 inset(0px 0px 0px 50%)'
  assert body[1]['data-after'] == '0.200 inset(0px 0px 0px 20%)'


@pytest.mark.parametrize(
  'fault',
  ['<script>nonsense()</script>', '<img src="https://example.org/x.png">'],
)
def test_the_browser_would_have_complained(browse, plain, fault):
  content = plain[0].replace('</body>', fault + '</body>')
  assert 'CONSOLE' in browse(content)[1]
