import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

import mixdtp_jax
from mixdtp_jax.cli.main import run_command
from mixdtp_jax.restoration import clip_files, clips
from mixdtp_jax.restoration.video import warping_error
from tests.conftest import REPOSITORY
from tests.helpers import hostile, video_clips
from tests.helpers.video_clips import frames, make, packets

VARIABLE = {
  'times': [0, 3003, 9000, 12000, 30000, 31000, 40000, 90000],
  'time_base': Fraction(1, 90000),
}


class Negative:
  """Stands for a network: dark becomes light."""

  def __init__(self):
    self.seen = []
    self.stop_after = None

  def check(self, height, width, kept=0):
    pass

  def restore(self, pixels, progress=None):
    if len(self.seen) == self.stop_after:
      raise KeyboardInterrupt
    self.seen.append(pixels)
    return np.iinfo(pixels.dtype).max - pixels


@pytest.fixture
def derain(tmp_path, monkeypatch, capfd):
  """Runs the command in a folder of its own; returns status, output, errors."""
  monkeypatch.chdir(tmp_path)
  network = Negative()
  monkeypatch.setattr(mixdtp_jax, 'load', lambda *_, **__: network)
  before = signal.getsignal(signal.SIGTERM)

  def run(*words):
    try:
      status = run_command(['derain', *map(str, words)])
    except SystemExit as stopped:
      status = stopped.code
    return status, *capfd.readouterr()

  run.network = network
  yield run
  signal.signal(signal.SIGTERM, before)


def files():
  return {path.name for path in pathlib.Path().iterdir()}


def psnr(a, b):
  return 10 * np.log10(255**2 / np.square(a.astype(float) - b).mean())


@pytest.mark.parametrize(
  ('name', 'options'),
  [
    ('a.mp4', {}),
    ('a.mp4', VARIABLE),
    ('a.mov', VARIABLE),
    ('a.mkv', {'subtitles': True}),
    ('a.mkv', VARIABLE | {'subtitles': True}),
    ('a.ts', {}),
    ('a.mp4', {'b_frames': True}),
    ('a.mkv', {'b_frames': True}),
  ],
)
def test_times_sound_and_subtitles_stay(derain, name, options):
  make(name, **options)
  status, out, err = derain(name)
  assert (status, err) == (0, '')
  result = name.replace('a.', 'a_derained.')
  assert out.startswith(f'{name} -> {result}: 8 frames of 64x48 pixels, ')
  assert files() == {name, result}
  assert [p[:2] for p in packets(result)] == [p[:2] for p in packets(name)]
  assert packets(result, 'audio') == packets(name, 'audio')
  assert psnr(frames(result), 255 - frames(name)) > 30
  with clips.opened(name) as old, clips.opened(result) as new:
    # Matroska may say less of the last block of sound, 1024 samples.
    assert abs(new.duration - old.duration) <= 1e6 * 1024 / 48000
    assert new.metadata.get('title') == old.metadata.get('title')
    assert new.streams.video[0].codec_context.name == 'h264'
    assert [c['metadata'] for c in new.chapters()] == [
      c['metadata'] for c in old.chapters()
    ]
  if options.get('subtitles'):
    assert len(packets(name, 'subtitle')) == 2
    assert packets(result, 'subtitle') == packets(name, 'subtitle')


@pytest.mark.parametrize(
  ('name', 'codec', 'audio'),
  [
    ('a.avi', 'mpeg4', 'mp3'),
    ('a.mpg', 'mpeg2video', 'mp2'),
    ('a.webm', 'libvpx-vp9', 'libopus'),
    ('clip', 'mpeg4', 'mp3'),
  ],
)
def test_other_containers_become_matroska(derain, name, codec, audio):
  known = pathlib.Path(name if '.' in name else 'x.avi')
  make(known, codec=codec, audio=audio).rename(name)
  status, _, err = derain(name)
  assert (status, err) == (0, '')
  result = pathlib.Path(name).stem + '_derained.mkv'
  old, new = packets(name), packets(result)
  moves = [
    n[0] - new[0][0] - o[0] + old[0][0] for n, o in zip(new, old, strict=True)
  ]
  assert max(map(abs, moves)) <= Fraction(1, 1000)
  old, new = packets(name, 'audio'), packets(result, 'audio')
  assert [p[2] for p in new] == [p[2] for p in old]


