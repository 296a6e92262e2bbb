"""Headless Chromium, driven by its DevTools protocol through two pipes."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time

import pytest

PROGRAM = next(
  filter(None, map(shutil.which, ('chromium', 'google-chrome'))), None
)
NEEDED = pytest.mark.skipif(
  not PROGRAM, reason='there is no Chromium (apt-get install chromium)'
)
_FLAGS = (
  '--headless=new',
  '--no-sandbox',  # which does not work for root
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--no-first-run',
  '--remote-debugging-pipe',
)


class Page:
  """A page in a browser of its own.

  Attributes:
    requests: addresses that the page has asked for.
    errors: what its scripts have failed with.
  """

  def __init__(self, folder):
    """Starts the browser; its profile and downloads go to the folder."""
    (read, self._out), (self._in, write) = os.pipe(), os.pipe()

    # The browser reads from 3 and writes to 4.
    script = f'exec "$@" 3<&{read} 4>&{write}'
    self._process = subprocess.Popen(
      ['bash', '-c', script, 'bash', PROGRAM, *_FLAGS]
      + [f'--user-data-dir={folder / "profile"}'],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      pass_fds=(read, write),
      env=os.environ | {'HOME': str(folder)},
    )
    os.close(read)
    os.close(write)
    self._numbers, self._rest = itertools.count(1), b''
    self._session = {}
    self.requests, self.errors = [], []
    target = self.send('Target.createTarget', url='about:blank')['targetId']
    session = self.send('Target.attachToTarget', targetId=target, flatten=True)
    self._session = {'sessionId': session['sessionId']}
    for domain in ('Page', 'Network', 'Runtime', 'DOM'):
      self.send(f'{domain}.enable')

  def send(self, method, **params):
    """Gives the browser an order, and returns its answer."""
    number = next(self._numbers)
    order = {'id': number, 'method': method, 'params': params}
    os.write(self._out, json.dumps(order | self._session).encode() + b'\0')
    while True:
      while b'\0' not in self._rest:
        assert (data := os.read(self._in, 2**20)), 'the browser has ended'
        self._rest += data
      text, _, self._rest = self._rest.partition(b'\0')
      told = json.loads(text)
      if told.get('id') == number:
        assert 'error' not in told, told
        return told['result']
      if told.get('method') == 'Network.requestWillBeSent':
        self.requests.append(told['params']['request']['url'])
      if told.get('method') == 'Runtime.exceptionThrown':
        self.errors.append(told['params']['exceptionDetails'])

  def run(self, script):
    """Returns the value of JavaScript, which may be a promise."""
    result = self.send(
      'Runtime.evaluate',
      expression=script,
      awaitPromise=True,
      returnByValue=True,
    )
    assert 'exceptionDetails' not in result, result
    return result['result'].get('value')

  def wait(self, script, seconds=60):
    """Waits until JavaScript is true, and returns its value."""
    end = time.monotonic() + seconds
    while not (value := self.run(script)):
      assert time.monotonic() < end, f'{script} is {value!r}'
      time.sleep(0.1)
    return value

  def choose(self, selector, *paths):
    """Chooses files in an input."""
    root = self.send('DOM.getDocument')['root']['nodeId']
    node = self.send('DOM.querySelector', nodeId=root, selector=selector)
    self.send('DOM.setFileInputFiles', files=list(map(str, paths)), **node)

  def press(self, key, code=0):
    """Presses a key, such as Tab or ArrowLeft, by name and number."""
    how = {'key': key, 'code': key, 'windowsVirtualKeyCode': code}
    if key == 'Enter':
      how['text'] = '\r'
    for kind in ('keyDown', 'keyUp'):
      self.send('Input.dispatchKeyEvent', type=kind, **how)

  def look(self, width, height, scheme, phone=False):
    """Sets the window's size in CSS pixels, and light or dark colours."""
    self.send(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=phone,
    )
    features = [{'name': 'prefers-color-scheme', 'value': scheme}]
    self.send('Emulation.setEmulatedMedia', features=features)

  def screenshot(self):
    """Returns a PNG of the whole page."""
    shot = self.send('Page.captureScreenshot', captureBeyondViewport=True)
    return base64.b64decode(shot['data'])

  def close(self):
    """Ends the browser."""
    self._session = {}
    self.send('Browser.close')
    self._process.wait(20)
    os.close(self._out)
    os.close(self._in)
