// Dense 3x3 convolutions of any number of channels.

#pragma once

#include "kernels.h"

namespace {

// Dense 3x3 convolutions by Winograd's F(2x2, 3x3) (arXiv:1509.09308): patches
// of 4x4 pixels and kernels are transformed, which makes the convolution a
// product for each of 16 points, of 2.25 times less operations; its results are
// transformed back to 2x2 pixels.
constexpr int64_t kBlock = 16;  // channels
constexpr int kPoints = 16;
#ifdef __AVX512F__
constexpr int kPatches = 8;  // at once, side by side
#else
constexpr int kPatches = 4;
#endif
constexpr int kColumns = 2 * kPatches;
constexpr int kParts = kBlock / kLanes;  // vectors of a block

int64_t blocks_of(int64_t channels) { return (channels + kBlock - 1) / kBlock; }

// Rows `begin` to `end` of images of one size, whose channels come one after the
// other, in blocks of channels. Rows outside are zero; so are `pad` columns to
// the left and some to the right.
class BlockedRows {
 public:
  BlockedRows(const std::vector<Image>& images, int64_t image, int64_t begin,
              int64_t end, int64_t pad)
      : begin_(begin), size_((images[0].width + kColumns + 2 + pad) * kBlock) {
    int64_t channels = 0;
    for (const Image& x : images) channels += x.channels;
    blocks_ = blocks_of(channels);
    data_.reset(new float[(end - begin) * blocks_ * size_]);
    for (int64_t row = begin; row < end; ++row) {
      float* to = data_.get() + (row - begin) * blocks_ * size_;
      bool inside = 0 <= row && row < images[0].height;
      int64_t columns = inside ? pad + images[0].width : 0;
      for (int64_t b = 0; b < blocks_; ++b) {
        float* block = to + b * size_;
        std::fill_n(block, pad * kBlock, 0.f);
        std::fill(block + columns * kBlock, block + size_, 0.f);
      }
      int64_t first = 0;  // channel
      for (const Image& x : images) {
        if (inside) copy_row(to + pad * kBlock, first, x, image, row);
        first += x.channels;
      }
    }
  }

  // A block of channels of a pixel; the next pixel comes kBlock later.
  const float* at(int64_t row, int64_t block, int64_t column) const {
    return data_.get() + ((row - begin_) * blocks_ + block) * size_ +
           column * kBlock;
  }

  int64_t row_size() const { return blocks_ * size_; }
  int64_t blocks() const { return blocks_; }

 private:
  void copy_row(float* to, int64_t first, const Image& x, int64_t image,
                int64_t row) {
    for (int64_t done = 0; done < x.channels;) {
      int64_t at = (first + done) % kBlock;
      int64_t size = std::min(kBlock - at, x.channels - done);
      float* pixel = to + (first + done) / kBlock * size_ + at;
      const float* from = x.at(image, row, 0) + done;
      for (int64_t c = 0; c < x.width; ++c, pixel += kBlock, from += x.channels)
        if (size == kBlock)
          std::copy_n(from, kBlock, pixel);
        else
          std::copy_n(from, size, pixel);
      done += size;
    }
  }

