// RadiX-Net networks as the Sparse DNN Graph Challenge builds them, one layer at a time.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "owned_csr.hpp"
#include "spdnn/io.hpp"
#include "spdnn/random.hpp"

namespace spdnn {
namespace {

constexpr std::int64_t kMaxNeurons = std::int64_t{1} << 31;
constexpr std::int64_t kMaxLayers = 1'000'000;
/// 16 GiB of 32-bit columns.
constexpr std::int64_t kMaxLayerNnz = std::int64_t{1} << 32;

[[noreturn]] void bad_spec(const std::string& what) { throw InputError("RadiX-Net: " + what); }

std::int64_t classes_of(const RadixNetSpec& spec) { return spec.neurons / spec.fold; }

/// log2 C: butterfly stages, and layers that share a permutation.
std::int64_t stages_of(const RadixNetSpec& spec) {
  return std::countr_zero(static_cast<std::uint64_t>(classes_of(spec)));
}

/// The inputs of each class, ascending: `fold` of class 0, of class 1, …
template <class Index>
std::vector<Index> inputs_by_class(const RadixNetSpec& spec, std::int64_t group) {
  const auto classes = static_cast<std::uint32_t>(classes_of(spec));
  const auto neurons = static_cast<std::uint32_t>(spec.neurons);
  std::vector<std::uint32_t> order;
  if (group > 0) {
    order = random_permutation(neurons, Random(spec.seed, static_cast<std::uint64_t>(group)));
  }
  std::vector<Index> inputs(neurons);
  std::vector<std::int64_t> next(classes);
  for (std::uint32_t c = 0; c < classes; ++c) next[c] = c * spec.fold;
  for (std::uint32_t i = 0; i < neurons; ++i) {
    const std::uint32_t position = order.empty() ? i : order[i];
    inputs[next[position % classes]++] = static_cast<Index>(i);
  }
  return inputs;
}

/// Rows repeat every C outputs: the first C are merged from two classes each, the rest are copies.
template <class Index>
Csr build_layer(const RadixNetSpec& spec, std::int64_t layer) {
  const std::int64_t classes = classes_of(spec);
  const std::int64_t stages = stages_of(spec);
  const std::vector<Index> inputs = inputs_by_class<Index>(spec, layer / stages);
  const std::int64_t distance = std::int64_t{1} << (layer % stages);
  const std::int64_t nnz = spec.neurons * 2 * spec.fold;
  auto arrays = std::make_shared<OwnedCsr<Index>>(nnz, spec.weight);
  Index* out = arrays->col_indices.get();
  for (std::int64_t c = 0; c < classes; ++c) {
    const Index* own = inputs.data() + c * spec.fold;
    const Index* other = inputs.data() + (c + distance) % classes * spec.fold;
    out = std::merge(own, own + spec.fold, other, other + spec.fold, out);
  }
  const std::int64_t period = classes * 2 * spec.fold;
  for (std::int64_t copy = 1; copy < spec.fold; ++copy, out += period) {
    std::memcpy(out, arrays->col_indices.get(), static_cast<std::size_t>(period) * sizeof(Index));
  }
  return wrap_csr(spec.neurons, spec.neurons, nnz, std::move(arrays));
}

}  // namespace

void validate(const RadixNetSpec& spec) {
  if (spec.neurons < 2 || spec.neurons > kMaxNeurons) {
    bad_spec(fmt::format("{} neurons; give 2 to {}", spec.neurons, kMaxNeurons));
  }
  if (spec.layers < 1 || spec.layers > kMaxLayers) {
    bad_spec(fmt::format("{} layers; give 1 to {}", spec.layers, kMaxLayers));
  }
  if (spec.fold < 1 || spec.fold > spec.neurons / 2) {
    bad_spec(fmt::format("fold {}; give 1 to {}, half the {} neurons", spec.fold, spec.neurons / 2,
                         spec.neurons));
  }
  if (spec.neurons % spec.fold != 0 ||
      !std::has_single_bit(static_cast<std::uint64_t>(classes_of(spec)))) {
    bad_spec(fmt::format(
        "{0} neurons with fold {1} make {2:.6g} classes; neurons / fold must be a "
        "power of two of at least 2, as {3} neurons are with fold {1}",
        spec.neurons, spec.fold, static_cast<double>(spec.neurons) / static_cast<double>(spec.fold),
        spec.fold * static_cast<std::int64_t>(
                        std::bit_floor(static_cast<std::uint64_t>(classes_of(spec))))));
  }
  if (spec.neurons > kMaxLayerNnz / (2 * spec.fold)) {
    bad_spec(
        fmt::format("{} neurons with fold {} have 2·fold nonzeros each, more than {} a layer; "
                    "give fewer neurons or a smaller fold",
                    spec.neurons, spec.fold, kMaxLayerNnz));
  }
  if (!std::isfinite(spec.weight) || spec.weight == 0.0F) {
    bad_spec(fmt::format("weight {}; give a finite number other than 0", spec.weight));
  }
}

Csr radixnet_layer(const RadixNetSpec& spec, std::int64_t layer) {
  validate(spec);
  if (layer < 0 || layer >= spec.layers) {
    bad_spec(fmt::format("layer {} (from 0) of {}", layer, spec.layers));
  }
  return spec.neurons <= kNarrowColumns ? build_layer<std::uint16_t>(spec, layer)
                                        : build_layer<std::uint32_t>(spec, layer);
}

std::string radixnet_origin(const RadixNetSpec& spec) {
  return fmt::format("generated (RadiX-Net of {} neurons, fold {}, weight {}, seed {})",
                     spec.neurons, spec.fold, spec.weight, spec.seed);
}

}  // namespace spdnn
