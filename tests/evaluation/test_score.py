"""Evaluation with restore functions that need no network."""

import dataclasses
import threading

import numpy as np
import pytest

from mixdtp_jax.data.eval_batches import EvalBatch, eval_batches
from mixdtp_jax.evaluation import score
from mixdtp_jax.evaluation.metrics import PROTOCOLS, Score
from mixdtp_jax.evaluation.score import Row, evaluate, mean_row


class _Pairs:
  """In-memory pairs of two sizes, in the order a, b, a, b, a."""

  def __init__(self):
    rng = np.random.default_rng(0)
    self._pairs = []
    for i in range(5):
      shape = [(16, 24, 3), (20, 12, 3)][i % 2]
      clean = rng.integers(0, 256, shape, dtype=np.uint8)
      rainy = np.clip(clean + rng.integers(0, 20 + 10 * i, shape), 0, 255)
      self._pairs.append(
        {'name': f'set/{i}', 'rainy': np.uint8(rainy), 'clean': clean}
      )

  def __len__(self):
    return len(self._pairs)

  def __getitem__(self, index):
    return self._pairs[index]

  def shape(self, index):
    return self._pairs[index]['clean'].shape[:2]


def _darken(images):
  return np.float32(0.9) * images


def _floats(image):
  return np.float32(image)[None] / 255


def test_one_row_an_image_with_the_scores_of_that_image():
  pairs = _Pairs()
  batches = eval_batches(pairs, batch_size=2)
  rows = evaluate(_darken, batches, ('rgb', 'y'))
  assert sorted(row.name for row in rows) == [f'set/{i}' for i in range(5)]
  for row in rows:
    pair = pairs[int(row.name[-1])]
    clean, rainy = _floats(pair['clean']), _floats(pair['rainy'])
    assert list(row.input) == list(row.restored) == ['rgb', 'y']
    for name in ('rgb', 'y'):
      for got, image in ((row.input, rainy), (row.restored, _darken(rainy))):
        want = PROTOCOLS[name](image, clean)
        assert isinstance(got[name].psnr, float)
        assert got[name].psnr == pytest.approx(float(want.psnr[0]), abs=1e-4)
        assert got[name].ssim == pytest.approx(float(want.ssim[0]), abs=1e-5)


def test_batch_size_does_not_change_the_result():
  one, many = (
    evaluate(_darken, eval_batches(_Pairs(), batch_size=size), ('rgb8',))
    for size in (1, 4)
  )
  assert [row.name for row in one] == [row.name for row in many]
  for left, right in zip(one, many, strict=True):
    assert left.restored['rgb8'] == pytest.approx(right.restored['rgb8'])


def test_save_and_progress_see_each_image_once():
  saved, progress = {}, []
  pairs = _Pairs()
  evaluate(
    _darken,
    eval_batches(pairs, batch_size=2),
    ('rgb',),
    save=lambda names, images: saved.update(zip(names, images, strict=True)),
    progress=progress.append,
  )
  assert progress == [2, 3, 5]
  assert len(saved) == 5
  for i in range(5):
    rainy = np.float32(pairs[i]['rainy']) / 255
    np.testing.assert_allclose(saved[f'set/{i}'], _darken(rainy), atol=1e-6)


def test_a_perfect_restoration_scores_inf():
  image = _floats(_Pairs()[0]['clean'])
  batch = EvalBatch(image * 0.5, image, ('only',))
  (row,) = evaluate(lambda _: image, [batch], list(PROTOCOLS))
  assert {score.psnr for score in row.restored.values()} == {np.inf}
  assert max(score.psnr for score in row.input.values()) < 20


def test_an_image_that_is_not_finite_scores_nan_and_is_named(caplog):
  good = _floats(_Pairs()[0]['clean'])
  bad = good.copy()
  bad[0, 3, 4, 1] = np.nan
  batch = EvalBatch(
    *(np.concatenate([good, good]) for _ in range(2)), ('a', 'b')
  )
  one, other = evaluate(
    lambda _: np.concatenate([bad, 0.5 * good]), [batch], list(PROTOCOLS)
  )
  assert np.isnan(list(one.restored.values())).all()
  assert np.isfinite(list(other.restored.values())).all()
  (record,) = caplog.records
  assert record.getMessage() == 'a: restored image not finite, scores nan'


def test_what_is_known_of_the_rainy_images_is_not_computed_again(monkeypatch):
  known, scored, scores = {}, [], score.scores

  def counting(images, *args):
    scored.extend(images)
    return scores(images, *args)

  monkeypatch.setattr(score, 'scores', counting)

  def run():
    batches = eval_batches(_Pairs(), batch_size=2)
    return evaluate(_darken, batches, ('rgb',), inputs=known)

  first = run()
  assert known == {row.name: row.input for row in first}
  known['set/0'] = {'rgb': Score(1.0, 2.0)}
  again = run()
  assert again[0].input == known['set/0'] and again[1:] == first[1:]
  assert len(scored) == 5 + 5 + 5
  del known['set/2']  # the others of its batch are known
  assert run() == again
  assert len(scored) == 5 + 5 + 5 + 6


def test_images_are_saved_while_the_next_ones_are_restored():
  restoring, calls = threading.Event(), []

  def restore(images):
    calls.append(len(images))
    if len(calls) == 2:
      restoring.set()
    return _darken(images)

  def save(names, images):
    assert restoring.wait(20)

  evaluate(restore, eval_batches(_Pairs(), batch_size=2), ('rgb',), save=save)
  assert calls == [2, 1, 2]


def test_an_image_that_cannot_be_saved_is_an_error():
  def save(names, images):
    if 'set/3' in names:
      raise OSError('no space')

  batches = eval_batches(_Pairs(), batch_size=1)
  with pytest.raises(OSError, match='no space'):
    evaluate(_darken, batches, ('rgb',), save=save)


def test_bad_input_is_refused():
  image = np.zeros((1, 16, 16, 3), np.float32)
  batch = EvalBatch(image, image, ('twin',))
  with pytest.raises(ValueError, match="'twin'"):
    evaluate(_darken, [batch, batch], ('rgb',))
  with pytest.raises(ValueError, match='no images'):
    evaluate(_darken, [], ('rgb',))
  with pytest.raises(ValueError, match='one shape'):
    evaluate(lambda x: x[:, :8], [batch], ('rgb',))


def test_mean_row_averages_each_score():
  rows = [
    Row('a', {'rgb': Score(20.0, 0.5)}, {'rgb': Score(30.0, 0.75)}),
    Row('b', {'rgb': Score(22.0, 0.7)}, {'rgb': Score(np.inf, 1.0)}),
  ]
  mean = mean_row(rows)
  assert mean.name == 'mean'
  assert mean.input['rgb'] == pytest.approx((21, 0.6))
  assert mean.restored['rgb'] == (np.inf, 0.875)
  with pytest.raises(ValueError, match='no rows'):
    mean_row([])


def test_rows_cannot_be_changed():
  row = Row('a', {}, {})
  with pytest.raises(dataclasses.FrozenInstanceError):
    row.name = 'b'
