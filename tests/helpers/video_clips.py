"""Small video clips, and what is in them."""

import pathlib
import tempfile
from fractions import Fraction

import av
import numpy as np


def moving(number, height=48, width=64, dtype=np.uint8):
  """A smooth pattern that moves."""
  y, x = np.mgrid[:height, :width]
  x = x + 2 * number
  waves = np.sin(x / 7), np.cos(y / 9), np.sin((x + y) / 11)
  pixels = 0.5 + 0.4 * np.stack(waves, -1)
  return (pixels * np.iinfo(dtype).max).astype(dtype)


def make(
  path,
  times=range(8),
  time_base=Fraction(1, 10),
  *,
  codec='libx264',
  format='yuv420p',
  size=(48, 64),
  tags=(),
  audio='aac',
  subtitles=False,
  b_frames=False,
  frame=moving,
  rate=10,
  options=(),
  texts={'title': 'rainy'},  # noqa: B006 - is only read
  chapters=(),
):
  """Writes a clip of `rate` frames a second, or with given times.

  With B-frames, the sound is the first stream, and times are those of `rate`
  frames a second.
  """
  deep = any(depth in format for depth in ('10', '12', '16'))
  dtype, layout = (np.uint16, 'rgb48le') if deep else (np.uint8, 'rgb24')
  further = len(texts) > 1 and not str(path).endswith('.mkv')
  tagged = {'movflags': 'use_metadata_tags'} if further else {}
  with av.open(str(path), 'w', options=tagged) as container:
    if audio and b_frames:
      sound = container.add_stream(audio, rate=48000)
    # Some encoders take no time base of 1/90000: times are set afterwards.
    video = container.add_stream(
      codec, rate=rate, options={'bf': str(3 * b_frames)} | dict(options)
    )
    video.height, video.width = size
    video.pix_fmt, video.time_base = format, time_base
    for name, value in dict(tags).items():
      setattr(video.codec_context, name, value)
    container.metadata.update(texts)
    container.set_chapters(list(chapters))
    if audio and not b_frames:
      sound = container.add_stream(audio, rate=48000)
    if subtitles:
      kind = 'subrip' if subtitles is True else subtitles
      lines = container.add_mux_stream(kind, time_base=Fraction(1, 1000))
      chapter = {'id': 1, 'start': 0, 'end': 300, 'metadata': {'title': 'one'}}
      container.set_chapters([chapter | {'time_base': Fraction(1, 1000)}])
    times, packets = list(times), []
    for number in range(len(times)):
      pixels = frame(number, *size, dtype)
      rgb = av.VideoFrame.from_ndarray(pixels, layout)
      coded = rgb.reformat(format=format, dst_colorspace='ITU709')
      coded.pts, coded.time_base = number, Fraction(1, rate)
      packets += video.encode(coded)
    packets += video.encode()
    ends = [*times[1:], 2 * times[-1] - times[-2]]
    for number, packet in enumerate(packets):
      if b_frames:
        container.mux(packet)
        continue
      packet.time_base = time_base
      packet.pts = packet.dts = times[number]
      packet.duration = ends[number] - times[number]
      container.mux(packet)
    if audio:
      count = int(48000 * ends[-1] * time_base)
      wave = np.sin(np.arange(count) / 17).astype(np.float32)
      samples = av.AudioFrame.from_ndarray(
        np.stack([wave, wave / 2]), format='fltp', layout='stereo'
      )
      samples.sample_rate, samples.pts = 48000, 0
      container.mux(sound.encode(samples))
      container.mux(sound.encode())
    if subtitles:
      for start in (100, 400):
        text = f'at {start}'.encode()
        if kind == 'mov_text':
          text = len(text).to_bytes(2, 'big') + text
        packet = av.Packet(text)
        packet.stream, packet.time_base = lines, Fraction(1, 1000)
        packet.pts = packet.dts = start
        packet.duration = 200
        container.mux(packet)
  return path


def packets(path, kind='video'):
  """Lists (seconds, seconds of duration, bytes) of a stream's packets."""
  with av.open(str(path)) as container:
    stream = next(s for s in container.streams if s.type == kind)
    return sorted(
      (p.pts * p.time_base, p.duration * p.time_base, bytes(p))
      for p in container.demux(stream)
      if p.size
    )


def frames(path, format='rgb24'):
  """Decodes to (T, H, W, 3)."""
  with av.open(str(path)) as container:
    decoded = container.decode(video=0)
    return np.stack([frame.to_ndarray(format=format) for frame in decoded])


def files():
  """Names everything in the working folder."""
  return {path.name for path in pathlib.Path().iterdir()}


def psnr(a, b):
  return 10 * np.log10(255**2 / np.square(a.astype(float) - b).mean())


KINDS = {
  'mp4': {},
  'mkv': {'subtitles': True},
  'ts': {},
  'webm': {'codec': 'libvpx-vp9', 'audio': 'libopus'},
  'avi': {'codec': 'mpeg4', 'audio': 'mp3'},
  'mpg': {'codec': 'mpeg2video', 'audio': 'mp2'},
  'mov': {'codec': 'prores_ks', 'format': 'yuv422p10le'},
  'flv': {},
  'wmv': {'codec': 'wmv2', 'audio': None},
  'mxf': {
    **{'codec': 'mpeg2video', 'format': 'yuv422p', 'audio': None},
    **{'rate': 25, 'time_base': Fraction(1, 25)},
  },
}
STATE_NO_LENGTH = ('ts', 'mpg')


def damaged(folder, count, seed):
  """Writes damaged clips of several kinds in turn; yields their paths."""
  random, sound = np.random.default_rng(seed), {}
  with tempfile.TemporaryDirectory() as place:
    for ending, options in KINDS.items():
      path = make(pathlib.Path(place, f'a.{ending}'), **options)
      sound[ending] = path.read_bytes()
  endings = list(sound)
  for number in range(count):
    ending = endings[number % len(endings)]
    path = folder / f'{number}.{ending}'
    path.write_bytes(_damage(bytearray(sound[ending]), random))
    yield path


def _damage(data, random):
  kind = random.integers(4)
  start = int(random.integers(len(data)))
  length = int(random.integers(1, 60))
  if kind == 0:
    del data[start : start + length]
  elif kind == 1:
    data[start : start + length] = random.bytes(len(data[start:][:length]))
  elif kind == 2:
    data[start : start + 4] = b'\xff' * len(data[start : start + 4])
  else:
    data[start:start] = data[:length]
  return bytes(data)