@pytest.mark.parametrize(
  ('codec', 'name'),
  [
    ('h265', 'b.mp4'),
    ('av1', 'b.mp4'),
    ('vp9', 'b.webm'),
    ('ffv1', 'b.mkv'),
    ('prores', 'b.mov'),
  ],
)
def test_codecs(derain, codec, name):
  make('a.mkv', audio='libopus' if name == 'b.webm' else 'aac', size=(64, 96))
  status, _, err = derain('a.mkv', '-o', name, '--codec', codec)
  assert (status, err) == (0, '')
  assert psnr(frames(name), 255 - frames('a.mkv')) > 30
  assert os.sched_getscheduler(0) == os.SCHED_OTHER  # also of root, with av1
  with clips.opened(name) as container:
    names = {'h265': 'hevc', 'av1': ('libdav1d', 'av1')}.get(codec, codec)
    assert container.streams.video[0].codec_context.name in names
  # Such clips are read, too.
  status, _, err = derain(name, '-o', 'again.mkv')
  assert (status, err) == (0, '')
  assert psnr(frames('again.mkv'), 255 - frames(name)) > 30


def test_the_codecs_of_the_command_are_those_that_there_are(derain):
  _, help, _ = derain('--help')
  assert '{' + ','.join(clip_files.CODECS) + '}' in help


@pytest.mark.parametrize('codec', ['h264', 'vp9'])
def test_odd_sides_stay(derain, codec):
  make('a.webm', codec='libvpx-vp9', size=(47, 63), audio=None)
  status, _, err = derain('a.webm', '-o', 'b.mkv', '--codec', codec)
  assert status == 0
  assert 'a.webm has an odd side, so each pixel gets its own colour' in err
  result = frames('b.mkv')
  assert result.shape == (8, 47, 63, 3)
  assert psnr(result, 255 - frames('a.webm')) > 30


def turn(path, matrix):
  """Writes a display matrix (a, b, c, d) into an MP4 file."""
  data = bytearray(path.read_bytes())
  place = data.index(b'tkhd') + 44  # version 0: after times, layer, volume
  a, b, c, d = (np.array(each * 65536, '>i4').tobytes() for each in matrix)
  one = np.array(1 << 30, '>i4').tobytes()
  data[place : place + 36] = b''.join(
    [a, b, bytes(4), c, d, bytes(4), bytes(8), one]
  )
  path.write_bytes(data)


@pytest.mark.parametrize(
  ('matrix', 'turned'),
  [
    ((0, 1, -1, 0), lambda p: np.rot90(p, -1, (1, 2))),  # clockwise
    ((0, -1, 1, 0), lambda p: np.rot90(p, 1, (1, 2))),
    ((-1, 0, 0, -1), lambda p: p[:, ::-1, ::-1]),
    ((-1, 0, 0, 1), lambda p: p[:, :, ::-1]),
  ],
)
def test_turned_clips_are_written_upright(derain, matrix, turned):
  turn(make(pathlib.Path('a.mp4')), matrix)
  assert derain('a.mp4')[0] == 0
  result = frames('a_derained.mp4')
  assert psnr(result, 255 - turned(frames('a.mp4'))) > 30
  with clips.opened('a_derained.mp4') as container:
    frame = next(container.decode(video=0))
    assert frame.rotation == 0
    assert 'DISPLAYMATRIX' not in {d.type.name for d in frame.side_data}


@pytest.mark.parametrize(
  ('name', 'options', 'rate'),
  [
    ('a.h264', {}, 25),  # there are no times, and no rate
    ('a.avi', {'b_frames': True}, 10),
  ],
)
def test_a_part_of_a_clip_without_times(derain, name, options, rate):
  make(name, range(100), audio=None, **options)
  status, _, err = derain(name, '--start', 1, '--end', 2)
  assert (status, err) == (0, '')
  times = [Fraction(n, rate) for n in range(rate)]
  found = packets('a_derained.mkv')
  assert [round(p[0], 3) for p in found] == [round(t, 3) for t in times]


