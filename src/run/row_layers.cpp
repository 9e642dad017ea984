// Cutting a rank's rows out of the layers of a network.
#include "row_layers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace spdnn {
namespace {

std::vector<std::uint32_t> all_below(std::int64_t count) {
  std::vector<std::uint32_t> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0U);
  return all;
}

/// Rows of a layer's weights; of a pooling its channels.
std::int64_t units_of(const Layer& layer) { return layer_shape(layer).rows; }
std::int64_t features_per_unit(const Layer& layer) { return layer_window(layer).out_pixels(); }

InputItems items_of(const Layer& layer) {
  const Window2d window = layer_window(layer);
  return layer_kind(layer) == LayerKind::linear
             ? InputItems{layer_inputs(layer), 1, 1}
             : InputItems{window.channels, window.taps(), window.in_pixels()};
}

/// Rows of a matrix with columns of 32 bits and offsets.
struct PlainRows {
  std::vector<std::int64_t> offsets{0};
  std::vector<std::uint32_t> columns;
  std::vector<float> values;
  PlainRows(const CsrView& matrix, std::span<const std::uint32_t> rows) {
    for (const std::uint32_t row : rows) {
      for (std::int64_t k = matrix.row_begin(row); k < matrix.row_begin(row + 1); ++k) {
        columns.push_back(static_cast<std::uint32_t>(matrix.col(k)));
        if (!matrix.shared_value) values.push_back(static_cast<float>(matrix.value(k)));
      }
      offsets.push_back(std::ssize(columns));
    }
    if (matrix.shared_value && !columns.empty()) {
      values.push_back(static_cast<float>(matrix.value(0)));
    }
  }
};

/// The values of a slice in its order of rows.
std::vector<float> reorder(const PlainRows& rows, const std::vector<std::size_t>& order) {
  if (std::ssize(rows.values) <= 1) return rows.values;
  std::vector<float> values;
  for (const std::size_t row : order) {
    values.insert(values.end(), rows.values.begin() + rows.offsets[row],
                  rows.values.begin() + rows.offsets[row + 1]);
  }
  return values;
}

/// The layer's rows `units` of a rank, but for their halo: `own` gets them in the slice's order,
/// `needed` the features that they read.
RowLayer cut_layer(const Layer& layer, int rank, std::span<const std::uint32_t> units,
                   const FeatureOwners* before, std::vector<std::uint32_t>& own,
                   std::vector<std::uint32_t>& needed) {
  const PlainRows plain(layer_weights(layer).view(), units);
  const InputItems items = items_of(layer);
  RowSlice slice = slice_rows(rank, {std::ssize(units), plain.offsets.data(), plain.columns.data()},
                              items, before);
  RowLayer cut;
  cut.weights = make_csr(std::ssize(units), slice.cols, std::move(slice.offsets),
                         std::move(slice.columns), reorder(plain, slice.order));
  cut.window = layer_window(layer);
  if (layer_kind(layer) == LayerKind::conv2d) cut.window.channels = std::ssize(slice.read);
  cut.rows = {Range{0, slice.interior}, Range{slice.interior, std::ssize(units)}};
  own.clear();
  for (const std::size_t row : slice.order) own.push_back(units[row]);
  cut.bias = layer_bias(layer);
  if (cut.bias.size() > 1) {
    cut.bias.clear();
    for (const std::uint32_t row : own) cut.bias.push_back(layer_bias(layer)[row]);
  }
  needed = features_of(slice.read, items.features);
  return cut;
}

/// A pooling of this rank's channels.
RowLayer cut_pooling(const Layer& layer, const std::vector<std::uint32_t>& own) {
  RowLayer cut;
  cut.window = layer_window(layer);
  cut.window.channels = std::ssize(own);
  cut.rows = {Range{0, std::ssize(own)}, Range{std::ssize(own), std::ssize(own)}};
  cut.halo = local_halo(cut.window.inputs());
  return cut;
}

