"""Possible mistakes in `warp.cuh`, as replacements in its text. The tests must detect every one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A mistake: its name, and pairs of a text and its replacement."""

    name: str
    changes: tuple[tuple[str, str], ...]

    def plant(self, source: str) -> str:
        """Return the source with the mistake.

        Raises:
            ValueError: If the source doesn't contain a text to replace.
        """
        for before, after in self.changes:
            if before not in source:
                raise ValueError(f"mutant {self.name!r}: {before!r} isn't in the source")
            source = source.replace(before, after)
        return source


def _mutant(name: str, *changes: str) -> Mutant:
    return Mutant(name, tuple(zip(changes[::2], changes[1::2], strict=True)))


MUTANTS = (
    _mutant("truncates instead of flooring", "left = floorf(px)", "left = static_cast<int>(px)"),
    _mutant("reads left of the map", "in_left = column >= 0", "in_left = true"),
    _mutant("reads right of the map", "in_right = column + 1 < width", "in_right = true"),
    _mutant("reads below the map", "in_bottom = row + 1 < height", "in_bottom = true"),
    _mutant("off by one at the right border", "px < width &&", "px < width - 1 &&"),
    _mutant("includes the cell behind the border", "px < width &&", "px <= width &&"),
    _mutant("cuts the left border off", "px > -1.f", "px >= 0.f"),
    _mutant("cuts the upper border off", "py > -1.f", "py >= 0.f"),
    _mutant("skips the first cell", "if (offset >= 0)", "if (offset > 0)"),
    _mutant("NaN slips through", "!(px > -1.f && px < width &&", "!(!(px <= -1.f) && !(px >= width) &&"),
    _mutant(
        "weights swapped",
        "(1.f - bottom_share) * right_share,",
        "bottom_share * (1.f - right_share) + 0.f,",
        "bottom_share * (1.f - right_share),",
        "(1.f - bottom_share) * right_share,",
    ),
    _mutant("dx and dy swapped", "x + flow.dx", "x + flow.dy", "y + flow.dy", "y + flow.dx"),
    _mutant("flow forward instead of backward", "x + flow.dx", "x - flow.dx"),
    _mutant("moves along a single column", "width == 1 ? 0.f : x + flow.dx", "x + flow.dx"),
    _mutant("scale forgotten, pairs", "sums[i] * to_float(factors.values[i])", "sums[i]"),
    _mutant("scale forgotten, single cells", "sums[i] * to_float(scale[plane + cell])", "sums[i]"),
    _mutant("scale forgotten, hwc8", "sums[c] *= to_float(factors.values[c])", "(void)factors"),
    _mutant("wrong plane stride", "plane += cells)", "plane += cells - 1)"),
    _mutant("all channels from the first", "channels + channel) * cells", "channels) * cells"),
    _mutant("one flow for the whole batch", "flow += static_cast<size_t>(blockIdx.z) * 2", "flow += size_t{0} * 2"),
    _mutant("one image for the whole batch, hwc8", "+ image * octets;", ";"),
    _mutant("channels past the last", "channel + kChannels < channels ?", "channel < channels ?"),
    _mutant("cells past the last", "if (cell >= static_cast<unsigned>(cells)) break;", ""),
    _mutant("cells left out", "paired ? 1 : kThreads", "1"),
    _mutant("pairs in planes of an odd size", "cells % kPixels == 0 && ", ""),
    _mutant("unaligned pairs", "aligned<T, kPixels>(warped) &&", ""),
    _mutant("last channels left out, hwc8", "(channels - 1) / kChannels + 1", "channels / kChannels"),
    _mutant("cells past the last, hwc8", "  if (cell >= cells) return;", ""),
    _mutant("padding not cleared", "octet * kChannels + c < channels ? sums[c] : 0.f", "sums[c]"),
    _mutant("border cells of the flow weigh too little", "alone_x = (j >> shift) % 2 == 0 &&", "alone_x = j < 0 &&"),
    _mutant("flow not in cells of the map", "sum / factor;", "sum;"),
    _mutant("flow read past its border", "j < flow_width && ", ""),
    _mutant(
        "bfloat16 truncated", "rounded >> 16", "bits >> 16", "const unsigned rounded", "[[maybe_unused]] int rounded"
    ),
)

