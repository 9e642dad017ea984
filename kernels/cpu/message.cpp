// Rows of panels into messages and back, on the CPU: copies of a panel's lanes, each row by one
// thread. A row's panels come one after another, so that a message, which another core may just
// have written, is read and written as one stream beside one of each panel. Bytes: 4 or 8 read and
// written for each number, once more read where it is added.
#include <algorithm>
#include <type_traits>

#include "cpu/cpu_kernels.hpp"
#include "message_kernels.hpp"

namespace spdnn {
namespace {

/// Rows worth handing to another thread.
constexpr std::int64_t kRowGrain = 256;

/// Calls `row(i, first image of a panel, its images, the panel)` for all rows and panels. Images
/// are a constant where the panel is full and as wide as this device's own.
template <class P, class Row>
void for_each_row(const Panels<P>& x, std::int64_t count, Stream& stream, const Row& row) {
  constexpr std::integral_constant<std::int64_t, kCpuPanelWidth> kFull;
  const std::int64_t panels = x.count();
  const std::int64_t full = x.width == kFull ? x.batch / kFull : 0;
  stream.team().parallel_for(count, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t p = 0; p < full; ++p) row(i, p * kFull, kFull, p);
      for (std::int64_t p = full; p < panels; ++p) {
        const std::int64_t first = p * x.width;
        row(i, first, std::min(x.batch - first, x.width), p);
      }
    }
  });
}

template <class T>
void pack(const PackArgs<T>& args, Stream& stream) {
  const Panels<const T>& x = args.x;
  for_each_row(x, args.count, stream, [&](auto i, auto first, auto images, auto panel) {
    std::copy_n(x.panel(panel) + std::int64_t{args.rows[i]} * x.width, images,
                args.message + i * x.batch + first);
  });
}

template <class T>
void unpack(const UnpackArgs<T>& args, Stream& stream) {
  const Panels<T>& x = args.x;
  for_each_row(x, args.count, stream, [&](auto i, auto first, auto images, auto panel) {
    T* row = x.panel(panel) + std::int64_t{args.rows[i]} * x.width;
    std::copy_n(args.message + i * x.batch + first, images, row);
    std::fill(row + images, row + x.width, T{0});
  });
}

template <class T>
void add(const AddMessageArgs<T>& args, Stream& stream) {
  const Panels<T>& x = args.x;
  for_each_row(x, args.count, stream, [&](auto i, auto first, auto images, auto panel) {
    T* __restrict row = x.panel(panel) + std::int64_t{args.rows[i]} * x.width;
    for (std::uint32_t k = args.offsets[i]; k < args.offsets[i + 1]; ++k) {
      const T* from = args.message + std::int64_t{args.sources[k]} * x.batch + first;
      for (std::int64_t image = 0; image < images; ++image) row[image] += from[image];
    }
  });
}

template <class T>
void copy_rows(const CopyRowsArgs<T>& args, Stream& stream) {
  const std::int64_t width = args.from.width;
  for_each_row(args.from, args.count, stream, [&](auto i, auto, auto, auto panel) {
    std::copy_n(args.from.panel(panel) + std::int64_t{args.from_rows[i]} * width, width,
                args.to.panel(panel) + std::int64_t{args.to_rows[i]} * width);
  });
}

}  // namespace

template <class T>
const MessageKernels<T>& message_cpu() {
  static const MessageKernels<T> kernels{&pack<T>, &unpack<T>, &add<T>, &copy_rows<T>};
  return kernels;
}

template const MessageKernels<float>& message_cpu<float>();
template const MessageKernels<double>& message_cpu<double>();

}  // namespace spdnn
