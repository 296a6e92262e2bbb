// The parts of a network that XLA is slow at on a CPU: depthwise 3x3
// convolutions, the gelu gate after them, layer norm, their gradients, products
// of two images that are summed over pixels, as kernels' gradients are, and
// dense 3x3 convolutions.
//
// Images are float32, (batch, height, width, channels); depthwise kernels are
// (3, 3, channels), dense ones (3, 3, inputs, outputs). An output that has two
// rows (or columns) less than its input is that of the pixels that have all
// neighbours; one of equal size has a border of zeros around its input. The work
// is cut into tasks of some rows; the innermost loop is that over channels.
//
// native.py compiles this file and says what each function computes.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <type_traits>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

// Of a task. They are the same on any number of threads, and so are sums.
constexpr int64_t kRows = 8;

// Pixels at once, which share what they load.
constexpr int kPixels = 4;

// Some channels at once: as many as a register has. The compiler would take
// longer vectors too, and keep them in memory.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef float Short __attribute__((vector_size(16)));

template <typename V>
inline V load(const float* from) {
  V value;  // `from` need not be aligned
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename V>
inline void store(float* to, V value) {
  std::memcpy(to, &value, sizeof value);
}

// Calls f(V(), n) for the n-th channel and those after it that are in a V.
template <typename F>
inline void over_channels(int64_t size, F f) {
  int64_t n = 0;
  for (; n + kLanes <= size; n += kLanes) f(Vector(), n);
  for (; n + 4 <= size; n += 4) f(Short(), n);
  for (; n < size; ++n) f(float(), n);
}

struct Image {
  float* data;
  int64_t batch, height, width, channels;

  float* at(int64_t image, int64_t row, int64_t column) const {
    return data + ((image * height + row) * width + column) * channels;
  }
};

Image image_of(Array array) {
  auto shape = array.dimensions();
  return {array.typed_data(), shape[0], shape[1], shape[2], shape[3]};
}

Image image_of(Result array) { return image_of(*array); }

// Calls work(0), ..., work(count - 1), on the threads that are free.
//
// The calling thread takes part, and waits for calls that have begun alone:
// where all threads wait like it, none waits for a call that nobody makes.
template <typename Work>
void in_parallel(ffi::ThreadPool& threads, int64_t count, Work work) {
  struct Shared {
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::condition_variable finished;
    int64_t done = 0;
  };
  auto shared = std::make_shared<Shared>();
  auto run = [shared, count, &work] {
    int64_t done = 0;
    for (int64_t i; (i = shared->next++) < count; ++done) work(i);
    if (!done) return;  // `work` may be gone
    std::lock_guard<std::mutex> lock(shared->mutex);
    shared->done += done;
    shared->finished.notify_all();
  };
  int64_t helpers = std::min<int64_t>(threads.num_threads(), count) - 1;
  for (int64_t i = 0; i < helpers; ++i) {
    auto copy = run;
    threads.Schedule(std::move(copy));
  }
  run();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == count; });
}

int64_t parts_of(int64_t height) { return (height + kRows - 1) / kRows; }

// Rows of an image, of all those together the part-th.
struct Task {
  int64_t part, image, begin, end;
};

// Calls work(task) until all rows of all images are done.
template <typename Work>
void by_rows(ffi::ThreadPool& threads, const Image& x, Work work) {
  int64_t parts = parts_of(x.height);
  in_parallel(threads, x.batch * parts, [&](int64_t part) {
    int64_t begin = part % parts * kRows;
    work(Task{part, part / parts, begin, std::min(begin + kRows, x.height)});
  });
}

// Where a pixel and its eight neighbours lie.
struct Pixel {
  const float* tap[9];
};

// What lies around the pixels of an output: those of an image, or zeros.
class Surroundings {
 public:
  Surroundings(const Image& image, int64_t height, int64_t width)
      : image_(image),
        zeros_((kPixels + 2) * image.channels),
        up_((image.height - height) / 2 - 1),
        left_((image.width - width) / 2 - 1) {}

