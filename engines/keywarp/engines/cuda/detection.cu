// The kernels by name, in the order in which `device_detection.py` launches them.
#include "detection.cuh"

using keywarp::Bits;
using keywarp::Box;

// A thread for each score: its key.
extern "C" __global__ void keywarp_keys(const float* scores, Bits* keys, int count) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n < count) keys[n] = keywarp::ranking_key(scores[n], n);
}

// A thread for each place in an order: nothing is there yet.
extern "C" __global__ void keywarp_clear(int* order, int count) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n < count) order[n] = -1;
}

// A thread for each key: its rank among all. order[rank] = index for the best `limit`.
extern "C" __global__ void keywarp_rank(const Bits* keys, int* order, int count, int limit) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= count || keys[n] == keywarp::kNoKey) return;
  int rank = 0;
  for (int other = 0; other < count; ++other) rank += keys[other] < keys[n];
  if (rank < limit) order[rank] = n;
}

// A thread for each candidate: its box. A candidate that isn't there (order is -1) has an empty one.
extern "C" __global__ void keywarp_propose(const float* deltas, const Box* anchors, const int* order, const double* std,
                                           Box* boxes, int count, int height, int width) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= count) return;
  const int anchor = order[n];
  boxes[n] = anchor < 0 ? Box{0.f, 0.f, 0.f, 0.f}
                        : keywarp::decoded(deltas + 4 * anchor, anchors[anchor], std, height, width);
}

// A thread for each box and word of 64 boxes.
extern "C" __global__ void keywarp_overlaps(const Box* boxes, const int* groups, Bits* removes, int count, int words,
                                            float iou) {
  const int word = blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;
  if (word < words) removes[static_cast<size_t>(n) * words + word] = keywarp::removed_by(boxes, groups, n, count, word, iou);
}

// One thread: the proposals that stay. The others up to `limit` are empty.
extern "C" __global__ void keywarp_suppress(const Box* boxes, const Bits* removes, int* kept, Box* regions, int count,
                                            int words, int limit) {
  __shared__ Bits gone[keywarp::kMostWords];
  const int stay = keywarp::survivors(boxes, nullptr, removes, gone, count, words, limit, kept);
  for (int n = 0; n < limit; ++n) regions[n] = n < stay ? boxes[kept[n]] : Box{0.f, 0.f, 0.f, 0.f};
}

// A thread for each region and channel.
extern "C" __global__ void keywarp_vote(const float* maps, const Box* regions, float* votes, int bins, int height, int width,
                                        int channels, float scale) {
  const int channel = blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;
  if (channel >= channels) return;
  votes[n * channels + channel] =
      keywarp::is_empty(regions[n]) ? 0.f : keywarp::voted(maps, regions[n], scale, bins, height, width, channels, channel);
}

// A thread for each region: the softmax over its classes, its box, and the keys of the classes that are certain enough, with
// the class first among equal scores. Key `class * regions + region`; the background has none.
extern "C" __global__ void keywarp_score(const float* logits, const float* deltas, const Box* regions, const double* std,
                                         float* scores, Box* boxes, Bits* keys, int count, int classes, int height,
                                         int width, float threshold) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= count) return;
  const float* own = logits + n * classes;
  float highest = own[0];
  bool valid = highest == highest;
  for (int c = 1; c < classes; ++c) {
    valid = valid && own[c] == own[c];
    highest = own[c] > highest ? own[c] : highest;
  }
  double sum = 0.;
  for (int c = 0; c < classes; ++c) sum += exp(own[c] - static_cast<double>(highest));
  const Box box = keywarp::is_empty(regions[n])
                      ? regions[n]
                      : keywarp::decoded(deltas + 4 * n, regions[n], std, height, width);
  boxes[n] = box;
  valid = valid && !keywarp::is_empty(box);
  for (int c = 0; c < classes; ++c) {
    const float score = static_cast<float>(exp(own[c] - static_cast<double>(highest)) / sum);
    scores[n * classes + c] = score;
    const unsigned pair = static_cast<unsigned>(c) * count + n;
    keys[pair] = valid && c > 0 && score >= threshold ? keywarp::ranking_key(score, pair) : keywarp::kNoKey;
  }
}

// A thread for each ranked pair of class and region: its box and class. Those that aren't there are empty.
extern "C" __global__ void keywarp_gather(const Box* boxes, const int* order, Box* chosen, int* groups, int count,
                                          int regions) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= count) return;
  const int pair = order[n];
  chosen[n] = pair < 0 ? Box{0.f, 0.f, 0.f, 0.f} : boxes[pair % regions];
  groups[n] = pair < 0 ? -1 : pair / regions;
}

// One thread: the objects that stay, as rows of x1, y1, x2, y2, confidence and class, after a row with their number.
extern "C" __global__ void keywarp_select(const Box* chosen, const int* groups, const Bits* removes, int* kept,
                                          const int* order, const float* scores, float* objects, int count, int words,
                                          int limit, int regions, int classes) {
  __shared__ Bits gone[keywarp::kMostWords];
  const int stay = keywarp::survivors(chosen, groups, removes, gone, count, words, limit, kept);
  objects[0] = static_cast<float>(stay);
  for (int n = 0; n < stay; ++n) {
    const Box box = chosen[kept[n]];
    const int group = groups[kept[n]];
    float* row = objects + 6 * (n + 1);
    row[0] = box.x1;
    row[1] = box.y1;
    row[2] = box.x2;
    row[3] = box.y2;
    row[4] = scores[order[kept[n]] % regions * classes + group];
    row[5] = static_cast<float>(group);
  }
}
