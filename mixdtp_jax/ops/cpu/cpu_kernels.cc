// The parts of a network that XLA is slow at on a CPU: depthwise 3x3
// convolutions, the gelu gate after them, layer norm, their gradients, products
// of two images that are summed over pixels, as kernels' gradients are, and
// dense 3x3 convolutions of few channels.
//
// An output that has two rows (or columns) less than its input is that of the
// pixels that have all neighbours; one of equal size has a border of zeros around
// its input.
//
// native.py says what each function computes.

#include "winograd.h"

namespace {

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

ffi::Error conv3x3(ffi::ThreadPool threads, Array x, Array kernel,
                   Result out_) {
  Image out = image_of(out_);
  auto finish = [&](int64_t image, int64_t row, int64_t column,
                    const float* value) {
    std::copy_n(value, out.channels, out.at(image, row, column));
  };
  convolve_densely(threads, {image_of(x)}, kernel, 1, finish);
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