def test_the_aspect_of_a_container(derain):
  """ProRes has none of its own."""
  aspect = {'sample_aspect_ratio': Fraction(4, 3)}
  make('a.mov', codec='prores_ks', format='yuv422p10le', tags=aspect)
  status, _, err = derain('a.mov')
  assert (status, err) == (0, '')
  with clips.opened('a_derained.mov') as container:
    assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_a_clip_that_the_memory_does_not_hold_is_not_decoded(derain):
  make('b.mkv', range(30))
  pathlib.Path('b.mkv').write_bytes(pathlib.Path('b.mkv').read_bytes()[:9000])

  def check(height, width, kept):
    raise ValueError(f'{height} x {width} needs more memory')

  derain.network.check = check
  status, _, err = derain('b.mkv')
  assert status == 1
  assert err == 'error: b.mkv cannot be restored: 48 x 64 needs more memory\n'


def test_a_device_without_memory_is_one_line(derain):
  make('a.mkv', range(2))
  make('b.mkv', range(2))

  def restore(pixels, progress=None):
    raise MemoryError('the device has too little memory')

  derain.network.restore = restore
  status, _, err = derain('a.mkv', 'b.mkv')
  assert status == 1
  assert err.splitlines()[:2] == [
    f'error: {name}.mkv: the device has too little memory' for name in 'ab'
  ]


def test_small_and_late_clips(derain):
  make('a.ts', audio=None)  # of few packets
  make('b.mkv', range(1000, 1008), audio=None)  # begins after 100 seconds
  status, _, err = derain('a.ts', 'b.mkv')
  assert (status, err) == (0, '2 restored\n')
  for name, result in ('a.ts', 'a_derained.ts'), ('b.mkv', 'b_derained.mkv'):
    assert [p[:2] for p in packets(result)] == [p[:2] for p in packets(name)]


@pytest.mark.parametrize('angle', [20, 45])
def test_other_angles_are_refused(derain, angle):
  c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
  turn(make(pathlib.Path('a.mp4')), (c, s, -s, c))
  status, _, err = derain('a.mp4')
  assert status == 1
  assert 'a.mp4 is shown turned by no multiple of 90 degrees' in err


@pytest.mark.parametrize(
  ('codec', 'name'),
  [
    ('ffv1', 'b.mkv'),
    ('h264', 'b.mp4'),
    ('h265', 'b.mov'),
    ('vp9', 'b.webm'),
    ('av1', 'b.mp4'),
  ],
)
@pytest.mark.parametrize('full', [False, True])
def test_colours(derain, full, codec, name):
  """The network sees RGB by the formulas of BT.709; the tags stay."""
  tags = {'colorspace': 1, 'color_trc': 1, 'color_primaries': 1}
  tags['color_range'] = 2 if full else 1
  make('a.mkv', codec='ffv1', format='yuv444p', tags=tags, audio=None)
  status, _, err = derain('a.mkv', '-o', name, '--codec', codec)
  assert (status, err) == (0, '')
  with clips.opened('a.mkv') as container:
    first = next(container.decode(video=0)).to_ndarray().astype(float)
  y, cb, cr = first
  if full:
    y, cb, cr = y / 255, (cb - 128) / 255, (cr - 128) / 255
  else:
    y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
  red, blue = y + 1.5748 * cr, y + 1.8556 * cb
  green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
  expected = 255 * np.stack([red, green, blue], -1).clip(0, 1)
  seen = derain.network.seen[0]
  assert np.abs(seen - expected).max() < 1.1
  with clips.opened(name) as container:
    frame = next(container.decode(video=0))
    assert {tag: getattr(frame, tag) for tag in tags} == tags
    (height, width), light = first[0].shape, frame.planes[0]
    after = np.frombuffer(light, np.uint8).reshape(height, -1)[:, :width]
  difference = np.abs((255 if full else 251) - first[0] - after)
  assert difference.max() <= (0 if codec == 'ffv1' else 4)


