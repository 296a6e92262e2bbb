"""The page and its server, as a visitor and as a hostile one meets them."""

import contextlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from mixdtp_jax.cli import options
from mixdtp_jax.cli.main import run_command
from mixdtp_jax.tools.serve import server as server_module
from tests.conftest import REPOSITORY
from tests.helpers import chromium, hostile
from tests.helpers.slow_queue import wait


@pytest.fixture(scope='module')
def program(environment):
  """Starts commands in a folder."""
  env = environment | {'PYTHONPATH': str(REPOSITORY), 'XLA_FLAGS': ''}
  command = [sys.executable, '-m', 'mixdtp_jax']

  def start(*words, cwd):
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    words = [*command, *map(str, words)]
    return subprocess.Popen(words, cwd=cwd, env=env, text=True, **pipes)

  return start


@pytest.fixture(scope='module')
def server(program, tiny_weights, tmp_path_factory):
  """A running server: process, port and scratch folder; ended at the end."""
  scratch = tmp_path_factory.mktemp('scratch')
  words = ('--weights', tiny_weights, '--scratch', scratch, '--port', 0)
  process = program('serve', *words, '--max-megapixels', 1, cwd=scratch)
  told = process.stdout.readline()
  assert (found := re.match(r'http://127\.0\.0\.1:(\d+)/ ', told)), told
  weights = str(tiny_weights)
  yield types.SimpleNamespace(
    process=process, port=int(found[1]), scratch=scratch, weights=weights
  )
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 143, err
  assert 'Traceback' not in err
  assert not list(scratch.iterdir())


def ask(server, method, path, body=None, **headers):
  """Sends a request; returns status and content, decoded if it is JSON."""
  connection = http.client.HTTPConnection('127.0.0.1', server.port, timeout=60)
  with contextlib.closing(connection):
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    data = answer.read()
    if answer.headers['Content-Type'] == 'application/json':
      data = json.loads(data)
    return answer.status, data


def address(server, name='a.png', memory='half of the free memory'):
  words = {'name': name, 'weights': server.weights, 'memory': memory}
  return '/pictures?' + urllib.parse.urlencode(words)


def send(server, data, *name):
  return ask(server, 'POST', address(server, *name), data)


def finished(server, key):
  """Waits for a picture's end; returns what the server says of it."""
  for _ in range(600):
    status, told = ask(server, 'GET', f'/pictures/{key}')
    assert status == 200, told
    if told['state'] in ('done', 'failed'):
      return told
    time.sleep(0.1)
  raise AssertionError(told)


@pytest.fixture(scope='module')
def derained(program, server, tmp_path_factory):
  """What the command makes of pictures, by the names of their kinds."""
  folder = tmp_path_factory.mktemp('derained')
  kinds = ('jpeg', 'png_16_3', 'tiff', 'gif_animated', 'webp')
  for kind in kinds:
    ending = kind.partition('_')[0]
    (folder / f'{kind}.{ending}').write_bytes(hostile.sound(kind))
  words = ('.', '-o', 'dry', '--weights', server.weights)
  run = program('derain', *words, cwd=folder)
  assert run.wait(300) == 0, run.stderr.read()
  return {path.stem: path for path in (folder / 'dry').iterdir()}


def test_a_download_is_what_the_command_writes(server, derained):
  for kind, path in derained.items():
    status, told = send(server, hostile.sound(kind), path.name)
    assert status == 201, told
    facts = finished(server, told['key'])
    assert facts['name'] == f'{kind}_derained{path.suffix}'
    place = f'/pictures/{told["key"]}'
    assert ask(server, 'GET', f'{place}/restored') == (200, path.read_bytes())
    for side in ('before', 'after'):
      _, small = ask(server, 'GET', f'{place}/{side}')
      shown = Image.open(io.BytesIO(small))
      assert shown.format == 'JPEG'
      assert shown.size == (facts['width'], facts['height'])
    assert ask(server, 'DELETE', place)[0] == 200
    assert ask(server, 'GET', place)[0] == 404
  (folder,) = server.scratch.iterdir()
  assert not list(folder.iterdir())


