// R-FCN's objects from the head's maps (docs/bundle.md), the same as `keywarp.engines.detection.regions` finds on the host:
// proposals, position-sensitive pooling and voting, softmax, box regression, suppression. Objects are few, so that one small
// download takes the place of that of the maps.
//
// A chain of kernels, one step each, in one stream. No kernel waits for other threads of its own: what must be in order is a
// kernel of its own, and ranks are counted in place of sorting. Comparisons are in float or by integers, exponentials and
// sums over bins in double, like on the host, so that orders are the same and values differ by rounding at most.
//
// Like warp.cuh, this includes nothing, and runs on a CPU behind tests/engines/cuda/shim.hpp.
#pragma once

namespace keywarp {

typedef unsigned long long Bits;

constexpr double kMaxLogRatio = 4.135166556742356;  // log(1000 / 16)
constexpr Bits kNoKey = ~0ull;                       // of what isn't ranked, behind all others

// ---- ranking

// Ascending keys are descending scores, and the lower index first among equal ones. -0 equals 0. NaN has none.
__device__ inline Bits ranking_key(float score, unsigned index) {
  if (score != score) return kNoKey;
  const unsigned bits = __float_as_uint(score + 0.f);
  const unsigned descending = bits >> 31 ? bits : bits ^ 0x7fffffffu;
  return static_cast<Bits>(descending) << 32 | index;
}

// ---- boxes, x1 y1 x2 y2 in pixels

struct Box {
  float x1, y1, x2, y2;
};

__device__ inline bool is_empty(Box box) { return !(box.x1 < box.x2 && box.y1 < box.y2); }

__device__ inline float clipped(double value, int limit) {
  const double low = value > 0. ? value : 0.;
  return static_cast<float>(low < limit ? low : limit);
}

// Box regression in double. A NaN makes an empty box.
__device__ inline Box decoded(const float* deltas, Box reference, const double* std, int height, int width) {
  const double dx = deltas[0] * std[0], dy = deltas[1] * std[1], dw = deltas[2] * std[2], dh = deltas[3] * std[3];
  if (dx != dx || dy != dy || dw != dw || dh != dh) return {0.f, 0.f, 0.f, 0.f};
  const double x = reference.x1, y = reference.y1, w = reference.x2 - x, h = reference.y2 - y;
  const double centre_x = x + w / 2 + dx * w, centre_y = y + h / 2 + dy * h;
  const double half_w = exp(dw < kMaxLogRatio ? dw : kMaxLogRatio) * w / 2;
  const double half_h = exp(dh < kMaxLogRatio ? dh : kMaxLogRatio) * h / 2;
  return {clipped(centre_x - half_w, width), clipped(centre_y - half_h, height), clipped(centre_x + half_w, width),
          clipped(centre_y + half_h, height)};
}

__device__ inline bool overlap(Box a, Box b, float iou) {
  const float w = fmaxf(0.f, fminf(a.x2, b.x2) - fmaxf(a.x1, b.x1));
  const float h = fmaxf(0.f, fminf(a.y2, b.y2) - fmaxf(a.y1, b.y1));
  const float intersection = w * h;
  const float size_a = (a.x2 - a.x1) * (a.y2 - a.y1), size_b = (b.x2 - b.x1) * (b.y2 - b.y1);
  return intersection / (size_b + size_a - intersection) > iou;
}

// ---- suppression: which later boxes each box removes, then who stays

// One word of 64 later boxes for each box. Boxes of different groups don't compete, and a box without a group (-1) isn't there.
__device__ inline Bits removed_by(const Box* boxes, const int* groups, int n, int count, int word, float iou) {
  Bits removed = 0;
  if (groups != nullptr && groups[n] < 0) return removed;
  for (int bit = 0; bit < 64; ++bit) {
    const int other = word * 64 + bit;
    if (other <= n || other >= count) continue;
    if ((groups == nullptr || groups[other] == groups[n]) && overlap(boxes[n], boxes[other], iou)) removed |= 1ull << bit;
  }
  return removed;
}

constexpr int kMostWords = 512;  // of 64 boxes: MOST_BOXES of last_step.py

// One thread for all: keeps the best that no kept one removes. Empty boxes neither stay nor remove. `gone` is shared memory,
// and only boxes that are left are visited, so that the thread seldom waits.
__device__ inline int survivors(const Box* __restrict__ boxes, const int* __restrict__ groups,
                                const Bits* __restrict__ removes, Bits* gone, int count, int words, int limit,
                                int* __restrict__ kept) {
  for (int word = 0; word < words; ++word) gone[word] = 0;
  int stay = 0;
  for (int n = 0; stay < limit; ++n) {
    while (n < count && ~gone[n / 64] >> (n % 64) == 0) n = (n | 63) + 1;  // the rest of these 64 is gone
    while (n < count && gone[n / 64] >> (n % 64) & 1) ++n;
    if (n >= count || (groups != nullptr && groups[n] < 0)) break;  // those that aren't there come last
    if (is_empty(boxes[n])) continue;
    kept[stay++] = n;
    const Bits* row = removes + static_cast<size_t>(n) * words;
#pragma unroll 8
    for (int word = n / 64; word < words; ++word) gone[word] |= row[word];
  }
  return stay;
}

// ---- position-sensitive pooling

__device__ inline int rounded(float value) { return static_cast<int>(floor(static_cast<double>(value) + 0.5)); }

struct Edges {
  int first, end;
};

// The cells of one bin along one side of a region.
__device__ inline Edges bin_edges(float start, float end, float scale, int bins, int bin, int cells) {
  const int first = rounded(start * scale), last = rounded(end * scale);
  const float size = static_cast<float>(last - first > 1 ? last - first : 1) / static_cast<float>(bins);
  const int from = first + static_cast<int>(floorf(static_cast<float>(bin) * size));
  const int to = first + static_cast<int>(ceilf(static_cast<float>(bin + 1) * size));
  return {from < cells ? from : cells, to < cells ? to : cells};
}

// The mean over bins of each bin's mean over cells, for one channel. A bin without cells counts as zero.
__device__ inline float voted(const float* maps, Box region, float scale, int bins, int height, int width, int channels,
                              int channel) {
  double votes = 0.;
  for (int bin = 0; bin < bins * bins; ++bin) {
    const Edges rows = bin_edges(region.y1, region.y2, scale, bins, bin / bins, height);
    const Edges columns = bin_edges(region.x1, region.x2, scale, bins, bin % bins, width);
    const int cells = (rows.end - rows.first) * (columns.end - columns.first);
    if (cells == 0) continue;
    float sum = 0.f;
    for (int y = rows.first; y < rows.end; ++y)
      for (int x = columns.first; x < columns.end; ++x)
        sum += maps[((static_cast<size_t>(y) * width + x) * bins * bins + bin) * channels + channel];
    votes += sum / static_cast<float>(cells);
  }
  return static_cast<float>(votes / (bins * bins));
}

}  // namespace keywarp
