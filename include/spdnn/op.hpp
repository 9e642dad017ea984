// The operations devices perform and the visible, ordered tables of kernels that perform them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spdnn/device.hpp"

namespace spdnn {

/// How a kernel sums. `canonical`: one fp32 FMA chain for each output, in the stored order of its
/// row, starting from 0, bias last; canonical kernels give the same bits on every device and under
/// every split into rows or images. `other`: any order, held to the float64 bound
/// |y − y64| ≤ γ(nnz_row + 2) · (|W||x| + |b|), γ(n) = n·u / (1 − n·u), u = 2⁻²⁴.
enum class Order : std::uint8_t { canonical, other };

/// Arithmetic of products, the most precise first. Sums are fp32 in all of them. Below fp32,
/// weights and activations are split into two halves of 11 bits each (fp16), or rounded (or cut
/// off) to 11 or 8 bits, before they are multiplied.
enum class Precision : std::uint8_t { fp32, fp16, tf32, bf16 };
/// "fp32", "fp16", "tf32" or "bf16".
[[nodiscard]] constexpr std::string_view to_string(Precision precision) {
  switch (precision) {
    case Precision::fp32: return "fp32";
    case Precision::fp16: return "fp16";
    case Precision::tf32: return "tf32";
    case Precision::bf16: break;
  }
  return "bf16";
}
/// What that adds to the float64 bound of an output, as a part of |W||x|: both factors lose at most
/// 2⁻²², 2⁻¹⁰ or 2⁻⁷, and where both are split, the product of their second halves is left out.
/// Split, it holds for |x| up to 65504, the largest half, and adds 2⁻³⁵ · Σ|w| for |x| < 2⁻¹⁴,
/// where halves are no longer normal.
[[nodiscard]] constexpr double product_error(Precision precision) {
  switch (precision) {
    case Precision::fp32: return 0.0;
    case Precision::fp16: return 0x1.9p-20;
    case Precision::tf32: return 0x1.01p-9;
    case Precision::bf16: break;
  }
  return 0x1.02p-6;
}

/// What follows the sum of an output: y = min(max(sum + bias, lower), upper). The identity is
/// (−∞, ∞), ReLU (0, ∞), ReLU clipped at c (0, c).
struct Epilogue {
  float lower = 0.0F;
  float upper = 0.0F;
  friend bool operator==(const Epilogue&, const Epilogue&) = default;
};

/// One bias for each output row (stride 1), or one for all of them (stride 0).
template <class T>
struct BiasView {
  const T* data = nullptr;
  std::int64_t stride = 0;
  [[nodiscard]] SPDNN_HOST_DEVICE T at(std::int64_t row) const { return data[row * stride]; }
};

/// What a layer computes.
enum class LayerKind : std::uint8_t { linear, conv2d, max_pool, average_pool };
/// "linear", "conv2d", "max_pool" or "avg_pool".
[[nodiscard]] constexpr std::string_view to_string(LayerKind kind) {
  return kind == LayerKind::linear     ? "linear"
         : kind == LayerKind::conv2d   ? "conv2d"
         : kind == LayerKind::max_pool ? "max_pool"
                                       : "avg_pool";
}

/// How a window moves over planes of features, which are ordered channel, height, width. What lies
/// outside of the planes counts as 0 in a convolution and as absent in a pooling. A convolution's
/// weights are `[filters × channels · kernel_height · kernel_width]`, columns ordered channel,
/// height, width; its output has a plane for each filter. The default is that of a linear layer:
/// every feature is a plane of its own.
struct Window2d {
  std::int64_t channels = 1;  ///< of the input
  std::int64_t in_height = 1, in_width = 1;
  std::int64_t kernel_height = 1, kernel_width = 1;
  std::int64_t stride = 1;
  std::int64_t pad_top = 0, pad_left = 0;  ///< how far the first window begins outside
  std::int64_t out_height = 1, out_width = 1;

