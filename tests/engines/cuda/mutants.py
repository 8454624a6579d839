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