  Pixel pixel(int64_t image, int64_t row, int64_t column) const {
    Pixel result;
    for (int t = 0; t < 9; ++t)
      result.tap[t] = at(image, row + t / 3 + up_, column + t % 3 + left_);
    return result;
  }

  // Calls one(column, Pixel) or some(column, above, here, below) for all columns
  // of a row; `some` are kPixels, whose surroundings begin at these pointers.
  template <typename One, typename Some>
  void along(int64_t image, int64_t row, int64_t width, One one,
             Some some) const {
    for (int64_t column = 0; column < width;) {
      int64_t first = column + left_, last = first + kPixels + 1;
      if (first >= 0 && last < image_.width && column + kPixels <= width) {
        some(column, at(image, row + up_, first),
             at(image, row + up_ + 1, first), at(image, row + up_ + 2, first));
        column += kPixels;
      } else {
        one(column, pixel(image, row, column));
        ++column;
      }
    }
  }

 private:
  const float* at(int64_t image, int64_t row, int64_t column) const {
    bool inside = 0 <= row && row < image_.height && 0 <= column &&
                  column < image_.width;
    return inside ? image_.at(image, row, column) : zeros_.data();
  }

  Image image_;
  std::vector<float> zeros_;
  int64_t up_, left_;
};

void convolve(float* out, const Pixel& x, const float* kernel, int64_t size) {
  over_channels(size, [=](auto v, int64_t n) {
    using V = decltype(v);
    V total = {};
    for (int t = 0; t < 9; ++t)
      total += load<V>(x.tap[t] + n) * load<V>(kernel + t * size + n);
    store(out + n, total);
  });
}

// The same for kPixels; see Surroundings::along.
void convolve(float* out, const float* above, const float* here,
              const float* below, const float* kernel, int64_t size) {
  over_channels(size, [=](auto v, int64_t n) {
    using V = decltype(v);
    V total[kPixels] = {};
    auto add = [&](const float* row, const float* k) {
      V left = load<V>(k), middle = load<V>(k + size),
        right = load<V>(k + 2 * size);
      for (int p = 0; p < kPixels; ++p)
        total[p] += load<V>(row + p * size) * left +
                    load<V>(row + (p + 1) * size) * middle +
                    load<V>(row + (p + 2) * size) * right;
    };
    add(above + n, kernel + n);
    add(here + n, kernel + 3 * size + n);
    add(below + n, kernel + 6 * size + n);
    for (int p = 0; p < kPixels; ++p) store(out + p * size + n, total[p]);
  });
}

// Adds a pixel's share of the gradient of a kernel; g is that of the output.
void add_kernel_gradient(float* sum, const Pixel& x, const float* g,
                         int64_t size) {
  over_channels(size, [=](auto v, int64_t n) {
    using V = decltype(v);
    for (int t = 0; t < 9; ++t) {
      float* s = sum + t * size + n;
      store(s, load<V>(s) + load<V>(x.tap[t] + n) * load<V>(g + n));
    }
  });
}

// The same for kPixels.
void add_kernel_gradient(float* sum, const float* above, const float* here,
                         const float* below, const float* g, int64_t size) {
  over_channels(size, [=](auto v, int64_t n) {
    using V = decltype(v);
    V grad[kPixels];
    for (int p = 0; p < kPixels; ++p) grad[p] = load<V>(g + p * size + n);
    auto add = [&](float* s, const float* row) {
      for (int t = 0; t < 3; ++t) {
        V total = load<V>(s + t * size);
        for (int p = 0; p < kPixels; ++p)
          total += load<V>(row + (p + t) * size) * grad[p];
        store(s + t * size, total);
      }
    };
    add(sum + n, above + n);
    add(sum + 3 * size + n, here + n);
    add(sum + 6 * size + n, below + n);
  });
}

