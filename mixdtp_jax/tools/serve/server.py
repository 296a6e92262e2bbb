"""A page that takes rain out of pictures, and the server of it."""

import http.server
import io
import ipaddress
import json
import mimetypes
import re
import shutil
import socket
import socketserver
import sys
import tempfile
import time
import urllib.parse
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from absl import logging

from mixdtp_jax.runtime import console
from mixdtp_jax.tools.serve.queue import MOST_BYTES, Queue, Refused
from mixdtp_jax.weights import shipped

_HEADERS = {
  # The browser itself holds the page to this server.
  'Content-Security-Policy': "default-src 'self'; base-uri 'none'; "
  "form-action 'none'; frame-ancestors 'none'",
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'Cache-Control': 'no-store',
}
_LINGER = 5  # seconds


class Answer(NamedTuple):
  """What is sent: bytes, or a file, of a type."""

  body: bytes | Path
  type: str | None = 'application/octet-stream'
  status: HTTPStatus = HTTPStatus.OK


class Server(socketserver.ThreadingTCPServer):
  """Serves the page, and the pictures of a queue."""

  allow_reuse_address = True
  daemon_threads = True
  request_queue_size = 64
  queue: Queue  # is set before the first request is answered

  def __init__(self, host: str, port: int):
    """Binds an address; port 0 is a free one. OSError if it cannot be had."""
    self.files = _files()
    try:
      found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
      self.address_family, *_, address = found[0]
      super().__init__((address[0], port, *address[2:]), _Handler)
    except (OSError, OverflowError) as error:
      raise OSError(
        f'{host}, port {port}: {getattr(error, "strerror", "") or error}: '
        'choose others by --host and --port (--port 0 takes a free one)'
      ) from error
    self.is_local = ipaddress.ip_address(address[0]).is_loopback
    here = socket.gethostname().lower()
    self._names = {'localhost', host.lower(), here, f'{here}.local'}

  def knows(self, host: str) -> bool:
    """Whether a Host header names this server.

    Else another site could reach it through a name of its own, which leads
    here (DNS rebinding). A number cannot be such a name.
    """
    try:
      name = urllib.parse.urlsplit(f'//{host}').hostname or ''
      number = None if name in self._names else ipaddress.ip_address(name)
    except ValueError:
      return False
    return number is None or number.is_loopback or not self.is_local

  def handle_error(self, request, client_address) -> None:
    """Tells about an error, unless the visitor is gone."""
    if not isinstance(error := sys.exception(), OSError):
      logging.exception('a request failed: %s', error)


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers one request."""

  server: Server
  server_version, sys_version = 'mixdtp', ''
  timeout = 30  # seconds without a byte

  def log_message(self, format, *args) -> None:
    """Says nothing."""

  def _answer(self) -> None:
    path = self.path.partition('?')[0]
    try:
      self._check_sender()
      self._send(self._post(path) if self.command == 'POST' else self._at(path))
    except Refused as error:
      self._send(_json({'error': str(error)}, error.status))
      self._linger()

  do_GET = do_POST = do_DELETE = _answer

  def _check_sender(self) -> None:
    """Refuses requests that pages of other sites have made."""
    hosts = self.headers.get_all('Host', [])
    if len(hosts) != 1 or not self.server.knows(hosts[0]):
      raise Refused(
        'the server has another name: open the address that it printed, or '
        'start it with --host',
        HTTPStatus.FORBIDDEN,
      )
    origin = self.headers.get('Origin')
    if origin and not re.fullmatch(f'https?://{re.escape(hosts[0])}', origin):
      raise Refused('another site has sent this', HTTPStatus.FORBIDDEN)

  def _at(self, path: str) -> Answer:
    """Returns what is at an address; or deletes it, if it is a picture."""
    queue = self.server.queue
    if path in self.server.files:
      return self.server.files[path]
    if path == '/settings':
      choices = {'weights': queue.weights, 'memories': [*queue.memories]}
      return _json(choices | {'most_bytes': MOST_BYTES})
    found = re.fullmatch('/pictures/([^/]+)/?(before|after|restored|)', path)
    if not found:
      raise Refused('there is no such page', HTTPStatus.NOT_FOUND)
    upload, file = queue.get(found[1]), found[2]
    if self.command == 'DELETE':
      queue.drop(upload)
    elif file and upload.state == 'done':
      return Answer(upload.folder / file)
    elif file:
      raise Refused('the picture is not restored', HTTPStatus.NOT_FOUND)
    state = {name: getattr(upload, name) for name in ('state', 'progress')}
    return _json(state | {'ahead': queue.ahead(upload)} | upload.facts)

  def _post(self, path: str) -> Answer:
    if path != '/pictures':
      raise Refused('pictures go to /pictures', HTTPStatus.NOT_FOUND)
    size = self.headers.get('Content-Length', '')
    if not re.fullmatch('0|[1-9][0-9]{0,18}', size):
      raise Refused(
        'Content-Length does not say how long the picture is',
        HTTPStatus.LENGTH_REQUIRED,
      )
    if int(size) > MOST_BYTES:
      raise Refused(
        f'{int(size) // 10**6:,} MB are more than the {MOST_BYTES // 10**6} MB '
        'that this server takes',
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
      )
    asked = dict(urllib.parse.parse_qsl(self.path.partition('?')[2]))
    try:
      upload = self.server.queue.add(asked, int(size), self.rfile)
    except (ConnectionError, TimeoutError):
      raise
    except OSError as error:
      raise Refused(
        f'the server cannot store the picture: {error.strerror}',
        HTTPStatus.INSUFFICIENT_STORAGE,
      ) from error
    return _json({'key': upload.folder.name}, HTTPStatus.CREATED)

  def _send(self, answer: Answer) -> None:
    body = answer.body
    opened = body.open('rb') if isinstance(body, Path) else io.BytesIO(body)
    with opened as file:
      self.send_response(answer.status)
      self.send_header('Content-Type', str(answer.type))
      self.send_header('Content-Length', str(file.seek(0, io.SEEK_END)))
      for name, value in _HEADERS.items():
        self.send_header(name, value)
      self.end_headers()
      file.seek(0)
      shutil.copyfileobj(file, self.wfile)

  def _linger(self) -> None:
    """Reads on for a moment: else a sender may not see the answer."""
    self.connection.shutdown(socket.SHUT_WR)
    self.connection.settimeout(_LINGER)
    late = time.monotonic() + _LINGER
    while time.monotonic() < late and self.rfile.read1(2**20):
      pass


def serve(
  host: str,
  port: int,
  *,
  weights: str,
  memory: int | None,
  max_megapixels: int,
  scratch: str | None,
  dtype: str,
) -> None:
  """Serves the page until it is interrupted.

  Visitors may choose `weights` and what is shipped, and memory up to `memory`
  bytes; None is half of the free memory. Pictures are stored in `scratch`.
  OSError if the address cannot be had, or see `mixdtp_jax.load`.
  """
  with (
    Server(host, port) as server,
    tempfile.TemporaryDirectory(
      prefix='mixdtp-', dir=scratch, ignore_cleanup_errors=True
    ) as folder,
  ):
    console.show('loading the network')
    server.queue = Queue(
      Path(folder),
      list(dict.fromkeys([weights, *shipped.names()])),
      _memories(memory),
      max_megapixels,
      scratch=scratch,
      dtype=dtype,
    )
    console.show('')
    if not server.is_local:
      logging.warning(
        'whoever reaches this machine can send pictures: there is no password'
      )
    shown, port = f'[{host}]' if ':' in host else host, server.server_address[1]
    address = f'http://{shown}:{port}/'
    print(f'{address} waits for pictures (Ctrl-C ends it)', flush=True)
    try:
      server.serve_forever()
    finally:
      server.queue.close()


def _memories(most: int | None) -> dict[str, int | None]:
  """Returns what visitors may choose, by its name."""
  total = most or psutil.virtual_memory().total
  smaller = [n for n in (1, 2, 4, 8, 16, 32, 64) if n * 10**9 < total]
  first = f'at most {most / 1e9:.3g} GB' if most else 'half of the free memory'
  return {first: most} | {f'at most {n} GB': n * 10**9 for n in smaller}


def _files() -> dict[str, Answer]:
  """Reads the files of the page, by their addresses."""
  root = Path(__file__).with_name('page')
  types = mimetypes.MimeTypes()  # whatever this system thinks of endings
  files = {
    f'/{path.relative_to(root).as_posix()}': Answer(
      path.read_bytes(), types.guess_type(path.name)[0]
    )
    for path in root.rglob('*.*')
  }
  return files | {'/': files['/index.html']}


def _json(content: dict[str, Any], status=HTTPStatus.OK) -> Answer:
  return Answer(json.dumps(content).encode(), 'application/json', status)