def test_ten_bits_stay(derain):
  make('a.mp4', format='yuv420p10le')
  status, _, err = derain('a.mp4')
  assert (status, err) == (0, '')
  assert derain.network.seen[0].dtype == np.uint16
  assert len(np.unique(derain.network.seen[0])) > 1000
  wide = [frames(n, 'rgb48le') / 257 for n in ('a.mp4', 'a_derained.mp4')]
  assert psnr(wide[1], 255 - wide[0]) > 30
  with clips.opened('a_derained.mp4') as container:
    assert container.streams.video[0].pix_fmt == 'yuv420p10le'


def test_what_is_not_kept_is_refused_by_name(derain):
  make('pq.mp4', format='yuv420p10le', tags={'color_trc': 16})
  make('hlg.mp4', format='yuv420p10le', tags={'color_trc': 18})
  make('deep.mkv', codec='ffv1', format='yuv444p12le')
  make('clear.mkv', codec='ffv1', format='yuva420p')
  clear = {'codec': 'libvpx-vp9', 'format': 'yuva420p', 'audio': None}
  make('light.webm', options={'auto-alt-ref': '0'}, **clear)
  before = files()
  names = ('pq.mp4', 'hlg.mp4', 'deep.mkv', 'clear.mkv', 'light.webm')
  status, _, err = derain(*names)
  lines = err.splitlines()
  assert status == 1
  assert lines[5:] == ['5 failed'], err
  assert 'pq.mp4 is HDR (PQ)' in lines[0]
  assert 'hlg.mp4 is HDR (HLG)' in lines[1]
  assert 'deep.mkv has 12 bits for each sample' in lines[2]
  assert 'clear.mkv is transparent in places' in lines[3]
  assert 'light.webm is transparent in places' in lines[4]
  assert files() == before


@pytest.mark.parametrize(
  ('codec', 'name', 'format'),
  [('ffv1', 'b.mkv', 'yuva420p'), ('prores', 'b.mov', 'yuva444p10le')],
)
def test_transparency_stays(derain, codec, name, format):
  make('a.mkv', codec='ffv1', format=format)
  derain.network.restore = lambda pixels: pixels
  status, _, err = derain('a.mkv', '-o', name, '--codec', codec)
  assert (status, err) == (0, '')
  alpha = [frames(n, 'rgba')[..., 3].astype(int) for n in ('a.mkv', name)]
  assert np.abs(alpha[0] - alpha[1]).max() <= 1
  assert psnr(frames(name), frames('a.mkv')) > 30


def test_the_shape_of_pixels_stays_and_titles_are_stripped(derain):
  make('a.mp4', tags={'sample_aspect_ratio': Fraction(4, 3)})
  status, _, err = derain('a.mp4', '--strip-metadata')
  assert (status, err) == (0, '')
  with clips.opened('a_derained.mp4') as container:
    assert 'title' not in container.metadata
    context = container.streams.video[0].codec_context
    assert context.sample_aspect_ratio == Fraction(4, 3)


def test_pixels_of_a_shape_that_would_be_lost_are_refused(derain):
  make('a.mp4', tags={'sample_aspect_ratio': Fraction(4, 3)})
  status, _, err = derain('a.mp4', '-o', 'b.mkv', '--codec', 'vp9')
  assert (status, 'the shape of pixels of a.mp4' in err) == (1, True)
  assert files() == {'a.mp4'}


PHONE = {
  'com.apple.quicktime.location.ISO6709': '+48.1371+011.5754/',
  'com.apple.quicktime.creationdate': '2024-05-06T07:08:09+0200',
  'com.apple.quicktime.make': 'Apple',
}