// Sums over the pixels of an image, made by task and then added up.
class Sums {
 public:
  Sums(const Image& x, int64_t size)
      : size_(size), sums_(size * x.batch * parts_of(x.height)) {}

  float* of(const Task& task) { return sums_.data() + task.part * size_; }

  // Those of all images, or of each of several `groups` of images.
  void add_up(float* out, int64_t groups = 1) const {
    int64_t of_group = sums_.size() / groups;
    for (int64_t group = 0; group < groups; ++group, out += size_) {
      const float* sum = sums_.data() + group * of_group;
      std::copy_n(sum, size_, out);
      for (int64_t begin = size_; begin < of_group; begin += size_)
        for (int64_t n = 0; n < size_; ++n) out[n] += sum[begin + n];
    }
  }

 private:
  int64_t size_;
  std::vector<float> sums_;
};

// Products of two images that are summed over pixels are matrix products over
// a tile of some inputs (channels of x) and outputs (of g), in registers.
#ifdef __AVX512F__
constexpr int kInputs = 8;
#else
constexpr int kInputs = 4;
#endif
constexpr int kVectors = 2;

// sum[i, o] += x[p, i] g[p, o] over some pixels p, one after another in memory.
template <int inputs, int vectors, typename V>
inline void add_tile(float* sum, const float* x, const float* g, int64_t pixels,
                     int64_t in, int64_t out) {
  constexpr int64_t width = sizeof(V) / sizeof(float);
  V total[inputs][vectors];
  for (int i = 0; i < inputs; ++i)
    for (int v = 0; v < vectors; ++v)
      total[i][v] = load<V>(sum + i * out + v * width);
  for (int64_t p = 0; p < pixels; ++p, x += in, g += out)
    for (int v = 0; v < vectors; ++v) {
      V right = load<V>(g + v * width);
      for (int i = 0; i < inputs; ++i) total[i][v] += x[i] * right;
    }
  for (int i = 0; i < inputs; ++i)
    for (int v = 0; v < vectors; ++v)
      store(sum + i * out + v * width, total[i][v]);
}

template <int inputs>
void add_inputs(float* sum, const float* x, const float* g, int64_t pixels,
                int64_t in, int64_t out) {
  constexpr int64_t step = kLanes * kVectors;
  int64_t n = 0;
  for (; n + step <= out; n += step)
    add_tile<inputs, kVectors, Vector>(sum + n, x, g + n, pixels, in, out);
  for (; n + kLanes <= out; n += kLanes)
    add_tile<inputs, 1, Vector>(sum + n, x, g + n, pixels, in, out);
  for (; n + 4 <= out; n += 4)
    add_tile<inputs, 1, Short>(sum + n, x, g + n, pixels, in, out);
  for (; n < out; ++n)
    add_tile<inputs, 1, float>(sum + n, x, g + n, pixels, in, out);
}

void add_products(float* sum, const float* x, const float* g, int64_t pixels,
                  int64_t in, int64_t out) {
  int64_t i = 0;
  for (; i + kInputs <= in; i += kInputs)
    add_inputs<kInputs>(sum + i * out, x + i, g, pixels, in, out);
  for (; i < in; ++i) add_inputs<1>(sum + i * out, x + i, g, pixels, in, out);
}

// What a row of g adds to the (taps, in, out) of a kernel of 1 or 3x3 taps.
void add_products_of_row(float* sum, const Image& x, const Image& g,
                         int64_t image, int64_t row, int64_t taps) {
  int64_t size = x.channels * g.channels, reach = taps == 9;
  for (int64_t t = 0; t < taps; ++t) {
    int64_t up = reach ? t / 3 - 1 : 0, right = reach ? t % 3 - 1 : 0;
    if (row + up < 0 || row + up >= x.height) continue;
    int64_t begin = std::max<int64_t>(0, -right);
    int64_t end = std::min(x.width, x.width - right);
    if (begin >= end) continue;
    add_products(sum + t * size, x.at(image, row + up, begin + right),
                 g.at(image, row, begin), end - begin, x.channels, g.channels);
  }
}

