// Frames as inputs of the networks: the same bytes as those of `keywarp.engines.preparation` on the host, where OpenCV makes
// them. The kernels take images of bytes with three channels, (height, width, 3), and write each byte of their result once.
//
// Like warp.cuh, this includes nothing, and runs on a CPU behind tests/engines/cuda/shim.hpp.

namespace keywarp {

constexpr int kChannels = 3;

__device__ inline int clamped(int value, int first, int end) { return value < first ? first : value < end ? value : end - 1; }

// Where a row or column of the picture lies in the frame: two of its rows or columns, and their weights of 2048 in all.
struct Tap {
  int first, second, first_weight, second_weight;
};

}  // namespace keywarp

// Bilinear resizing (INTER_LINEAR). A thread for each pixel of the networks' input: along a row in x, rows in y. The picture
// begins in row `top` and column `left`, and has `picture_rows` x `picture_columns` pixels; around it there is padding.
// `rows` and `columns` have the taps of the picture's rows and columns. With `halved`, the frame is exactly twice as large as
// the picture, and OpenCV takes the mean of four pixels instead.
extern "C" __global__ void keywarp_resize(const unsigned char* frame, const keywarp::Tap* rows, const keywarp::Tap* columns,
                                          unsigned char* input, int frame_width, int height, int width, int top, int left,
                                          int picture_rows, int picture_columns, int padding, int halved) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
  if (x >= width || y >= height) return;
  unsigned char* out = input + (static_cast<size_t>(y) * width + x) * keywarp::kChannels;
  const int row = y - top, column = x - left;
  if (row < 0 || row >= picture_rows || column < 0 || column >= picture_columns) {
    for (int c = 0; c < keywarp::kChannels; ++c) out[c] = static_cast<unsigned char>(padding);
    return;
  }
  const keywarp::Tap down = rows[row], across = columns[column];
  const unsigned char* above = frame + static_cast<size_t>(down.first) * frame_width * keywarp::kChannels;
  const unsigned char* below = frame + static_cast<size_t>(down.second) * frame_width * keywarp::kChannels;
  const int before = across.first * keywarp::kChannels, after = across.second * keywarp::kChannels;
  for (int c = 0; c < keywarp::kChannels; ++c) {
    if (halved) {
      out[c] = static_cast<unsigned char>((above[before + c] + above[after + c] + below[before + c] + below[after + c] + 2) >> 2);
      continue;
    }
    // Products of 8 and 11 bits, of which OpenCV drops 4 before it multiplies by 11 more, and 16 afterwards.
    const int upper = (above[before + c] * across.first_weight + above[after + c] * across.second_weight) >> 4;
    const int lower = (below[before + c] * across.first_weight + below[after + c] * across.second_weight) >> 4;
    const int sum = ((upper * down.first_weight) >> 16) + ((lower * down.second_weight) >> 16);
    out[c] = static_cast<unsigned char>((sum + 2) >> 2);
  }
}

// The mean over blocks of `factor` x `factor` pixels (INTER_AREA). A thread for each pixel of the result. The block of its first
// pixel begins in row `first_row` and column `first_column` of the image, which may be outside. Outside of the part from row
// `top` to `bottom` and from column `left` to `right` the part's border is repeated.
extern "C" __global__ void keywarp_shrink(const unsigned char* image, unsigned char* small, int image_width, int height,
                                          int width, int factor, int first_row, int first_column, int top, int bottom,
                                          int left, int right) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
  if (x >= width || y >= height) return;
  int sums[keywarp::kChannels] = {};
  for (int i = 0; i < factor; ++i) {
    const int row = keywarp::clamped(first_row + y * factor + i, top, bottom);
    for (int j = 0; j < factor; ++j) {
      const int column = keywarp::clamped(first_column + x * factor + j, left, right);
      const unsigned char* pixel = image + (static_cast<size_t>(row) * image_width + column) * keywarp::kChannels;
      for (int c = 0; c < keywarp::kChannels; ++c) sums[c] += pixel[c];
    }
  }
  unsigned char* out = small + (static_cast<size_t>(y) * width + x) * keywarp::kChannels;
  for (int c = 0; c < keywarp::kChannels; ++c) {
    // OpenCV rounds halves up for four pixels, and to even otherwise.
    out[c] = static_cast<unsigned char>(factor == 2 ? (sums[c] + 2) >> 2
                                                    : static_cast<int>(rintf(sums[c] * (1.f / (factor * factor)))));
  }
}

// A copy without gaps between rows. A thread for each byte: along a row in x, rows in y.
extern "C" __global__ void keywarp_pack(const unsigned char* surface, unsigned char* frame, int length, int pitch) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
  if (x < length) frame[static_cast<size_t>(y) * length + x] = surface[static_cast<size_t>(y) * pitch + x];
}