@pytest.mark.parametrize('name', ['a.mp4', 'a.mov', 'a.mkv'])
def test_places_and_dates_of_telephones_stay(derain, name):
  chapter = {'id': 1, 'start': 0, 'end': 300, 'metadata': {'title': 'home'}}
  chapters = [chapter | {'time_base': Fraction(1, 1000)}]
  make(name, texts=PHONE | {'title': 'rainy'}, chapters=chapters)
  status, _, err = derain(name)
  assert (status, err) == (0, '')
  assert (
    derain(name, '-o', name.replace('a.', 'b.'), '--strip-metadata')[0] == 0
  )
  with clips.opened(name.replace('a.', 'a_derained.')) as container:
    texts = {n.lower(): v for n, v in container.metadata.items()}
    expected = {n.lower(): v for n, v in PHONE.items()} | {'title': 'rainy'}
    assert texts.items() >= expected.items()
    assert container.chapters()[0]['metadata']['title'] == 'home'
  with clips.opened(name.replace('a.', 'b.')) as container:
    found = [container.metadata, *(c['metadata'] for c in container.chapters())]
    assert len(found) == 2
    assert not re.search('2024|48.1|Apple|rainy|home', str(found))


def test_cover_pictures_and_fonts_stay(derain):
  make('sound.mp4')
  cover = hostile.sound('jpeg')
  for name in ('a.mkv', 'a.mp4'):
    with clips.opened('sound.mp4') as old, av.open(name, 'w') as new:
      copies = [
        new.add_stream_from_template(s, opaque=True) for s in old.streams
      ]
      if name == 'a.mkv':
        new.add_attachment('a.ttf', 'font/ttf', b'letters')
      else:
        picture = new.add_mux_stream('mjpeg', width=48, height=36)
        picture.time_base = Fraction(1, 1000)
        picture.disposition = av.stream.Disposition.attached_pic
      for packet in old.demux():
        if packet.size:
          packet.stream = copies[packet.stream_index]
          new.mux(packet)
      if name == 'a.mp4':
        packet = av.Packet(cover)
        packet.stream, packet.time_base = picture, picture.time_base
        packet.pts = packet.dts = 0
        new.mux(packet)
  status, _, err = derain('a.mkv', 'a.mp4')
  assert (status, err) == (0, '2 restored\n')
  with clips.opened('a_derained.mkv') as container:
    (font,) = container.streams.attachments
    assert (font.name, font.data) == ('a.ttf', b'letters')
  with clips.opened('a_derained.mp4') as container:
    picture = container.streams.video[1]
    assert picture.disposition == av.stream.Disposition.attached_pic
    (packet,) = (p for p in container.demux(picture) if p.size)
    assert bytes(packet) == cover


def test_a_part(derain):
  make('a.mp4', times=range(30))
  status, _, err = derain('a.mp4', '--start', '0:00.5', '--end', 2)
  assert (status, err) == (0, '')
  old, new = packets('a.mp4'), packets('a_derained.mp4')
  assert [p[:2] for p in new] == [(p[0], p[1]) for p in old[:15]]
  whole = frames('a.mp4')
  assert psnr(frames('a_derained.mp4'), 255 - whole[5:20]) > 30
  old, new = packets('a.mp4', 'audio'), packets('a_derained.mp4', 'audio')
  part = [p for p in old if Fraction(1, 2) <= p[0] < 2]
  assert [p[2] for p in new] == [p[2] for p in part]
  # In step with the frames, to a sample.
  assert abs(new[0][0] - (part[0][0] - Fraction(1, 2))) <= Fraction(1, 48000)
  status, _, err = derain('a.mp4', '-o', 'b.mp4', '--start', 9)
  assert (status, 'has no frames between --start and' in err) == (1, True)


@pytest.mark.parametrize(
  ('name', 'kind'), [('a.mkv', 'subrip'), ('a.mp4', 'mov_text')]
)
def test_subtitles_of_a_part(derain, name, kind):
  """Of 0.1 to 0.3 s and 0.4 to 0.6 s: the second one is on screen."""
  make(name, times=range(30), subtitles=kind)
  assert len([p for p in packets(name, 'subtitle') if len(p[2]) > 2]) == 2
  status, _, err = derain(name, '--start', 0.5)
  assert (status, err) == (0, '')
  result = name.replace('a.', 'a_derained.')
  (shown,) = (p for p in packets(result, 'subtitle') if len(p[2]) > 2)
  assert shown[:2] == (0, Fraction(1, 10))
  assert b'at 400' in shown[2]