  [[nodiscard]] SPDNN_HOST_DEVICE constexpr std::int64_t inputs() const {
    return channels * in_height * in_width;
  }
  [[nodiscard]] SPDNN_HOST_DEVICE constexpr std::int64_t taps() const {
    return kernel_height * kernel_width;
  }
  [[nodiscard]] SPDNN_HOST_DEVICE constexpr std::int64_t in_pixels() const {
    return in_height * in_width;
  }
  [[nodiscard]] SPDNN_HOST_DEVICE constexpr std::int64_t out_pixels() const {
    return out_height * out_width;
  }
  friend bool operator==(const Window2d&, const Window2d&) = default;
};

/// A part of a layer's rows: the pieces `[begin, end)` of `of`, between which the kernel divides
/// the rows by their work, in an order of its own (`SpmmKernel::rows_of`). The pieces of a layer
/// cover every row once, and equal weights, prepared alike, are always cut alike.
struct RowShare {
  std::int32_t begin = 0, end = 1, of = 1;
};

/// Y = h(W·X + b) for one layer.
template <class T>
struct SpmmArgs {
  const struct PreparedWeights* weights = nullptr;
  BiasView<T> bias;  ///< device memory
  Epilogue epilogue;
  Panels<const T> x;  ///< features = weights' cols
  Panels<T> y;        ///< features = weights' rows; batch, width and live as in x
  /// Where not null, batch bytes of device memory: set to 1 where an image has any nonzero output,
  /// 0 where it has none.
  std::uint8_t* alive = nullptr;
  /// The rows to compute; the others of y stay untouched, and `alive` tells of these rows alone.
  /// Kernels of CUDA devices compute every row.
  RowShare rows = {};
  /// Of a layer with a window, whose rows are filters or channels: a row of it gives a plane of y.
  LayerKind kind = LayerKind::linear;
  Window2d window = {};
};

/// What a kernel must know to accept or decline a layer.
struct SpmmShape {
  std::int64_t rows = 0, cols = 0, nnz = 0;
  std::int64_t max_row_nnz = 0;
  std::int64_t batch = 0;
  std::int64_t panel_width = 0;
  DType index_type = DType::u32;
  DType value_type = DType::f32;
  bool shared_value = false;
  bool equal_rows = false;                ///< all rows equally long
  Precision precision = Precision::fp32;  ///< the least a run allows
  LayerKind kind = LayerKind::linear;
  Window2d window = {};  ///< of the other kinds; the rows of a pooling are its channels
  /// Features of the layer's input and output.
  [[nodiscard]] std::int64_t inputs() const {
    return kind == LayerKind::linear ? cols : window.inputs();
  }
  [[nodiscard]] std::int64_t outputs() const { return rows * window.out_pixels(); }
  friend bool operator==(const SpmmShape&, const SpmmShape&) = default;
};
[[nodiscard]] SpmmShape shape_of(const CsrView& weights, std::int64_t batch,
                                 std::int64_t panel_width);

/// A layer's weights in the form one kernel wants them, on one device.
struct PreparedWeights {
  CsrView csr;                         ///< in device memory, whatever else the kernel keeps
  std::vector<Buffer> buffers;         ///< what owns it; empty where `csr` views host memory
  std::shared_ptr<const void> format;  ///< private to the kernel
};

/// The CSR arrays as they are: copied to a CUDA device, viewed in place by the CPU.
[[nodiscard]] PreparedWeights upload_csr(const CsrView& host, Device& device, Stream& stream);

/// One implementation of SpMM with its fused epilogue.
template <class T>
struct SpmmKernel {
  std::string_view name;
  DeviceKind device;
  Order order;
  /// Why the kernel can't take a shape on a device; nothing when it can.
  std::optional<std::string> (*declines)(const SpmmShape& shape, const DeviceInfo& device);
  PreparedWeights (*prepare)(const CsrView& host, Device& device, Stream& stream);
  void (*run)(const SpmmArgs<T>& args, Stream& stream);
  Precision precision = Precision::fp32;
  /// `prepare` asks the device for memory and copies alone, so that weights may be brought there as
  /// one piece.
  bool stages = true;
  /// The rows of a share, in the kernel's order. Null: rows · begin / of up to rows · end / of.
  std::span<const std::uint32_t> (*rows_of)(const PreparedWeights& weights,
                                            const RowShare& share) = nullptr;
};

/// All SpMM kernels in this build, the preferred first, the reference of each device kind last.
template <class T>
[[nodiscard]] std::span<const SpmmKernel<T>> spmm_kernels();
template <>
std::span<const SpmmKernel<float>> spmm_kernels<float>();

/// The same for layers with a window: convolutions and poolings, which have no weights.
template <class T>
[[nodiscard]] std::span<const SpmmKernel<T>> window_kernels();
template <>
std::span<const SpmmKernel<float>> window_kernels<float>();

/// One layer of a chain: Y = h(W·X + b).
template <class T>
struct ChainLayer {
  CsrView weights;   ///< host memory, for as long as the chain is prepared
  BiasView<T> bias;  ///< device memory, for as long as the chain runs
  Epilogue epilogue;
};

/// A run of layers in the form one kernel wants them, on one device.
struct PreparedChain {
  std::shared_ptr<const void> format;  ///< private to the kernel
};

/// Y = h_n(W_n · … h_1(W_1·X + b_1) … + b_n).
template <class T>
struct ChainArgs {
  const PreparedChain* chain = nullptr;
  Panels<const T> x;              ///< features = the first layer's cols
  Panels<T> y;                    ///< features = the last layer's rows; the rest as in x
  std::uint8_t* alive = nullptr;  ///< of the last outputs, as in `SpmmArgs`
  /// Where not null, batch bytes of device memory: set to 1 for an image that the last layer left
  /// as it was, bit for bit, else to 0. For a last layer of as many rows as cols.
  std::uint8_t* unchanged = nullptr;
};

/// One implementation of a run of layers as one operation.
template <class T>
struct ChainKernel {
  std::string_view name;
  DeviceKind device;
  Order order;
  /// Why the kernel can't take these layers, in order, on a device; nothing when it can.
  std::optional<std::string> (*declines)(std::span<const SpmmShape> layers,
                                         const DeviceInfo& device);
  /// At least one layer, the rows of each being the cols of the next. `batch` bounds the images of
  /// a later `run`.
  PreparedChain (*prepare)(std::span<const ChainLayer<T>> layers, std::int64_t batch,
                           Device& device, Stream& stream);
  void (*run)(const ChainArgs<T>& args, Stream& stream);
};

/// All chain kernels in this build, the preferred first; the last of each device kind runs layer by
/// layer.
template <class T>
[[nodiscard]] std::span<const ChainKernel<T>> chain_kernels();
template <>
std::span<const ChainKernel<float>> chain_kernels<float>();

/// Images per panel that a device's kernels are written for.
[[nodiscard]] std::int64_t panel_width(const DeviceInfo& device);

/// Writes sparse images (rows of a CSR matrix `[batch × features]`) into dense panels.
template <class T>
struct ExpandArgs {
  CsrView images;  ///< device memory
  Panels<T> y;     ///< features = images.cols, batch = images.rows; unused lanes become 0
};

/// Packs the images that are still alive, in their order.
///
/// A dead image (`alive[s] == 0`) is dropped. With `keep_representative` the first dead one is kept
/// in its place, and every other dead image d gets `parent[ids[d]] = ids[first dead]`, since all
/// all-zero images continue alike.
template <class T>
struct CompactArgs {
  Panels<const T> x;
  const std::uint8_t* alive = nullptr;  ///< x.batch
  const std::int32_t* ids = nullptr;    ///< x.batch: which image a slot holds
  bool keep_representative = false;
  std::int32_t* parent = nullptr;    ///< by image id
  Panels<T> y;                       ///< room for the images kept; y.live is not read
  std::int64_t first_out = 0;        ///< slot of y that takes the first image kept
  std::int32_t* ids_out = nullptr;   ///< by slot of y
  std::int32_t* live_out = nullptr;  ///< one: images kept
  void* workspace = nullptr;         ///< `compact_workspace_bytes`
};

/// Finds images that have become equal, bit for bit in every feature: all layers that follow give
/// them equal outputs. Hashes only say what to compare.
template <class T>
struct FindEqualArgs {
  Panels<const T> x;
  const std::uint8_t* alive = nullptr;  ///< x.batch; where not null, dead images equal none
  std::int32_t* first = nullptr;        ///< x.batch: the lowest slot with the same image
  void* workspace = nullptr;            ///< `find_equal_workspace_bytes`, where there is one
};

/// Finds images that a layer left as they were, bit for bit.
template <class T>
struct FindUnchangedArgs {
  Panels<const T> x;                  ///< the layer's input
  Panels<const T> y;                  ///< and output, of the same shape
  std::uint8_t* unchanged = nullptr;  ///< x.batch: 1 where an image is equal in both, else 0
};

/// Lets go of images that need no layers of their own, on devices whose host does not know which
/// they are: their flags in `alive` become 0, and what follows is `compact`.
template <class T>
struct SettleArgs {
  Panels<const T> x;                    ///< the current images; only batch and live are read
  std::uint8_t* alive = nullptr;        ///< x.batch
  const std::int32_t* ids = nullptr;    ///< x.batch: which image a slot holds
  std::int32_t* parent = nullptr;       ///< by image id: which one goes on for it, or −1
  std::int64_t* equal_count = nullptr;  ///< one: images that went on as another are added
  std::int64_t* fixed_count = nullptr;  ///< one: and those that are done
  /// Of `find_equal`, or null: a living image gets its first equal one as its parent.
  const std::int32_t* first = nullptr;
  /// Of `find_unchanged`, or null: a living image that is unchanged, and so will be by all layers
  /// that follow, is done, which `finished` says by image id. Kept are those in the slots below
  /// `first_wanted` and those that stand for one of `wanted`, whose outputs somebody wants.
  const std::uint8_t* unchanged = nullptr;
  std::uint8_t* finished = nullptr;
  std::int64_t first_wanted = 0;
  const std::int32_t* wanted = nullptr;  ///< `wanted_count` image ids
  std::int64_t wanted_count = 0;
  std::uint8_t* is_wanted = nullptr;  ///< workspace by image id; 0 before the first call
};

/// The data movements around SpMM, one implementation for each kind of device.
template <class T>
struct LayoutKernels {
  DeviceKind device;
  void (*expand)(const ExpandArgs<T>& args, Stream& stream);
  void (*compact)(const CompactArgs<T>& args, Stream& stream);
  std::size_t (*compact_workspace_bytes)(std::int64_t batch);
  /// These two are null on kinds of device that lack them: they save work, and nothing needs them.
  void (*find_equal)(const FindEqualArgs<T>& args, Stream& stream) = nullptr;
  void (*find_unchanged)(const FindUnchangedArgs<T>& args, Stream& stream) = nullptr;
  std::size_t (*find_equal_workspace_bytes)(std::int64_t batch) = nullptr;  ///< null: none
  /// Null where the host sees a device's flags and settles images itself.
  void (*settle)(const SettleArgs<T>& args, Stream& stream) = nullptr;
};

/// The layout kernels of a device kind; throws `DeviceError` when this build has none.
template <class T>
[[nodiscard]] const LayoutKernels<T>& layout_kernels(DeviceKind kind);
template <>
const LayoutKernels<float>& layout_kernels<float>(DeviceKind kind);

}  // namespace spdnn
