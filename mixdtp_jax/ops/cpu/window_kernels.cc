// The parts of a network for windows of an image: results have a border less
// than what they are computed from, so that no window needs its neighbours.
//
// `bounds` are the first row, the end of the rows, the first column and the end
// of the columns of a window that lie in the image. Results have no meaning
// outside of it, where they are not said to be zero.
//
// native.py says what each function computes.

#include "winograd.h"

namespace {

using Numbers = ffi::Buffer<ffi::S32>;

// The part of an array that lies in the image.
struct Existing {
  int64_t top, bottom, left, right;

  // `trim`: rows and columns that the array has less than the window, each side.
  Existing(const Numbers& bounds, int64_t trim) {
    const int32_t* b = bounds.typed_data();
    top = b[0] - trim, bottom = b[1] - trim;
    left = b[2] - trim, right = b[3] - trim;
  }

  bool row(int64_t row) const { return top <= row && row < bottom; }
  bool column(int64_t column) const { return left <= column && column < right; }
};

// Of an argument that is not given.
bool missing(const Array& array) { return array.element_count() == 0; }

ffi::Error conv3x3_inside(ffi::ThreadPool threads, Array x, Array kernel,
                          Array bias_, Array added_, Numbers bounds,
                          Result out_, int64_t relu, int64_t trim) {
  Image out = image_of(out_);
  const float* bias = missing(bias_) ? nullptr : bias_.typed_data();
  Image added = missing(added_) ? Image{} : image_of(added_);
  int64_t crop = (added.height - out.height) / 2;
  Existing existing(bounds, trim);
  auto finish = [&](int64_t image, int64_t row, int64_t column,
                    const float* value) {
    float* to = out.at(image, row, column);
    if (trim >= 0 && !(existing.row(row) && existing.column(column))) {
      std::fill_n(to, out.channels, 0.f);
      return;
    }
    const float* more =
        added.data ? added.at(image, row + crop, column + crop) : nullptr;
    over_channels(out.channels, [=](auto v, int64_t n) {
      using V = decltype(v);
      V sum = load<V>(value + n);
      if (bias) sum += load<V>(bias + n);
      if (relu) sum = sum > 0 ? sum : V{};
      if (more) sum += load<V>(more + n);
      if (relu && more) sum = sum > 0 ? sum : V{};
      store(to + n, sum);
    });
  };
  convolve_densely(threads, {image_of(x)}, kernel, 0, finish);
  return ffi::Error::Success();
}

// 1 / (1 + e^-x): e^y as 2^n e^r, with the series of e^r for |r| < 0.35.
template <typename V>
inline V sigmoid(V x) {
  V y = x < -87.f ? V{} + 87.f : x > 87.f ? V{} - 87.f : -x;
  // Adding 1.5 * 2^23 rounds to a whole number; then its bits are that number.
  V shifted = y * 1.44269504f + 12582912.f;
  V n = shifted - 12582912.f;
  V r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
  V e = r * (1.f / 720) + 1.f / 120;
  e = e * r + 1.f / 24;
  e = e * r + 1.f / 6;
  e = e * r + 0.5f;
  e = e * r + 1.f;
  e = e * r + 1.f;
  int32_t bits[sizeof(V) / 4];
  std::memcpy(bits, &shifted, sizeof bits);
  for (int32_t& b : bits) b = (b - 0x4b400000 + 127) << 23;
  V power;
  std::memcpy(&power, bits, sizeof bits);
  return 1.f / (1.f + e * power);
}

template <typename V>
inline V tanh_of(V x) {
  return 2.f * sigmoid(2.f * x) - 1.f;
}

// The gates of a convolutional LSTM, their convolution included.
ffi::Error lstm(ffi::ThreadPool threads, Array x, Array h, Array c_,
                Array kernel, Array bias_, Numbers bounds, Result new_c_,
                Result new_h_, int64_t trim) {
  Image new_c = image_of(new_c_), new_h = image_of(new_h_);
  Image c = missing(c_) ? Image{} : image_of(c_);
  const float* bias = bias_.typed_data();
  Existing existing(bounds, trim);
  int64_t size = new_c.channels;
  auto finish = [&](int64_t, int64_t row, int64_t column,
                    const float* value) {
    const float* before = c.data ? c.at(0, row, column) : nullptr;
    float* to_c = new_c.at(0, row, column);
    float* to_h = new_h.at(0, row, column);
    bool inside = existing.row(row) && existing.column(column);
    over_channels(size, [=](auto v, int64_t n) {
      using V = decltype(v);
      auto gate = [=](int64_t g) {
        return load<V>(value + g * size + n) + load<V>(bias + g * size + n);
      };
      V state = sigmoid(gate(0)) * tanh_of(gate(2));
      if (before) state += sigmoid(gate(1)) * load<V>(before + n);
      store(to_c + n, state);
      V shown = sigmoid(gate(3)) * tanh_of(state);
      store(to_h + n, inside ? shown : V{});
    });
  };
  std::vector<Image> images = {image_of(x)};
  if (!missing(h)) images.push_back(image_of(h));
  convolve_densely(threads, images, kernel, 0, finish);
  return ffi::Error::Success();
}

// out[p, o] (+)= a[p, i] w[i, o], in tiles of some pixels and outputs.
template <int pixels, int vectors, typename V>
inline void product_tile(float* out, const float* a, const float* w, int64_t in,
                         int64_t outs, bool add) {
  constexpr int64_t width = sizeof(V) / sizeof(float);
  V total[pixels][vectors];
  for (int p = 0; p < pixels; ++p)
    for (int v = 0; v < vectors; ++v)
      total[p][v] = add ? load<V>(out + p * outs + v * width) : V{};
  for (int64_t i = 0; i < in; ++i, w += outs)
    for (int v = 0; v < vectors; ++v) {
      V weights = load<V>(w + v * width);
      for (int p = 0; p < pixels; ++p) total[p][v] += a[p * in + i] * weights;
    }
  for (int p = 0; p < pixels; ++p)
    for (int v = 0; v < vectors; ++v)
      store(out + p * outs + v * width, total[p][v]);
}

template <int vectors, typename V>
void product_columns(float* out, const float* a, const float* w, int64_t pixels,
                     int64_t in, int64_t outs, bool add) {
  int64_t p = 0;
  for (; p + kPatches <= pixels; p += kPatches)
    product_tile<kPatches, vectors, V>(out + p * outs, a + p * in, w, in, outs,
                                       add);
  for (; p < pixels; ++p)
    product_tile<1, vectors, V>(out + p * outs, a + p * in, w, in, outs, add);
}

void product(float* out, const float* a, const float* w, int64_t pixels,
             int64_t in, int64_t outs, bool add = false) {
  int64_t n = 0;
  for (; n + 2 * kLanes <= outs; n += 2 * kLanes)
    product_columns<2, Vector>(out + n, a, w + n, pixels, in, outs, add);
  for (; n + kLanes <= outs; n += kLanes)
    product_columns<1, Vector>(out + n, a, w + n, pixels, in, outs, add);
  for (; n + 4 <= outs; n += 4)
    product_columns<1, Short>(out + n, a, w + n, pixels, in, outs, add);
  for (; n < outs; ++n)
    product_columns<1, float>(out + n, a, w + n, pixels, in, outs, add);
}

// The weights of a layer norm.
struct Norm {
  const float *scale, *bias;
};

inline float total_of(Vector v) {
  Short parts[kLanes / 4];
  std::memcpy(parts, &v, sizeof v);
  for (int i = 1; i < kLanes / 4; ++i) parts[0] += parts[i];
  return parts[0][0] + parts[0][1] + (parts[0][2] + parts[0][3]);
}

// The sum over channels of f(values) of a pixel, in vectors and then one by one.
template <typename F>
inline float sum_over(const float* x, int64_t size, F f) {
  Vector wide = {};
  float rest = 0;
  int64_t n = 0;
  for (; n + kLanes <= size; n += kLanes) wide += f(load<Vector>(x + n));
  for (; n < size; ++n) rest += f(x[n]);
  return total_of(wide) + rest;
}

// A row of pixels normalised; zero where it is not in the image.
void normalise_row(float* to, const float* from, int64_t pixels, int64_t size,
                   Norm norm, const Existing& existing, int64_t row) {
  int64_t first = std::clamp<int64_t>(existing.left, 0, pixels);
  int64_t last = std::clamp<int64_t>(existing.right, first, pixels);
  if (!existing.row(row)) last = first;
  std::fill(to, to + first * size, 0.f);
  std::fill(to + last * size, to + pixels * size, 0.f);
  for (int64_t p = first; p < last; ++p) {
    const float* in = from + p * size;
    float* out = to + p * size;
    float mean = sum_over(in, size, [](auto v) { return v; }) / size;
    float squares = sum_over(in, size, [=](auto v) {
      return (v - mean) * (v - mean);
    });
    float inverse = 1 / std::sqrt(squares / size + kEpsilon);
    over_channels(size, [=](auto v, int64_t n) {
      using V = decltype(v);
      V normal = (load<V>(in + n) - mean) * inverse;
      store(out + n, normal * load<V>(norm.scale + n) + load<V>(norm.bias + n));
    });
  }
}

// gelu(a) * b as `gate`, with vectors for the last channels too.
void gate_in_vectors(float* out, const float* a, const float* b, int64_t size) {
  over_channels(size, [=](auto v, int64_t n) {
    using V = decltype(v);
    V value = load<V>(a + n), x = value * 0.70710678f;
    x = x < -4.f ? V{} - 4.f : x;
    x = x > 4.f ? V{} + 4.f : x;
    V s = x * x;
    V p = s * -2.72614225801306e-10f + 2.77068142495902e-08f;
    p = p * s - 2.10102402082508e-06f;
    p = p * s - 5.69250639462346e-05f;
    p = p * s - 7.34990630326855e-04f;
    p = p * s - 2.95459980854025e-03f;
    p = p * s - 1.60960333262415e-02f;
    V q = s * -1.45660718464996e-05f - 2.13374055278905e-04f;
    q = q * s - 1.68282697438203e-03f;
    q = q * s - 7.37332916720468e-03f;
    q = q * s - 1.42647390514189e-02f;
    store(out + n, value * (0.5f + 0.5f * (x * p / q)) * load<V>(b + n));
  });
}

// Calls some(p, count) for pixels of a row: kPixels of them at first, then one.
template <typename F>
void by_pixels(int64_t pixels, F f) {
  int64_t p = 0;
  for (; p + kPixels <= pixels; p += kPixels) f(p, kPixels);
  for (; p < pixels; ++p) f(p, 1);
}

// Three rows, of which the oldest is overwritten by the newest.
class Rows {
 public:
  explicit Rows(int64_t size) : size_(size), data_(new float[3 * size]) {}
  float* operator[](int64_t row) { return data_.get() + row % 3 * size_; }