// A kernel turned by half a turn, with which gradients go back.
std::vector<float> turned(const Array& kernel, int64_t channels) {
  std::vector<float> result(9 * channels);
  for (int t = 0; t < 9; ++t)
    std::copy_n(kernel.typed_data() + t * channels, channels,
                result.data() + (8 - t) * channels);
  return result;
}

// A row of the depthwise convolution, (width, channels).
void convolve_row(float* out, const Surroundings& x, int64_t image, int64_t row,
                  const float* kernel, int64_t width, int64_t size) {
  x.along(
      image, row, width,
      [&](int64_t column, const Pixel& pixel) {
        convolve(out + column * size, pixel, kernel, size);
      },
      [&](int64_t column, auto above, auto here, auto below) {
        convolve(out + column * size, above, here, below, kernel, size);
      });
}

// A row's share of the kernel's gradient; g is that of the row of the output.
void add_kernel_gradient_of_row(float* sum, const Surroundings& x,
                                int64_t image, int64_t row, const float* g,
                                int64_t width, int64_t size) {
  x.along(
      image, row, width,
      [&](int64_t column, const Pixel& pixel) {
        add_kernel_gradient(sum, pixel, g + column * size, size);
      },
      [&](int64_t column, auto above, auto here, auto below) {
        add_kernel_gradient(sum, above, here, below, g + column * size, size);
      });
}

// The distribution function of the normal distribution, by the rational
// approximation of erf that Eigen and XLA use, to float32's precision.
inline float normal_cdf(float value) {
  float x = value * 0.70710678f;
  x = x < -4.f ? -4.f : x > 4.f ? 4.f : x;
  float s = x * x;
  float p = -2.72614225801306e-10f;
  p = p * s + 2.77068142495902e-08f;
  p = p * s - 2.10102402082508e-06f;
  p = p * s - 5.69250639462346e-05f;
  p = p * s - 7.34990630326855e-04f;
  p = p * s - 2.95459980854025e-03f;
  p = p * s - 1.60960333262415e-02f;
  float q = -1.45660718464996e-05f;
  q = q * s - 2.13374055278905e-04f;
  q = q * s - 1.68282697438203e-03f;
  q = q * s - 7.37332916720468e-03f;
  q = q * s - 1.42647390514189e-02f;
  return 0.5f + 0.5f * (x * p / q);
}

// exp(-x^2 / 2) / sqrt(2 pi): 2^n e^r, with the series of e^r for |r| < 0.35.
inline float normal_density(float x) {
  float power = -0.5f * x * x;
  power = power < -87.f ? -87.f : power;
  // Adding 1.5 * 2^23 rounds to a whole number.
  float n = (power * 1.44269504f + 12582912.f) - 12582912.f;
  float r = (power - n * 0.693359375f) + n * 2.12194440e-4f;
  float e = 1.f / 720;
  e = e * r + 1.f / 120;
  e = e * r + 1.f / 24;
  e = e * r + 1.f / 6;
  e = e * r + 0.5f;
  e = e * r + 1.f;
  e = e * r + 1.f;
  int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return e * scale * 0.39894228f;
}

void gate(float* __restrict out, const float* __restrict a,
          const float* __restrict b, int64_t size) {
  for (int64_t c = 0; c < size; ++c) out[c] = a[c] * normal_cdf(a[c]) * b[c];
}

// The same, and its gradients with respect to a and b.
void gate_gradients(float* __restrict out, float* __restrict grad_a,
                    float* __restrict grad_b, const float* __restrict a,
                    const float* __restrict b, const float* __restrict g,
                    int64_t size) {
  for (int64_t c = 0; c < size; ++c) {
    float cdf = normal_cdf(a[c]), gelu = a[c] * cdf;
    out[c] = gelu * b[c];
    grad_a[c] = g[c] * b[c] * (cdf + a[c] * normal_density(a[c]));
    grad_b[c] = g[c] * gelu;
  }
}

