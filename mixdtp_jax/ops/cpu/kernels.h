// What the kernels share: images, tasks of some rows, vectors of some channels.
//
// Images are float32, (batch, height, width, channels); depthwise kernels are
// (3, 3, channels), dense ones (3, 3, inputs, outputs). The work is cut into
// tasks of some rows; the innermost loop is that over channels.

#pragma once

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

// Of a task, usually. They are the same on any number of threads, and so are
// sums.
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

int64_t parts_of(int64_t height, int64_t rows) {
  return (height + rows - 1) / rows;
}

// Rows of an image, of all those together the part-th.
struct Task {
  int64_t part, image, begin, end;
};

// Calls work(task) until all rows of all images are done.
template <typename Work>
void by_rows(ffi::ThreadPool& threads, const Image& x, Work work,
             int64_t rows = kRows) {
  int64_t parts = parts_of(x.height, rows);
  in_parallel(threads, x.batch * parts, [&](int64_t part) {
    int64_t begin = part % parts * rows;
    work(Task{part, part / parts, begin, std::min(begin + rows, x.height)});
  });
}

// Where a pixel and its eight neighbours lie.
struct Pixel {
  const float* tap[9];
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

// Sums over the pixels of an image, made by task and then added up.
class Sums {
 public:
  Sums(const Image& x, int64_t size, int64_t rows = kRows)
      : size_(size), sums_(size * x.batch * parts_of(x.height, rows)) {}

  float* of(const Task& task) { return sums_.data() + task.part * size_; }

  // Those of all images, or of each of several `groups` of images.
  void add_up(float* out, int64_t groups = 1) const {
    if (sums_.empty()) {  // there are no pixels
      std::fill_n(out, groups * size_, 0.f);
      return;
    }
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

void gate(float* __restrict out, const float* __restrict a,
          const float* __restrict b, int64_t size) {
  for (int64_t c = 0; c < size; ++c) out[c] = a[c] * normal_cdf(a[c]) * b[c];
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

}  // namespace