/// The kernel of that name where it takes the slice, else the first that does.
const SpmmKernel<float>& kernel_for(const RowLayer& layer, const std::string& name,
                                    const Device& device) {
  SpmmShape shape = shape_of(layer.weights.view(), 1, panel_width(device.info()));
  shape.kind = layer.kind;
  shape.window = layer.window;
  if (layer.kind != LayerKind::linear && layer.weights.rows() == 0) shape.rows = layer.rows[0].end;
  const auto table =
      layer.kind == LayerKind::linear ? spmm_kernels<float>() : window_kernels<float>();
  const SpmmKernel<float>* found = nullptr;
  for (const SpmmKernel<float>& kernel : table) {
    if (kernel.device != device.info().kind || kernel.declines(shape, device.info())) continue;
    if (found == nullptr || kernel.name == name) found = &kernel;
  }
  if (found == nullptr) {
    throw DeviceError(fmt::format("no kernel takes rows of a layer that '{}' takes whole", name));
  }
  return *found;
}

void prepare(RowLayer& layer, Device& device, Stream& stream) {
  for (std::size_t part = 0; part < layer.rows.size(); ++part) {
    const bool pooling = layer.weights.rows() == 0;
    if (layer.rows[part].size() == 0) continue;
    const CsrView rows =
        pooling ? layer.weights.view() : layer.weights.view().slice_rows(layer.rows[part]);
    layer.prepared[part] = layer.kernel->prepare(rows, device, stream);
  }
}

}  // namespace

std::vector<LayerPartition> divide_rows(const PartitionSpec& spec, const Model& model,
                                        const std::vector<double>& speeds) {
  if (spec.chosen() || all_linear(model)) return choose_partition(spec, model, speeds).layers;
  std::vector<LayerPartition> owners;
  for (const Layer& layer : model.layers) {
    LayerPartition& rows = owners.emplace_back();
    rows.rows = all_below(units_of(layer));
    rows.offsets = {0};
    for (const Range& range : split_in_proportion(units_of(layer), speeds)) {
      rows.offsets.push_back(range.end);
    }
  }
  return owners;
}

RowLayers cut_layers(const Model& model, const std::vector<LayerPartition>& owners,
                     const std::vector<std::string>& kernels, Communicator& comm, Device& device,
                     Stream& stream) {
  RowLayers cut;
  std::optional<FeatureOwners> before;
  const LayerPartition* split = nullptr;
  std::vector<std::uint32_t> own, needed;
  std::vector<HaloRequest> requests;
  std::vector<std::size_t> asking;  // the layer that a request is for
  for (std::int64_t l = 0; l < std::ssize(model.layers); ++l) {
    const Layer& layer = model.layers[l];
    const bool pooling = std::holds_alternative<Pool2d>(layer);
    if (pooling && split == nullptr) {
      throw InputError(
          "/strategy: a first layer that pools can't be divided between ranks; use 'data'");
    }
    if (!pooling) split = &owners[l];
    RowLayer& rows = cut.layers.emplace_back(
        pooling ? cut_pooling(layer, own)
                : cut_layer(layer, comm.rank(), part_of(*split, comm.rank()),
                            before ? &*before : nullptr, own, needed));
    if (!pooling && before) {
      requests.push_back({*std::move(before), std::move(needed)});
      asking.push_back(static_cast<std::size_t>(l));
    } else if (!pooling) {
      rows.halo = local_halo(layer_inputs(layer));
    }
    rows.kind = layer_kind(layer);
    rows.activation = layer_activation(layer);
    rows.each = features_per_unit(layer);
    // A GPU takes all rows of a chunk in one launch, while it is sent the other chunk.
    const bool divided = rows.rows[0].size() > 0 && rows.rows[1].size() > 0;
    if (divided && device.info().kind == DeviceKind::cuda)
      rows.rows = {Range{}, {0, rows.rows[1].end}};
    rows.kernel = &kernel_for(rows, kernels[l], device);
    prepare(rows, device, stream);
    before = feature_owners(*split, rows.each, own);
  }
  const std::int64_t outputs = std::ssize(before->owners);
  requests.push_back({*std::move(before), all_below(comm.rank() == 0 ? outputs : 0)});
  std::vector<Halo> halos = make_halos(comm, requests);
  for (std::size_t i = 0; i < asking.size(); ++i) {
    cut.layers[asking[i]].halo = std::move(halos[i]);
  }
  cut.outputs = std::move(halos.back());
  return cut;
}

}  // namespace spdnn