ffi::Error depthwise(ffi::ThreadPool threads, Array x_, Array kernel,
                     Result out_) {
  Image x = image_of(x_), out = image_of(out_);
  Surroundings around(x, out.height, out.width);
  by_rows(threads, out, [&](const Task& task) {
    for (int64_t row = task.begin; row < task.end; ++row)
      convolve_row(out.at(task.image, row, 0), around, task.image, row,
                   kernel.typed_data(), out.width, out.channels);
  });
  return ffi::Error::Success();
}

ffi::Error depthwise_gradients(ffi::ThreadPool threads, Array x_, Array kernel,
                               Array g_, Result grad_x_, Result grad_kernel) {
  Image x = image_of(x_), g = image_of(g_), grad_x = image_of(grad_x_);
  Surroundings around_x(x, x.height, x.width), around_g(g, x.height, x.width);
  std::vector<float> back = turned(kernel, x.channels);
  Sums total(x, 9 * x.channels);
  by_rows(threads, x, [&](const Task& task) {
    for (int64_t row = task.begin; row < task.end; ++row) {
      convolve_row(grad_x.at(task.image, row, 0), around_g, task.image, row,
                   back.data(), x.width, x.channels);
      add_kernel_gradient_of_row(total.of(task), around_x, task.image, row,
                                 g.at(task.image, row, 0), x.width, x.channels);
    }
  });
  total.add_up(grad_kernel->typed_data());
  return ffi::Error::Success();
}

ffi::Error depthwise_gate(ffi::ThreadPool threads, Array x_, Array kernel,
                          Result out_) {
  Image x = image_of(x_), out = image_of(out_);
  Surroundings around(x, out.height, out.width);
  by_rows(threads, out, [&](const Task& task) {
    std::vector<float> wide(out.width * x.channels);
    for (int64_t row = task.begin; row < task.end; ++row) {
      convolve_row(wide.data(), around, task.image, row, kernel.typed_data(),
                   out.width, x.channels);
      for (int64_t column = 0; column < out.width; ++column) {
        const float* a = wide.data() + column * x.channels;
        gate(out.at(task.image, row, column), a, a + out.channels,
             out.channels);
      }
    }
  });
  return ffi::Error::Success();
}

// Results are the gradients, and the output of depthwise_gate, made anew.
ffi::Error depthwise_gate_gradients(ffi::ThreadPool threads, Array x_,
                                    Array kernel, Array g_, Result grad_x_,
                                    Result grad_kernel, Result out_) {
  Image x = image_of(x_), g = image_of(g_);
  Image grad_x = image_of(grad_x_), out = image_of(out_);
  int64_t half = g.channels;
  Surroundings around(x, x.height, x.width);
  std::vector<float> back = turned(kernel, x.channels);
  Sums total(x, 9 * x.channels);
  by_rows(threads, x, [&](const Task& task) {
    // The gradient of the convolution's output is made where it is needed: a
    // task makes those of the rows above and below it for itself too.
    int64_t above = std::max<int64_t>(task.begin - 1, 0);
    int64_t below = std::min(task.end + 1, x.height);
    int64_t row_size = x.width * x.channels;
    std::vector<float> wide(row_size), unused(half);
    std::vector<float> grads((below - above) * row_size);
    for (int64_t row = above; row < below; ++row) {
      bool own = task.begin <= row && row < task.end;
      convolve_row(wide.data(), around, task.image, row, kernel.typed_data(),
                   x.width, x.channels);
      float* grad_row = grads.data() + (row - above) * row_size;
      for (int64_t column = 0; column < x.width; ++column) {
        const float* a = wide.data() + column * x.channels;
        float* grad = grad_row + column * x.channels;
        gate_gradients(own ? out.at(task.image, row, column) : unused.data(),
                       grad, grad + half, a, a + half,
                       g.at(task.image, row, column), half);
      }
      if (own)
        add_kernel_gradient_of_row(total.of(task), around, task.image, row,
                                   grad_row, x.width, x.channels);
    }
    Image of_task = {grads.data(), 1, below - above, x.width, x.channels};
    Surroundings around_grads(of_task, of_task.height, x.width);
    for (int64_t row = task.begin; row < task.end; ++row)
      convolve_row(grad_x.at(task.image, row, 0), around_grads, 0, row - above,
                   back.data(), x.width, x.channels);
  });
  total.add_up(grad_kernel->typed_data());
  return ffi::Error::Success();
}

