// The class of each pixel, from scores at the stride of the features: the same labels as those of `keywarp.engines.labels` on
// the host, which describes the method. The arithmetic is in float, in the host's order and without fused products
// (--fmad=false), so labels are equal, those of ties included.
//
//   scores   (N, C, rows, columns)
//   highest  (N, rows, columns)     the class with the highest score of each cell
//   labels   (N, height, width)
//
// Like warp.cuh, this includes nothing, and runs on a CPU behind tests/engines/cuda/shim.hpp.

namespace keywarp {

// What the host's compiler makes of max and min, which matters for NaN.
__device__ inline float greater(float a, float b) { return b > a ? b : a; }
__device__ inline float lesser(float a, float b) { return b < a ? b : a; }

// The scores of one class in the four cells around a pixel.
struct Corners {
  float above_left, above_right, below_left, below_right;
};

__device__ inline Corners corners_of(const float* plane, int row, int below, int column, int after, int columns) {
  return {plane[row * columns + column], plane[row * columns + after], plane[below * columns + column],
          plane[below * columns + after]};
}

__device__ inline float interpolated(Corners c, float down, float right) {
  const float start = c.above_left + (c.below_left - c.above_left) * down;
  const float end = c.above_right + (c.below_right - c.above_right) * down;
  return start + (end - start) * right;
}

}  // namespace keywarp

// A thread for each cell of each image: its best class, the first one of several.
extern "C" __global__ void keywarp_highest(const float* scores, unsigned char* highest, int classes, int cells) {
  const int cell = blockIdx.x * blockDim.x + threadIdx.x;
  if (cell >= cells) return;
  const float* own = scores + static_cast<size_t>(blockIdx.z) * classes * cells + cell;
  float best = own[0];
  int label = 0;
  for (int c = 1; c < classes; ++c) {
    const float score = own[static_cast<size_t>(c) * cells];
    if (score > best) {
      best = score;
      label = c;
    }
  }
  highest[static_cast<size_t>(blockIdx.z) * cells + cell] = static_cast<unsigned char>(label);
}

// A thread for each pixel of each image: along a row in x, rows in y. `row_cells` and `column_cells` have the cell before each
// row and column of pixels, and the shares are those of the next cell.
extern "C" __global__ void keywarp_labels(const float* scores, const unsigned char* highest, const int* row_cells,
                                          const float* row_shares, const int* column_cells, const float* column_shares,
                                          unsigned char* labels, int classes, int rows, int columns, int height,
                                          int width) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
  if (x >= width) return;
  const size_t cells = static_cast<size_t>(rows) * columns;
  scores += blockIdx.z * classes * cells;
  highest += blockIdx.z * cells;
  labels += (static_cast<size_t>(blockIdx.z) * height + y) * width;

  const int row = row_cells[y], column = column_cells[x];
  const int below = row + 1 < rows ? row + 1 : rows - 1, after = column + 1 < columns ? column + 1 : columns - 1;
  int label = highest[row * columns + column];
  const bool same = label == highest[row * columns + after] && label == highest[below * columns + column] &&
                    label == highest[below * columns + after];
  if (!same) {
    float sure = __uint_as_float(0xff800000u);  // what one class reaches in all four cells; -infinity at first
    for (int c = 0; c < classes; ++c) {
      const keywarp::Corners at = keywarp::corners_of(scores + c * cells, row, below, column, after, columns);
      sure = keywarp::greater(sure, keywarp::lesser(keywarp::lesser(at.above_left, at.above_right),
                                                    keywarp::lesser(at.below_left, at.below_right)));
    }
    float best = __uint_as_float(0xff800000u);
    const float down = row_shares[y], right = column_shares[x];
    for (int c = 0; c < classes; ++c) {
      const keywarp::Corners at = keywarp::corners_of(scores + c * cells, row, below, column, after, columns);
      const float most = keywarp::greater(keywarp::greater(at.above_left, at.above_right),
                                          keywarp::greater(at.below_left, at.below_right));
      if (!(most >= sure)) continue;
      const float score = keywarp::interpolated(at, down, right);
      if (score > best) {
        best = score;
        label = c;
      }
    }
  }
  labels[x] = static_cast<unsigned char>(label);
}