def test_what_a_container_does_not_hold_is_named(derain):
  make('a.mkv', subtitles=True)
  status, _, err = derain('a.mkv', '-o', 'b.mp4')
  assert (status, err) == (
    0,
    'warning: a.mkv: written without streams 2 (subtitle)\n',
  )


def test_it_goes_on_from_the_last_whole_segment(derain):
  make('a.mp4', times=range(60))
  _, whole, _ = derain('a.mp4', '-o', 'whole.mp4', '--json')
  derain.network.seen.clear()
  derain.network.stop_after = 55
  assert derain('a.mp4')[0] == 130
  assert files() == {'a.mp4', 'whole.mp4', '.a_derained.mp4.parts'}
  derain.network.seen.clear()
  # A machine that went down may leave a damaged file.
  with open('.a_derained.mp4.parts/000001.npz', 'r+b') as file:
    file.truncate(900)
  status, out, err = derain('a.mp4', '--json')
  assert (status, err) == (0, 'a.mp4: 24 frames are restored already\n')
  for fact in ('frames', 'flicker_before', 'flicker_after'):
    assert json.loads(out)[fact] == json.loads(whole)[fact]
  assert len(derain.network.seen) == 36
  assert packets('a_derained.mp4') == packets('whole.mp4')
  assert files() == {'a.mp4', 'whole.mp4', 'a_derained.mp4'}


def test_work_of_other_options_does_not_count(derain):
  make('a.mp4', times=range(30))
  derain.network.stop_after = 28
  assert derain('a.mp4')[0] == 130
  derain.network.seen.clear()
  derain.network.stop_after = None
  status, _, err = derain('a.mp4', '--crf', 30)
  assert (status, err, len(derain.network.seen)) == (0, '', 30)


def test_flicker(derain):
  noise = np.random.default_rng(0).normal(0, 25, (8, 48, 64, 3))

  def rainy(number, height, width, dtype):
    clean = video_clips.moving(0, height, width, dtype)
    return (clean + noise[number]).clip(0, 255).astype(dtype)

  make('a.mp4', frame=rainy)
  derain.network.restore = lambda pixels: pixels // 4
  status, out, _ = derain('a.mp4', '--json')
  line = json.loads(out)
  assert line['frames'] == 8
  assert 0.02 < line['flicker_before'] < 0.2
  assert line['flicker_after'] == pytest.approx(
    line['flicker_before'] / 4, rel=0.2
  )
  assert line['frames_per_second'] > 0


def test_the_warping_error_follows_motion():
  random = np.random.default_rng(0)
  texture = np.kron(random.random((30, 40, 3)), np.ones((8, 8, 1)))
  for _ in range(3):  # smooth
    texture = sum(np.roll(texture, n, a) for n in (-2, 2) for a in (0, 1)) / 4
  wide = (texture * 65535).astype(np.uint16)
  before, after = wide[:200, 4:300], wide[:200, :296]
  plain = np.abs(after - before.astype(float)).mean() / 65535
  assert plain > 0.02
  assert warping_error(before, after) < plain / 5
  assert warping_error(before, before) == 0


def test_damaged_clips_are_one_line_and_no_file(derain):
  shorter = {}
  for ending, options in video_clips.KINDS.items():
    if ending in video_clips.STATE_NO_LENGTH:
      continue
    clip = pathlib.Path(f'sound.{ending}')
    options = {'size': (96, 128)} | options
    data = make(clip, range(40), **options).read_bytes()
    for part in (0.3, 0.6, 0.8):
      shorter[f'{part}{ending}.{ending}'] = data[: int(part * len(data))]
  shorter |= {'empty.mp4': b'', 'text.mkv': b'no video at all\n' * 99}
  for name, data in shorter.items():
    pathlib.Path(name).write_bytes(data)
  before = files()
  status, out, err = derain(*shorter)
  assert (status, out) == (1, '')
  lines = err.splitlines()
  assert lines.pop() == f'{len(shorter)} failed', err
  for name, line in zip(shorter, lines, strict=True):
    assert line.startswith(f'error: {name} ')
    assert re.search('damaged|cut short|is empty', line), line
  assert files() == before