// Dense 3x3 convolutions: the sums of a tile, that is some columns of kBlock
// outputs, are in registers. Rows are copied first, with a border of zeros and
// kBlock channels at a time: the compiler knows how far apart pixels are.
constexpr int kBlock = 16;
#ifdef __AVX512F__
constexpr int kTile = 16;
#else
constexpr int kTile = 4;
#endif

int64_t blocks_of(int64_t channels) { return (channels + kBlock - 1) / kBlock; }

// Rows of an image from `begin` to `end`, which may be outside of it.
class PaddedRows {
 public:
  PaddedRows(const Image& x, int64_t image, int64_t begin, int64_t end)
      : begin_(begin),
        size_(((x.width + kTile - 1) / kTile * kTile + 3) * kBlock),
        blocks_(blocks_of(x.channels)),
        data_(new float[(end - begin) * blocks_ * size_]) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t block = 0; block < blocks_; ++block) {
        float* to = data_.get() + ((row - begin) * blocks_ + block) * size_;
        bool inside = 0 <= row && row < x.height;
        int64_t columns = inside ? x.width : 0;
        int64_t first = block * kBlock;
        int64_t size = std::min<int64_t>(kBlock, x.channels - first);
        const float* from = inside ? x.at(image, row, 0) + first : nullptr;
        float* pixel = std::fill_n(to, kBlock, 0.f);
        for (int64_t c = 0; c < columns;
             ++c, pixel += kBlock, from += x.channels)
          std::copy_n(from, size, pixel);
        std::fill(pixel, to + size_, 0.f);
      }
  }

  const float* at(int64_t row, int64_t block, int64_t column) const {
    return data_.get() + ((row - begin_) * blocks_ + block) * size_ +
           (column + 1) * kBlock;
  }

 private:
  int64_t begin_, size_, blocks_;
  std::unique_ptr<float[]> data_;
};

// A tile from `column` on, (kTile, kBlock); kernel: (3, 3, in, kBlock).
void convolve_tile(float* out, const PaddedRows& x, int64_t row, int64_t column,
                   const float* kernel, int64_t in) {
  constexpr int vectors = kBlock / kLanes;
  Vector total[kTile][vectors] = {};
  for (int t = 0; t < 9; ++t)
    for (int64_t first = 0; first < in; first += kBlock) {
      const float* from =
          x.at(row + t / 3 - 1, first / kBlock, column + t % 3 - 1);
      int64_t size = std::min<int64_t>(kBlock, in - first);
      for (int64_t i = 0; i < size; ++i, kernel += kBlock)
        for (int v = 0; v < vectors; ++v) {
          Vector weights = load<Vector>(kernel + v * kLanes);
          for (int p = 0; p < kTile; ++p)
            total[p][v] += from[p * kBlock + i] * weights;
        }
    }
  std::memcpy(out, total, sizeof total);
}