 private:
  int64_t size_;
  std::unique_ptr<float[]> data_;
};

// The depthwise convolution at a pixel, or at kPixels: that in the middle of
// rows `row` - 1 to `row` + 1 and columns p to p + 2.
void convolve_at(float* out, Rows& rows, int64_t row, int64_t p, int64_t pixels,
                 const float* kernel, int64_t size) {
  const float* from[3];
  for (int r = 0; r < 3; ++r) from[r] = rows[row + r - 1] + p * size;
  if (pixels == kPixels) {
    convolve(out, from[0], from[1], from[2], kernel, size);
    return;
  }
  Pixel around;
  for (int t = 0; t < 9; ++t) around.tap[t] = from[t / 3] + t % 3 * size;
  convolve(out, around, kernel, size);
}

// Rows of a task: those above and below it are computed once more.
constexpr int64_t kStrip = 32;

ffi::Error attention_sums(ffi::ThreadPool threads, Array x_, Numbers bounds,
                          Array scale, Array bias, Array q_, Array q_depthwise,
                          Array k_, Array k_depthwise, Result out_) {
  Image x = image_of(x_);
  int64_t size = x.channels, width = x.width - 2;
  Existing existing(bounds, 0);
  int64_t first = std::clamp<int64_t>(existing.left - 1, 0, width);
  int64_t last = std::clamp<int64_t>(existing.right - 1, first, width);
  Norm norm = {scale.typed_data(), bias.typed_data()};
  Image core = {nullptr, x.batch, x.height - 2, width, size};
  Sums total(core, size * (size + 2), kStrip);
  by_rows(threads, core, [&](const Task& task) {
    Rows q(x.width * size), k(x.width * size);
    std::vector<float> normal(x.width * size), q_row(width * size),
        k_row(width * size);
    float* sum = total.of(task);
    for (int64_t row = task.begin; row < task.end + 2; ++row) {
      normalise_row(normal.data(), x.at(task.image, row, 0), x.width, size,
                    norm, existing, row);
      product(q[row], normal.data(), q_.typed_data(), x.width, size, size);
      product(k[row], normal.data(), k_.typed_data(), x.width, size, size);
      if (row < task.begin + 2 || !existing.row(row - 1)) continue;
      by_pixels(width, [&](int64_t p, int64_t pixels) {
        convolve_at(&q_row[p * size], q, row - 1, p, pixels,
                    q_depthwise.typed_data(), size);
        convolve_at(&k_row[p * size], k, row - 1, p, pixels,
                    k_depthwise.typed_data(), size);
      });
      add_products(sum, &q_row[first * size], &k_row[first * size],
                   last - first, size, size);
      float* squares = sum + size * size;
      for (int64_t n = first * size; n < last * size; n += size)
        for (int64_t c = 0; c < size; ++c) {
          squares[c] += q_row[n + c] * q_row[n + c];
          squares[size + c] += k_row[n + c] * k_row[n + c];
        }
    }
  }, kStrip);
  total.add_up(out_->typed_data(), x.batch);
  return ffi::Error::Success();
}

ffi::Error block(ffi::ThreadPool threads, Array x_, Numbers bounds, Array mix,
                 Array scale, Array bias, Array v_, Array v_depthwise,
                 Array scale_2, Array bias_2, Array widen, Array depthwise,
                 Array narrow, Result out_) {
  Image x = image_of(x_), out = image_of(out_);
  int64_t size = x.channels, hidden = widen.dimensions()[1];
  Existing existing(bounds, 0), existing_2(bounds, 1);
  Norm norm = {scale.typed_data(), bias.typed_data()};
  Norm norm_2 = {scale_2.typed_data(), bias_2.typed_data()};
  int64_t width = x.width - 2;
  by_rows(threads, out, [&](const Task& task) {
    Rows value(x.width * size), mixed(width * size), wide(width * hidden);
    std::vector<float> normal(x.width * size), taken(width * size);
    std::vector<float> both(kPixels * hidden), gated(out.width * hidden / 2);
    int64_t next = task.begin;  // row of `value`
    for (int64_t row = task.begin + 1; row < task.end + 3; ++row) {
      for (; next <= row + 1; ++next) {
        normalise_row(normal.data(), x.at(task.image, next, 0), x.width, size,
                      norm, existing, next);
        product(value[next], normal.data(), v_.typed_data(), x.width, size,
                size);
      }
      by_pixels(width, [&](int64_t p, int64_t pixels) {
        convolve_at(&taken[p * size], value, row, p, pixels,
                    v_depthwise.typed_data(), size);
      });
      std::copy_n(x.at(task.image, row, 1), width * size, mixed[row]);
      product(mixed[row], taken.data(), mix.typed_data(), width, size, size,
              true);
      normalise_row(normal.data(), mixed[row], width, size, norm_2, existing_2,
                    row - 1);
      product(wide[row], normal.data(), widen.typed_data(), width, size,
              hidden);
      if (row < task.begin + 3) continue;
      by_pixels(out.width, [&](int64_t p, int64_t pixels) {
        convolve_at(both.data(), wide, row - 1, p, pixels,
                    depthwise.typed_data(), hidden);
        for (int64_t n = 0; n < pixels; ++n) {
          const float* a = &both[n * hidden];
          gate_in_vectors(&gated[(p + n) * hidden / 2], a, a + hidden / 2,
                          hidden / 2);
        }
      });
      float* to = out.at(task.image, row - 3, 0);
      std::copy_n(mixed[row - 1] + size, out.width * size, to);
      product(to, gated.data(), narrow.typed_data(), out.width, hidden / 2,
              size, true);
    }
  }, kStrip);
  return ffi::Error::Success();
}

}  // namespace

#define ARG .Arg<Array>()
#define NUMBERS .Arg<Numbers>()
#define RET .Ret<Array>()
#define HANDLER(name, function, binding) \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(         \
      name, function, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() binding)

HANDLER(Conv3x3Inside, conv3x3_inside,
        ARG ARG ARG ARG NUMBERS RET.Attr<int64_t>("relu").Attr<int64_t>("trim"));
HANDLER(Lstm, lstm,
        ARG ARG ARG ARG ARG NUMBERS RET RET.Attr<int64_t>("trim"));
HANDLER(AttentionSums, attention_sums,
        ARG NUMBERS ARG ARG ARG ARG ARG ARG RET);
HANDLER(Block, block,
        ARG NUMBERS ARG ARG ARG ARG ARG ARG ARG ARG ARG ARG RET);