REFUSED = {
  'empty': (b'', 'x.png is empty'),
  'no picture': (b'hello', 'x.png cannot be decoded: it is none of PNG'),
  'cut short': (hostile.sound('png')[:20], 'x.png cannot be decoded'),
  'bomb': (
    hostile.big_png(60_000, 60_000),
    'x.png: 60000x60000 pixels are more than the 1 ',
  ),
  'large': (
    hostile.big_png(10_000, 10_000),
    '10000x10000 pixels are more than the 1 million',
  ),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_a_bad_file_is_refused_by_name(server, kind):
  data, line = REFUSED[kind]
  status, told = send(server, data, '..\\../x.png')
  assert status == 400
  assert line in told['error']
  assert str(server.scratch) not in told['error']


def test_a_damaged_picture_fails_and_the_next_one_does_not(server):
  data = hostile.sound('png')
  keys = [send(server, part)[1]['key'] for part in (data[:-400], data)]
  failed, done = (finished(server, key) for key in keys)
  assert failed['state'] == 'failed'
  assert failed['error'].startswith('a.png cannot be decoded')
  assert ask(server, 'GET', f'/pictures/{keys[0]}/restored')[0] == 404
  assert done['state'] == 'done'


@pytest.mark.parametrize(
  ('headers', 'status'),
  [
    ({'Host': 'rain.example'}, 403),
    ({'Host': '192.0.2.1'}, 403),
    ({'Host': '[::'}, 403),
    ({'Host': ''}, 403),
    ({'Origin': 'http://rain.example'}, 403),
    ({'Origin': 'null'}, 403),
    ({'Content-Length': '0'}, 400),
    ({'Content-Length': '-5'}, 411),
    ({'Content-Length': '9' * 5000}, 411),
    ({'Content-Length': str(2**40)}, 413),
    ({'Host': 'LOCALHOST:1'}, 200),
  ],
)
def test_odd_headers(server, headers, status):
  method = 'GET' if status == 200 else 'POST'
  path = '/' if status == 200 else address(server)
  answer = ask(server, method, path, b'12345', **headers)
  assert answer[0] == status, answer
  if status != 200:
    assert answer[1]['error']


@pytest.mark.parametrize(
  'path',
  [
    '/x',
    '/../server.py',
    '/%2e%2e/server.py',
    '/pictures/x',
    '/pictures/../x',
  ],
)
def test_other_addresses_lead_nowhere(server, path):
  assert ask(server, 'GET', path)[0] == 404
  assert ask(server, 'DELETE', path)[0] == 404


def test_what_was_not_offered_is_refused(server):
  for words in ('weights=/etc/passwd', 'memory=at+most+999+GB'):
    path = f'{address(server)}&{words}'
    status, told = ask(server, 'POST', path, hostile.sound('png'))
    assert (status, 'no such' in told['error']) == (400, True)


def test_ten_at_once_and_one_that_vanishes(server):
  gone = socket.create_connection(('127.0.0.1', server.port))
  head = f'POST {address(server)} HTTP/1.1\r\nHost: localhost\r\n'
  gone.sendall(f'{head}Content-Length: 100000\r\n\r\nabc'.encode())
  answers = [None] * 10

  def visit(number):
    status, told = send(server, hostile.sound('png'))
    answers[number] = (status, finished(server, told['key'])['state'])

  threads = [threading.Thread(target=visit, args=(n,)) for n in range(10)]
  for thread in threads:
    thread.start()
  gone.close()
  for thread in threads:
    thread.join(120)
  assert answers == [(201, 'done')] * 10


def test_a_full_server_says_so(server):
  answers = []
  while not answers or answers[-1][0] == 201 and len(answers) < 40:
    answers.append(send(server, hostile.sound('png')))
  status, told = answers.pop()
  assert status == 503
  assert 'remove some' in told['error']
  for _, sent in answers:  # also those that wait or are restored
    assert ask(server, 'DELETE', f'/pictures/{sent["key"]}')[0] == 200
  assert send(server, hostile.sound('png'))[0] == 201


@pytest.mark.parametrize(
  ('words', 'line'),
  [
    (['--port', 'TAKEN'], '127.0.0.1, port TAKEN: Address already in use: cho'),
    (['--host', 'no.such.host.invalid'], 'choose others by --host and --port'),
    (['--port', '0', '--weights', 'none'], 'none: no weights there'),
    (['--scratch', 'none'], '--scratch none: not a folder'),
  ],
)
def test_a_server_that_cannot_start_says_why(
  server, words, line, monkeypatch, capsys, tmp_path
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(options, 'set_up_restoring', lambda: None)
  words, line = (
    json.loads(json.dumps(text).replace('TAKEN', str(server.port)))
    for text in (words, line)
  )
  assert run_command(['serve', *words]) == 1
  (told,) = capsys.readouterr().err.splitlines()
  assert told.startswith('error: ')
  assert line in told


@pytest.fixture
def page(server, tmp_path):
  """The page in a browser, light and wide."""
  opened = chromium.Page(tmp_path)
  opened.url = f'http://127.0.0.1:{server.port}/'
  opened.look(1000, 700, 'light')
  opened.send('Page.navigate', url=opened.url)
  opened.wait("document.querySelectorAll('option').length > 2")
  yield opened
  opened.close()


DONE = "document.querySelectorAll('.download:not([hidden])').length == {}"
FOCUS = '(({id, ariaLabel, dataset}) => id || ariaLabel || dataset.file)'
VALUE = "document.activeElement.getAttribute('aria-valuetext')"
WAITS = 'Waits for its turn: 1 before it.'
GIVE = """{{
  const data = new DataTransfer();
  data.items.add(new File([{content}], '{name}'));
  dispatchEvent(new {event}('{kind}', {{{field}: data}}));
}}"""


@pytest.mark.browser
@chromium.NEEDED
def test_a_visitor_gets_what_the_command_writes(
  page, server, derained, tmp_path
):
  (tmp_path / 'mine.jpeg').write_bytes(hostile.sound('jpeg'))
  where = {'behavior': 'allow', 'downloadPath': str(tmp_path)}
  page.send('Page.setDownloadBehavior', **where)
  page.choose('#file', tmp_path / 'mine.jpeg')
  page.wait(DONE.format(1))
  page.run("document.querySelector('.download').click()")
  saved = tmp_path / 'mine_derained.jpeg'
  wait(saved.exists)
  shown, wanted = (Image.open(p) for p in (saved, derained['jpeg']))
  np.testing.assert_array_equal(np.asarray(shown), np.asarray(wanted))
  assert shown.getexif() == wanted.getexif()
  place = page.run("document.querySelector('.download').pathname")
  key = place.split('/')[2]
  assert ask(server, 'GET', f'/pictures/{key}')[0] == 200
  page.send('Page.navigate', url='about:blank')
  wait(lambda: ask(server, 'GET', f'/pictures/{key}')[0] == 404)
  assert not page.errors
  assert all(url.startswith((page.url, 'about:')) for url in page.requests)


@pytest.mark.browser
@chromium.NEEDED
def test_the_page_shows_progress(slow, tmp_path):
  site = server_module.Server('127.0.0.1', 0)
  site.queue = slow.queue
  threading.Thread(target=site.serve_forever).start()
  shown = chromium.Page(tmp_path / 'browser')
  try:
    address = f'http://127.0.0.1:{site.server_address[1]}/'
    shown.send('Page.navigate', url=address)
    shown.wait("document.querySelectorAll('option').length > 2")
    paths = tmp_path / 'a.png', tmp_path / 'b.png'
    for path in paths:
      path.write_bytes(hostile.sound('png'))
    shown.choose('#file', *paths)
    texts = "[...document.querySelectorAll('.state')].map(e => e.textContent)"
    shown.wait(f"{texts}.join() == 'Is being restored: 50%.,{WAITS}'")
    bars = "[...document.querySelectorAll('progress')]"
    assert shown.run(f'{bars}.map(e => e.position)') == [0.5, -1]
    assert shown.run(f'{bars}.every(e => e.offsetHeight && e.ariaLabel)')
  finally:
    shown.close()
    site.shutdown()
    site.server_close()


@pytest.mark.browser
@chromium.NEEDED
def test_pasted_and_dropped_files(page):
  for number, event, kind, field in (
    (1, 'ClipboardEvent', 'paste', 'clipboardData'),
    (2, 'DragEvent', 'drop', 'dataTransfer'),
  ):
    how = {'event': event, 'kind': kind, 'field': field}
    content = f'new Uint8Array({list(hostile.sound("png"))})'
    page.run(GIVE.format(content=content, name='a.png', **how))
    page.wait(DONE.format(number))
  page.run(GIVE.format(content="'hello'", name='<b>.txt', **how))
  told = page.wait("document.querySelector('.state.error')?.textContent")
  assert told.startswith('<b>.txt cannot be decoded')
  assert page.run("document.querySelector('[role=status]').textContent") == told


@pytest.mark.browser
@chromium.NEEDED
def test_it_works_by_keyboard_and_names_all_for_screen_readers(page):
  reached = []
  for _ in range(4):
    page.press('Tab', 9)
    reached.append(page.run(f'{FOCUS}(document.activeElement)'))
  assert reached == ['file', 'weights', 'memories', 'rocket.jpg']
  page.press('Enter', 13)
  page.wait(DONE.format(1))
  for _ in range(3):
    page.press('Tab', 9)
  assert page.run(f'{FOCUS}(document.activeElement)') == 'Remove rocket.jpg'
  page.press('Tab', 9)
  shots = []
  for key, code, before in (
    ('ArrowLeft', 37, 49),
    ('Home', 36, 0),
    ('End', 35, 100),
  ):
    page.press(key, code)
    assert page.run(VALUE) == f'{before}% before, {100 - before}% after'
    shots.append(page.screenshot())
  assert len(set(shots)) == 3
  nodes = page.send('Accessibility.getFullAXTree')['nodes']
  for node in nodes:
    properties = {p['name']: p['value'] for p in node.get('properties', ())}
    if not node['ignored'] and 'focusable' in properties:
      assert node['name']['value'], node
  page.press('Tab', 9)
  assert 'Download rocket_derained.jpg' in page.run(
    f'{FOCUS}(document.activeElement)'
  )
  page.run("document.querySelector('.remove').focus()")
  page.press('Enter', 13)
  assert page.run("document.querySelectorAll('li article').length") == 0
  assert page.run('document.activeElement.id') == 'file'


@pytest.mark.browser
@chromium.NEEDED
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_a_phone_in_both_themes(page, scheme):
  page.run("document.querySelector('[data-file]').click()")
  page.wait(DONE.format(1))
  for width, phone in ((1000, False), (360, True)):
    page.look(width, 740, scheme, phone)
    assert page.run('document.documentElement.scrollWidth <= innerWidth')
    shot = Image.open(io.BytesIO(page.screenshot())).convert('L')
    assert (shot.getpixel((2, 2)) > 128) == (scheme == 'light')
  small = page.run(
    "[...document.querySelectorAll('button, a, label, select')].filter(e => "
    'e.offsetHeight && e.offsetHeight < 44).map(e => e.outerHTML)'
  )
  assert not small