// A kernel as (blocks of outputs, 3, 3, in, kBlock), zeros in the last block.
std::vector<float> in_blocks(const Array& kernel, int64_t in, int64_t out) {
  std::vector<float> result(blocks_of(out) * 9 * in * kBlock);
  const float* from = kernel.typed_data();
  for (int64_t n = 0; n < 9 * in; ++n)
    for (int64_t o = 0; o < out; ++o)
      result[(o / kBlock * 9 * in + n) * kBlock + o % kBlock] = *from++;
  return result;
}

ffi::Error conv3x3(ffi::ThreadPool threads, Array x_, Array kernel_,
                   Result out_) {
  Image x = image_of(x_), out = image_of(out_);
  std::vector<float> kernel = in_blocks(kernel_, x.channels, out.channels);
  // Of the first pixel that is computed.
  int64_t up = (x.height - out.height) / 2, left = (x.width - out.width) / 2;
  by_rows(threads, out, [&](const Task& task) {
    PaddedRows rows(x, task.image, task.begin + up - 1, task.end + up + 1);
    float tile[kTile * kBlock];
    for (int64_t row = task.begin; row < task.end; ++row)
      for (int64_t column = 0; column < out.width; column += kTile)
        for (int64_t o = 0; o < out.channels; o += kBlock) {
          convolve_tile(tile, rows, row + up, column + left,
                        kernel.data() + o * 9 * x.channels, x.channels);
          int64_t columns = std::min<int64_t>(kTile, out.width - column);
          int64_t size = std::min<int64_t>(kBlock, out.channels - o);
          for (int64_t p = 0; p < columns; ++p)
            std::copy_n(tile + p * kBlock, size,
                        out.at(task.image, row, column + p) + o);
        }
  });
  return ffi::Error::Success();
}

ffi::Error kernel_gradient(ffi::ThreadPool threads, Array x_, Array g_,
                           Result out) {
  Image x = image_of(x_), g = image_of(g_);
  int64_t taps = out->dimensions()[0];
  Sums total(g, taps * x.channels * g.channels);
  by_rows(threads, g, [&](const Task& task) {
    for (int64_t row = task.begin; row < task.end; ++row)
      add_products_of_row(total.of(task), x, g, task.image, row, taps);
  });
  total.add_up(out->typed_data());
  return ffi::Error::Success();
}

ffi::Error gram(ffi::ThreadPool threads, Array x_, Array g_, Result out) {
  Image x = image_of(x_), g = image_of(g_);
  Sums total(g, x.channels * g.channels);
  by_rows(threads, g, [&](const Task& task) {
    for (int64_t row = task.begin; row < task.end; ++row)
      add_products_of_row(total.of(task), x, g, task.image, row, 1);
  });
  total.add_up(out->typed_data(), x.batch);
  return ffi::Error::Success();
}

constexpr float kEpsilon = 1e-5f;

inline float sum_of(Vector v) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
}

// Sums of f(V, n), an array of `count` vectors, over channels.
template <int count, typename F>
inline void sum_over_channels(float* totals, int64_t size, F f) {
  Vector wide[count] = {};
  std::fill_n(totals, count, 0.f);
  int64_t n = 0;
  for (; n + kLanes <= size; n += kLanes) f(wide, n);
  for (; n < size; ++n) f(totals, n);
  for (int i = 0; i < count; ++i) totals[i] += sum_of(wide[i]);
}

// The mean of a pixel's channels and 1 / their standard deviation.
inline std::pair<float, float> moments(const float* x, int64_t size) {
  float sum, squares;
  sum_over_channels<1>(&sum, size, [=](auto* total, int64_t n) {
    using V = std::remove_reference_t<decltype(*total)>;
    total[0] += load<V>(x + n);
  });
  float mean = sum / size;
  sum_over_channels<1>(&squares, size, [=](auto* total, int64_t n) {
    using V = std::remove_reference_t<decltype(*total)>;
    V centred = load<V>(x + n) - mean;
    total[0] += centred * centred;
  });
  return {mean, 1 / std::sqrt(squares / size + kEpsilon)};
}