  int64_t begin_, size_, blocks_;
  std::unique_ptr<float[]> data_;
};

// Between the points of a transformed kernel: not a power of two, by which
// caches would lose them.
int64_t point_of(int64_t in) { return (in + 1) * kBlock; }

// A kernel (3, 3, in, out) as (blocks of outputs, kPoints, in, kBlock).
std::vector<float> transformed_kernel(const Array& kernel, int64_t in,
                                      int64_t out) {
  int64_t point = point_of(in);
  std::vector<float> result(blocks_of(out) * kPoints * point);
  for (int64_t i = 0; i < in; ++i)
    for (int64_t o = 0; o < out; o += kBlock) {
      int64_t size = std::min<int64_t>(kBlock, out - o);
      const float* from = kernel.typed_data() + i * out + o;
      float* to = result.data() + o * point + i * kBlock;
      over_channels(size, [=](auto v, int64_t n) {
        using V = decltype(v);
        V rows[4][3];
        for (int c = 0; c < 3; ++c) {
          V g[3];
          for (int r = 0; r < 3; ++r)
            g[r] = load<V>(from + (3 * r + c) * in * out + n);
          rows[0][c] = g[0], rows[3][c] = g[2];
          rows[1][c] = 0.5f * (g[0] + g[1] + g[2]);
          rows[2][c] = 0.5f * (g[0] - g[1] + g[2]);
        }
        for (int r = 0; r < 4; ++r) {
          const V* g = rows[r];
          float* at = to + 4 * r * point + n;
          store(at, g[0]);
          store(at + point, 0.5f * (g[0] + g[1] + g[2]));
          store(at + 2 * point, 0.5f * (g[0] - g[1] + g[2]));
          store(at + 3 * point, g[2]);
        }
      });
    }
  return result;
}

// kPatches patches of 4x4 pixels side by side, the first of them at `from` and
// rows a distance apart, to points a distance apart.
inline void transform_patches(float* to, int64_t point, const float* from,
                              int64_t row) {
  for (int v = 0; v < kParts; ++v, to += kLanes, from += kLanes) {
    auto column = [=](int c, Vector* t) {
      const float* at = from + c * kBlock;
      Vector d[4];
      for (int r = 0; r < 4; ++r) d[r] = load<Vector>(at + r * row);
      t[0] = d[0] - d[2], t[1] = d[1] + d[2];
      t[2] = d[2] - d[1], t[3] = d[1] - d[3];
    };
    Vector t[4][4];  // columns of the patch
    column(0, t[0]), column(1, t[1]);
    for (int p = 0; p < kPatches; ++p) {
      column(2 * p + 2, t[2]), column(2 * p + 3, t[3]);
      for (int r = 0; r < 4; ++r) {
        float* at = to + 4 * r * point + p * kBlock;
        store(at, t[0][r] - t[2][r]);
        store(at + point, t[1][r] + t[2][r]);
        store(at + 2 * point, t[2][r] - t[1][r]);
        store(at + 3 * point, t[1][r] - t[3][r]);
        t[0][r] = t[2][r], t[1][r] = t[3][r];
      }
    }
  }
}

// One point of kPatches patches, (in blocks, kPatches, kBlock), times its part
// of the kernel, (in, kBlock).
inline void multiply_point(float* to, const float* patches, const float* kernel,
                           int64_t in) {
  Vector total[kPatches][kParts] = {};
  for (int64_t first = 0; first < in;
       first += kBlock, patches += kPatches * kBlock) {
    int64_t size = std::min<int64_t>(kBlock, in - first);
    for (int64_t i = 0; i < size; ++i, kernel += kBlock)
      for (int v = 0; v < kParts; ++v) {
        Vector weights = load<Vector>(kernel + v * kLanes);
        for (int p = 0; p < kPatches; ++p)
          total[p][v] += patches[p * kBlock + i] * weights;
      }
  }
  std::memcpy(to, total, sizeof total);
}

// The points of a patch, a distance apart, to kBlock channels of its 2x2 pixels,
// which have a distance, too.
inline void transform_back(float* to, int64_t pixel, const float* from,
                           int64_t point) {
  for (int v = 0; v < kParts; ++v, to += kLanes, from += kLanes) {
    Vector s[2][4];
    for (int c = 0; c < 4; ++c) {
      Vector m[4];
      for (int r = 0; r < 4; ++r) m[r] = load<Vector>(from + (4 * r + c) * point);
      s[0][c] = m[0] + m[1] + m[2], s[1][c] = m[1] - m[2] - m[3];
    }
    for (int r = 0; r < 2; ++r) {
      store(to + 2 * r * pixel, s[r][0] + s[r][1] + s[r][2]);
      store(to + (2 * r + 1) * pixel, s[r][1] - s[r][2] - s[r][3]);
    }
  }
}

// The convolution of images' channels, with zero padding of `pad` pixels, 0 or 1;
// calls finish(image, row, column, values) for each pixel.
template <typename F>
void convolve_densely(ffi::ThreadPool& threads,
                      const std::vector<Image>& images, const Array& kernel_,
                      int64_t pad, F finish) {
  int64_t in = kernel_.dimensions()[2], out = kernel_.dimensions()[3];
  std::vector<float> kernel = transformed_kernel(kernel_, in, out);
  int64_t less = 2 - 2 * pad;
  Image core = {nullptr, images[0].batch, images[0].height - less,
                images[0].width - less, out};
  by_rows(threads, core, [&](const Task& task) {
    int64_t height = (task.end - task.begin + 1) / 2 * 2;
    int64_t above = task.begin - pad;
    BlockedRows rows(images, task.image, above, above + height + 2, pad);
    int64_t point = rows.blocks() * kPatches * kBlock;
    int64_t pixel = blocks_of(out) * kBlock;
    std::unique_ptr<float[]> patches(new float[kPoints * point]);
    std::unique_ptr<float[]> values(new float[4 * kPatches * pixel]);
    float sums[kPoints * kPatches * kBlock];
    for (int64_t row = task.begin; row < task.end; row += 2)
      for (int64_t column = 0; column < core.width; column += kColumns) {
        for (int64_t b = 0; b < rows.blocks(); ++b)
          transform_patches(patches.get() + b * kPatches * kBlock, point,
                            rows.at(row - pad, b, column), rows.row_size());
        for (int64_t o = 0; o < out; o += kBlock) {
          for (int n = 0; n < kPoints; ++n)
            multiply_point(sums + n * kPatches * kBlock,
                           patches.get() + n * point,
                           kernel.data() + (o + n) * point_of(in), in);
          for (int p = 0; p < kPatches; ++p)
            transform_back(values.get() + 4 * p * pixel + o, pixel,
                           sums + p * kBlock, kPatches * kBlock);
        }
        for (int n = 0; n < 4 * kPatches; ++n) {
          int64_t r = row + n % 4 / 2, c = column + n / 4 * 2 + n % 2;
          if (r < task.end && c < core.width)
            finish(task.image, r, c, values.get() + n * pixel);
        }
      }
  });
}

}  // namespace