@pytest.mark.slow
def test_two_hundred_mutated_clips(tmp_path):
  """Each is restored or one line, nothing is half-written, nothing hangs."""
  program = [sys.executable, '-m', 'tests.campaigns.video', '--count=200']
  run = subprocess.run(
    [*program, f'--keep={tmp_path / "broken"}'],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert run.returncode == 0, run.stdout + run.stderr
  found = re.fullmatch(r'200 clips: (\d+) restored, 0 faults\n', run.stdout)
  assert 50 < int(found[1]) < 190


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['a.mp4', '--compare'], '--compare is for pictures: leave it out'),
    (['a.png', '--crf', '3'], '--crf is for clips: leave it out'),
    (['a.mp4', '--crf', '99'], 'argument --crf: invalid choice: 99'),
    (
      ['a.mp4', '-o', 'b.mkv', '--codec', 'ffv1', '--crf', '9'],
      '--crf 9: ffv1 has none, leave it out',
    ),
    (['a.mp4', '--crf', '60'], '--crf 60: the most of h264 is 51'),
    (['a.mp4', '-o', '-'], 'a clip is written to a file'),
    (['a.mp4', '-o', 'gs://x/b.mp4'], 'gs://x/b.mp4 is a URL'),
    (['list.mkv'], 'list.mkv is no video but a list of files'),
    (['a.mp4', '-o', 'b.webm'], 'hold h264: choose --codec av1 or vp9'),
    (['a.mp4', '-o', 'b.png'], 'b.png: no video container that is written'),
    (['a.mp4', 'x/a.mp4', '-o', 'b/'], 'would both become b/a.mp4: restore'),
    (['a.mp4', '-o', 'a.mp4', '--overwrite'], 'a.mp4 would be overwritten'),
    (['a.mp4', '-o', 'b.mkv', '--end', '-1'], "'-1' is no time: write seconds"),
  ],
)
def test_options_that_do_not_fit(derain, words, message):
  make('a.mp4')
  pathlib.Path('list.mkv').write_text('ffconcat version 1.0\nfile a.mp4\n')
  pathlib.Path('x').mkdir()
  make('x/a.mp4')
  status, _, err = derain(*words)
  assert status in (1, 2)
  assert message in err
  assert not {'b.webm', 'b.mkv', 'b.png', 'a_derained.mp4', 'b'} & files()