ffi::Error layer_norm(ffi::ThreadPool threads, Array x_, Array scale_,
                      Array bias_, Result out_) {
  Image x = image_of(x_), out = image_of(out_);
  const float *scale = scale_.typed_data(), *bias = bias_.typed_data();
  by_rows(threads, x, [&](const Task& task) {
    const float* in = x.at(task.image, task.begin, 0);
    float* to = out.at(task.image, task.begin, 0);
    int64_t pixels = (task.end - task.begin) * x.width;
    for (int64_t p = 0; p < pixels; ++p, in += x.channels, to += x.channels) {
      auto [mean, inverse] = moments(in, x.channels);
      over_channels(x.channels, [&, m = mean, r = inverse](auto v, int64_t n) {
        using V = decltype(v);
        V normal = (load<V>(in + n) - m) * r;
        store(to + n, normal * load<V>(scale + n) + load<V>(bias + n));
      });
    }
  });
  return ffi::Error::Success();
}

ffi::Error layer_norm_gradients(ffi::ThreadPool threads, Array x_, Array scale_,
                                Array g_, Result grad_x_, Result grad_scale,
                                Result grad_bias) {
  Image x = image_of(x_), g = image_of(g_), grad_x = image_of(grad_x_);
  const float* scale = scale_.typed_data();
  int64_t size = x.channels;
  Sums scales(x, size), biases(x, size);
  by_rows(threads, x, [&](const Task& task) {
    const float* in = x.at(task.image, task.begin, 0);
    const float* from = g.at(task.image, task.begin, 0);
    float* to = grad_x.at(task.image, task.begin, 0);
    float *of_scale = scales.of(task), *of_bias = biases.of(task);
    int64_t pixels = (task.end - task.begin) * x.width;
    for (int64_t p = 0; p < pixels; ++p, in += size, from += size, to += size) {
      auto [mean, inverse] = moments(in, size);
      float m = mean, r = inverse, sums[2];
      sum_over_channels<2>(sums, size, [=](auto* total, int64_t n) {
        using V = std::remove_reference_t<decltype(*total)>;
        V grad = load<V>(from + n), normal = (load<V>(in + n) - m) * r;
        V scaled = grad * load<V>(scale + n);
        total[0] += scaled;
        total[1] += scaled * normal;
        store(of_bias + n, load<V>(of_bias + n) + grad);
        store(of_scale + n, load<V>(of_scale + n) + grad * normal);
      });
      float first = sums[0] / size, second = sums[1] / size;
      over_channels(size, [=](auto v, int64_t n) {
        using V = decltype(v);
        V normal = (load<V>(in + n) - m) * r;
        V scaled = load<V>(from + n) * load<V>(scale + n);
        store(to + n, (scaled - first - normal * second) * r);
      });
    }
  });
  scales.add_up(grad_scale->typed_data());
  biases.add_up(grad_bias->typed_data());
  return ffi::Error::Success();
}

}  // namespace

#define HANDLER(name, function, binding) \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(         \
      name, function, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>() binding)
#define ARG .Arg<Array>()
#define RET .Ret<Array>()

HANDLER(Depthwise, depthwise, ARG ARG RET);
HANDLER(DepthwiseGradients, depthwise_gradients, ARG ARG ARG RET RET);
HANDLER(DepthwiseGate, depthwise_gate, ARG ARG RET);
HANDLER(DepthwiseGateGradients, depthwise_gate_gradients,
        ARG ARG ARG RET RET RET);
HANDLER(Conv3x3, conv3x3, ARG ARG RET);
HANDLER(KernelGradient, kernel_gradient, ARG ARG RET);
HANDLER(Gram, gram, ARG ARG RET);
HANDLER(LayerNorm, layer_norm, ARG ARG ARG RET);
HANDLER(LayerNormGradients, layer_norm_gradients, ARG ARG ARG RET RET RET);
