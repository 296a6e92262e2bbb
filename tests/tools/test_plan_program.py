"""Programs that XLA compiled here, and lines as its TPU compiler writes."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mixdtp_jax.recipe.crop_schedule import stages
from mixdtp_jax.recipe.knobs import make_recipe
from mixdtp_jax.runtime.mesh import make_mesh
from mixdtp_jax.tools.plan.hlo import Array
from mixdtp_jax.tools.plan.program import Collective, Program
from mixdtp_jax.tools.plan.step import abstract_state
from mixdtp_jax.training.step import abstract_batch, make_train_step
from tests.helpers import tiny

pytestmark = pytest.mark.usefixtures('quick_compiler')


def _program(function, *args, devices=1):
  return Program(jax.jit(function).lower(*args).compile().as_text(), devices)


def _sharded(shape, *axes):
  sharding = NamedSharding(make_mesh(), PartitionSpec(*axes))
  return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)


@pytest.mark.slow
def test_a_step_of_eight_devices_sums_every_gradient_once():
  config = tiny.get_config()
  # Two blocks: their gradients are in a loop, or stacked by one.
  config.model.encoder_blocks = (2, 1, 1, 1)
  # Gradients of weights that are used twice are summed apart.
  config.model.coupling = False
  mesh = make_mesh()
  state = abstract_state(make_recipe(config), mesh)
  (stage,) = stages(make_recipe(config))
  batch = abstract_batch(stage.batch_size, stage.crop, mesh)
  step = (
    make_train_step(make_recipe(config), mesh).lower(state, batch).compile()
  )
  found = Program(step.as_text(), 8)
  collectives = found.collectives()
  assert {c.kind for c in collectives} == {'all-reduce'}
  assert {c.devices for c in collectives} == {8}
  assert found.unknown_loops == 0
  gradients = sum(4 * leaf.size for leaf in jax.tree.leaves(state.params))
  summed = sum(c.bytes * c.times for c in collectives)
  # And a few scalars.
  assert gradients <= summed <= gradients + 1000
  sent = sum(c.sent_bytes for c in collectives)
  assert sent == pytest.approx(2 * 7 / 8 * summed)


def test_a_sum_in_a_loop_counts_as_often_as_it_runs():
  x = _sharded((8, 100), 'data')

  def loop(x):
    return jax.lax.scan(
      lambda total, _: (jnp.sin(total + jnp.sin(x * total.sum()).sum(0)), None),
      jnp.zeros(100),
      length=5,
    )[0]

  found = _program(loop, x, devices=8).collectives()
  assert {c.kind for c in found} == {'all-reduce'}
  assert sum(c.bytes * c.times for c in found) >= 5 * 400


def test_what_other_exchanges_send():
  def gather(x):
    return jax.lax.with_sharding_constraint(
      x, NamedSharding(make_mesh(), PartitionSpec())
    )

  (found,) = _program(
    gather, _sharded((16, 10), 'data'), devices=8
  ).collectives()
  assert (found.kind, found.bytes, found.times) == ('all-gather', 80, 1)
  assert found.sent_bytes == 7 * 80
  assert found.dtypes == ('f32',)


def test_kernels_read_and_write_memory():
  x = jnp.ones((1000, 100))
  assert _program(lambda x: x + 1, x).memory_traffic() == 2 * x.nbytes
  assert _program(lambda x: x, x).memory_traffic() <= 2 * x.nbytes


def test_of_a_stack_a_loop_reads_one_slice_each_time():
  stack = jnp.ones((50, 30, 30))

  def loop(stack):
    return jax.lax.scan(
      lambda x, slice_: (jnp.sin(x + slice_), None), jnp.zeros((30, 30)), stack
    )[0]

  traffic = _program(loop, stack).memory_traffic()
  # Each time a slice and the sum so far are read, and the sum is written; what
  # counts the times is small.
  assert 2 * stack.nbytes < traffic < 4.5 * stack.nbytes


def test_into_a_stack_a_loop_writes_one_slice_each_time():
  x = jnp.ones((30, 30))

  def loop(x):
    return jax.lax.scan(lambda x, _: (jnp.sin(x),) * 2, x, length=50)[1]

  traffic = _program(loop, x).memory_traffic()
  # The stack is filled with zeros. Each time the value is copied, its sine is
  # taken, and it is written into the stack.
  assert traffic == pytest.approx((1 + 3 * 2) * 50 * x.nbytes, rel=0.02)


# As libtpu writes programs: tiled layouts, S(1) for memory beside the compute
# units, and a loop whose length its condition tells.
_TPU = """HloModule jit_f, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%condition (p: (s32[], f32[8,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(6)
  %p = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%count, %limit), direction=LT
}

%body (q: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %q = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%q), index=1
  %r.1 = f32[8,128]{1,0:T(8,128)} all-reduce-start(%x), GROUPS, to_apply=%add
  %r.2 = f32[8,128]{1,0:T(8,128)} all-reduce-done(%r.1)
  %i = s32[]{:T(128)} get-tuple-element(%q), index=0
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)S(1)} add(%i, %one)
  ROOT %t = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%next, %r.2)
}