def test_the_home_folder(derain, monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  make('a.mp4')
  assert derain('~/a.mp4')[0] == 0
  assert derain('~/*.mp4', '--overwrite')[0] == 0
  assert files() == {'a.mp4', 'a_derained.mp4'}


def test_patterns_and_missing_clips(derain):
  make('a1.mp4')
  make('a[2].mp4')
  status, out, err = derain('a*.mp4', '-o', 'out', '--crf', 20)
  assert (status, err, out.count('->')) == (0, '2 restored\n', 4)
  assert {p.name for p in pathlib.Path('out').iterdir()} == files() - {'out'}
  make('a2.mp4')
  assert derain('a[2].mp4', '-o', 'b.mp4')[1].startswith('a[2].mp4 -> ')
  pathlib.Path('b.mp4').unlink()
  status, _, err = derain('b.mp4', '--crf', 20)
  assert (status, err) == (1, 'error: b.mp4 is not there\n')


def test_what_exists_is_skipped(derain):
  make('a.mp4')
  pathlib.Path('a_derained.mp4').write_text('mine')
  status, out, err = derain('a.mp4')
  assert (status, out) == (0, '')
  assert err == '1 kept as it was: --overwrite restores it again\n'
  assert pathlib.Path('a_derained.mp4').read_text() == 'mine'
  assert derain('a.mp4', '--overwrite')[0] == 0
  assert frames('a_derained.mp4').shape == (8, 48, 64, 3)
  assert '1 left out as results of this command' in derain('*.mp4')[2]
  assert files() == {'a.mp4', 'a_derained.mp4'}
  status, out, err = derain('a.mp4', 'absent.mp4', '--overwrite')
  assert (status, out, err) == (1, '', 'error: absent.mp4 is not there\n')


def test_a_file_that_appears_meanwhile_is_kept(derain):
  make('a.mp4')
  restore = derain.network.restore

  def slow(pixels):
    pathlib.Path('a_derained.mp4').write_text('mine')
    return restore(pixels)

  derain.network.restore = slow
  status, _, err = derain('a.mp4')
  assert (status, err) == (
    1,
    'error: a_derained.mp4 exists by now: --overwrite replaces it\n',
  )
  assert pathlib.Path('a_derained.mp4').read_text() == 'mine'
  # Nothing is restored a second time.
  _, out, err = derain('a.mp4', '--overwrite')
  assert 'flicker between frames' in out
  assert err == 'a.mp4: 8 frames are restored already\n'
  assert files() == {'a.mp4', 'a_derained.mp4'}


def test_two_processes_do_not_write_one_file(derain):
  make('a.mp4')
  holder = """
import pathlib, sys
from mixdtp_jax.runtime.files import lock
with lock(pathlib.Path('.a_derained.mp4.parts/lock')):
  print('held', flush=True)
  sys.stdin.read()
"""
  with subprocess.Popen(
    [sys.executable, '-c', holder],
    env=os.environ | {'PYTHONPATH': str(REPOSITORY)},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as other:
    assert other.stdout.readline() == b'held\n'
    status, _, err = derain('a.mp4')
  assert (status, len(derain.network.seen)) == (1, 0)
  assert 'error: a_derained.mp4 is being written by another process' in err
  assert derain('a.mp4')[0] == 0
  assert files() == {'a.mp4', 'a_derained.mp4'}


def test_without_pyav(derain, monkeypatch):
  make('a.mp4')
  for name in ('clip_files', 'clips', 'video'):
    monkeypatch.delitem(sys.modules, f'mixdtp_jax.restoration.{name}')
    monkeypatch.delattr(mixdtp_jax.restoration, name)
  monkeypatch.setitem(sys.modules, 'av', None)
  status, _, err = derain('a.mp4')
  assert status == 1
  assert err.startswith('error: av is not installed: ')
  assert err.endswith("[video]'\n")
  monkeypatch.setitem(sys.modules, 'av', av)
  for name in [n for n in sys.modules if n.startswith('skimage')]:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, 'skimage', None)
  _, _, err = derain('a.mp4')
  assert err.startswith('error: skimage')
  assert err.endswith("[video]'\n")


# The command, killed when it begins to write the third part.
KILLED = r"""
from tests.helpers import kills
from mixdtp_jax.cli import main

kills.signal_at(r'000002\.npz$')
main.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == 'nt', reason='signals are different there')
def test_a_kill_as_a_user_meets_it(tmp_path, tiny_weights):
  make(tmp_path / 'a.mp4', times=range(80))  # four parts
  words = ('derain', 'a.mp4', '--weights', str(tiny_weights))
  options = {
    'cwd': tmp_path,
    'env': os.environ
    | {'PYTHONPATH': str(REPOSITORY), 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'},
    'capture_output': True,
    'text': True,
    'timeout': 300,
  }
  killed = subprocess.run([sys.executable, '-c', KILLED, *words], **options)
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  parts = tmp_path / '.a_derained.mp4.parts'
  assert sorted(path.name for path in parts.glob('*.npz')) == [
    '000000.npz',
    '000001.npz',
  ]
  assert not (tmp_path / 'a_derained.mp4').exists()
  run = subprocess.run([sys.executable, '-m', 'mixdtp_jax', *words], **options)
  assert run.returncode == 0, run.stderr
  assert '48 frames are restored already' in run.stderr
  assert not parts.exists()
  old, new = (packets(tmp_path / n) for n in ('a.mp4', 'a_derained.mp4'))
  assert [p[:2] for p in new] == [p[:2] for p in old]
  first = mixdtp_jax.load(tiny_weights)(frames(tmp_path / 'a.mp4')[0])
  assert psnr(frames(tmp_path / 'a_derained.mp4')[0], first) > 25
