"""How clips are written: what of the source stays in each kind of file."""

import os
import pathlib
import re
from fractions import Fraction

import av
import numpy as np
import pytest

from mixdtp_jax.restoration import clips
from tests.helpers import hostile
from tests.helpers.video_clips import files, frames, make, packets, psnr

VARIABLE = {
  'times': [0, 3003, 9000, 12000, 30000, 31000, 40000, 90000],
  'time_base': Fraction(1, 90000),
}


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


@pytest.mark.parametrize('codec', ['h264', 'vp9'])
def test_odd_sides_stay(derain, codec):
  make('a.webm', codec='libvpx-vp9', size=(47, 63), audio=None)
  status, _, err = derain('a.webm', '-o', 'b.mkv', '--codec', codec)
  assert status == 0
  assert 'a.webm has an odd side, so each pixel gets its own colour' in err
  result = frames('b.mkv')
  assert result.shape == (8, 47, 63, 3)
  assert psnr(result, 255 - frames('a.webm')) > 30


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