ENTRY %main (y: f32[8,128], z: bf16[5,3]) -> f32[8,128] {
  %y = f32[8,128]{1,0:T(8,128)} parameter(0)
  %z = bf16[5,3]{1,0:T(8,128)(2,1)} parameter(1), sharding={replicated}
  %room = f32[999]{0:T(128)} custom-call(), custom_call_target="AllocateBuffer"
  %s.1 = (bf16[5,3]{1,0:T(8,128)(2,1)S(1)}, TILED, u32[]{:S(2)}) copy-start(%z)
  %s.2 = bf16[5,3]{1,0:T(8,128)(2,1)S(1)} copy-done(%s.1)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%zero, %y)
  %w = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%start), LOOP
  %f = f32[8,128]{1,0:T(8,128)} get-tuple-element(%w), index=1
  ROOT %n = f32[8,128]{1,0:T(8,128)} negate(%f)
}
"""
for _short, _text in (
  ('GROUPS', 'replica_groups=[4,4]<=[16]'),
  ('TILED', 'bf16[5,3]{1,0:T(8,128)(2,1)}'),
  ('LOOP', 'condition=%condition, body=%body'),
):
  _TPU = _TPU.replace(_short, _text)


def test_a_tpus_program():
  program = Program(_TPU, 16)
  assert program.unknown_loops == 0
  (found,) = program.collectives()
  assert found == Collective('all-reduce', ('f32',), 4096, 4, 6)
  assert found.sent_bytes == 2 * 3 / 4 * 4096 * 6
  # The copy fills a tile of 8x128. In the loop the sum reads and writes, and
  # the count and what is added to it are read; the result stays inside.
  copied = 8 * 128 * 2
  looped = 6 * (2 * 4096 + 4 + 4)
  assert program.memory_traffic() == copied + looped + 2 * 4096


# As it writes them for GPUs: a library's call makes its result, and has room.
_GPU = """HloModule jit_f, is_scheduled=true

ENTRY %main (x: bf16[9,4], y: bf16[4,3]) -> bf16[9,3] {
  %x = bf16[9,4]{1,0} parameter(0)
  %y = bf16[4,3]{1,0} parameter(1)
  %p = (bf16[9,3]{1,0}, s8[4194304]{0}) custom-call(%x, %y), CALLED
  ROOT %r = bf16[9,3]{1,0} get-tuple-element(%p), index=0
}
""".replace('CALLED', 'custom_call_target="__cublas$gemm"')


def test_the_room_of_a_librarys_call_is_not_traffic():
  moved = 2 * (9 * 4 + 4 * 3 + 9 * 3)
  assert Program(_GPU, 1).memory_traffic() == moved
  another = '(bf16[9,3]{1,0}, bf16[9,3]{1,0}, s8'
  text = _GPU.replace('(bf16[9,3]{1,0}, s8', another)
  assert Program(text, 1).memory_traffic() == moved + 2 * 9 * 3
  text = _GPU.replace('(bf16[9,3]{1,0}, s8[4194304]{0})', 'bf16[9,3]{1,0}')
  assert Program(text, 1).memory_traffic() == moved


def test_a_loop_of_unknown_length_counts_once_and_is_told():
  text = _TPU.replace('direction=LT', 'direction=NE')
  program = Program(text, 16)
  assert program.unknown_loops == 1
  assert program.collectives()[0].times == 1


@pytest.mark.parametrize(
  ('axes', 'devices'), [("'a'", 4), ("'a','c'", 8), ("'b'", 2)]
)
def test_a_group_may_be_axes_of_a_mesh(axes, devices):
  mesh = f"mesh['a'=4,'b'=2,'c'=2] {{{axes}}}"
  text = _TPU.replace('[4,4]<=[16]', mesh)
  assert Program(text, 16).collectives()[0].devices == devices


def test_names_of_one_group_may_be_listed():
  text = _TPU.replace('[4,4]<=[16]', '{{0,1},{2,3}}')
  assert Program(text, 16).collectives()[0].devices == 2
  text = _TPU.replace(', replica_groups=[4,4]<=[16]', '')
  assert Program(text, 16).collectives()[0].devices == 16


def test_refuses_what_is_no_program():
  with pytest.raises(ValueError, match='no ENTRY'):
    Program('nothing', 1)


def test_the_number_of_bits_of_every_type():
  array = Array('bf16', (3, 5), '')
  assert array.bytes == array.stored_bytes == 30
  assert Array('pred', (8,), '').bytes == 8
  assert Array('s4', (8,), '').bytes == 4
  assert Array('f8e4m3fn', (8,), '').bytes == 8
  assert Array('token', (), '').bytes == 0
  assert Array('f32', (2, 3, 130), '2,0,1:T(8,128)').stored_bytes == (
    4 * 256 * 8 * 3
  )