# The same for `detection.cuh`.
DETECTION_MUTANTS = (
    _mutant("worst first", "bits >> 31 ? bits : bits ^ 0x7fffffffu", "bits >> 31 ? bits ^ 0x7fffffffu : bits"),
    _mutant("NaN is ranked", "if (score != score) return kNoKey;", ""),
    _mutant("ties in another order", "<< 32 | index", "<< 32 | (0xffffffffu - index)"),
    _mutant("negative zero behind zero", "__float_as_uint(score + 0.f)", "__float_as_uint(score)"),
    _mutant("corner in place of the centre", "x + w / 2 + dx * w", "x + dx * w"),
    _mutant("not clipped on the left", "value > 0. ? value : 0.", "value"),
    _mutant("not clipped on the right", "low < limit ? low : limit", "low + 0 * limit"),
    _mutant("standard deviations forgotten", "deltas[2] * std[2]", "deltas[2]"),
    _mutant(
        "NaN makes a box",
        "if (dx != dx || dy != dy || dw != dw || dh != dh) return",
        "if (dx != dx && dy != dy) return",
    ),
    _mutant("intersection over the sum", "(size_b + size_a - intersection)", "(size_b + size_a)"),
    _mutant("equal overlaps removed", "intersection) > iou", "intersection) >= iou"),
    _mutant("classes compete", "groups == nullptr || groups[other] == groups[n]", "true"),
    _mutant("only neighbours compared", "const int other = word * 64 + bit;", "const int other = word * 63 + bit;"),
    _mutant("removed ones remove", "gone[n / 64] >> (n % 64) & 1) ++n", "false) ++n"),
    _mutant("one left out after 64 that are gone", "(n | 63) + 1;", "(n | 63) + 2;"),
    _mutant("empty ones stay", "if (is_empty(boxes[n])) continue;", "if (is_empty(boxes[n]) && n < 0) continue;"),
    _mutant("one more than the limit", "stay < limit", "stay <= limit"),
    _mutant("rounds down", "+ 0.5))", "))"),
    _mutant("empty regions have no cell", "last - first > 1 ? last - first : 1", "last - first"),
    _mutant("bins don't overlap", "ceilf(", "floorf("),
    _mutant("rows and columns swapped", "bins, bin / bins, height", "bins, bin % bins, height"),
    _mutant("one map for all bins", "* bins * bins + bin) * channels", "* bins * bins) * channels"),
    _mutant("empty bins not counted", "votes / (bins * bins)", "votes / bins"),
    _mutant("sum in place of the mean", "sum / static_cast<float>(cells)", "sum"),
)

# The same for `labels.cu`.
LABEL_MUTANTS = (
    _mutant(
        "the last of equal classes",
        "if (score > best) {\n      best = score;\n      label = c;",
        "if (score >= best) {\n      best = score;\n      label = c;",
    ),
    _mutant(
        "first class of a cell left out",
        "float best = own[0];",
        "float best = -3e38f;",
        "int label = 0;",
        "int label = 1;",
    ),
    _mutant("one image's scores for the whole batch", "scores += blockIdx.z * classes * cells;", ""),
    _mutant("one image's cells for the whole batch", "highest += blockIdx.z * cells;", ""),
    _mutant("neighbours below forgotten", "row + 1 < rows ? row + 1 : rows - 1", "row"),
    _mutant("three of four cells compared", " &&\n                    label == highest[below * columns + after]", ""),
    _mutant("rows and columns swapped", "interpolated(at, down, right)", "interpolated(at, right, down)"),
    _mutant(
        "candidates that reach most, not least",
        "sure = keywarp::greater(sure, keywarp::lesser(keywarp::lesser",
        "sure = keywarp::greater(sure, keywarp::greater(keywarp::greater",
    ),
    _mutant("last pixels left out", "if (x >= width) return;", "if (x >= width - 1) return;"),
    _mutant(
        "all classes of the first one's plane",
        "scores + c * cells, row, below, column, after, columns);\n      const float most",
        "scores, row, below, column, after, columns);\n      const float most",
    ),
)

# The same for `images.cu`.
IMAGE_MUTANTS = (
    _mutant(
        "rows and columns swapped", "across.first_weight + above[after + c]", "down.first_weight + above[after + c]"
    ),
    _mutant("the row below forgotten", "lower * down.second_weight", "(0 * lower + upper) * down.second_weight"),
    _mutant("rounds down", "(sum + 2) >> 2", "sum >> 2"),
    _mutant(
        "too precise",
        "across.second_weight) >> 4;\n    const int lower",
        "across.second_weight) >> 4 << 0 | 1;\n    const int lower",
    ),
    _mutant("halves rounded down", "below[after + c] + 2) >> 2", "below[after + c]) >> 2"),
    _mutant("exact halves interpolated", "if (halved) {", "if (false && halved) {"),
    _mutant("blue in place of red", "above[before + c] * across", "above[before + 2 - c] * across"),
    _mutant("the last row padded", "row >= picture_rows ||", "row >= picture_rows - 1 ||"),
    _mutant("padded at the left border", "column < 0 ||", "column < 1 ||"),
    _mutant(
        "padding not the given one", "static_cast<unsigned char>(padding)", "static_cast<unsigned char>(padding + 1)"
    ),
    _mutant("another border repeated", "value < first ? first :", "value < first ? first + 1 :"),
    _mutant("blocks overlap", "first_row + y * factor + i", "first_row + y * (factor - 1) + i"),
    _mutant("begins in the first row", "first_row + y", "0 * first_row + y"),
    _mutant("four pixels rounded to even", "factor == 2 ?", "factor == -2 ?"),
    _mutant("means round down", "rintf(", "floorf("),
)
