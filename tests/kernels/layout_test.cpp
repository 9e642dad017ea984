// Expanding sparse images into panels, and packing living images together.
#include <gtest/gtest.h>

#include <numeric>

#include "kernels/targets.hpp"
#include "support/networks.hpp"

namespace spdnn {
namespace {

using test::DeviceArray;
using test::Rows;

TEST(Expand, WritesEveryValueAndZeroesTheRest) {
  test::for_each_device([](Device& device, Stream& stream) {
    const std::int64_t width = panel_width(device.info());
    std::mt19937_64 random(11);
    for (const bool shared : {false, true}) {
      for (const std::int64_t batch : {1, 31, 65, 200}) {
        const Csr all = test::random_csr({batch + 3, 70, 20, Rows::irregular, shared}, random);
        const CsrView images = all.view().slice_rows({3, batch + 3});
        Panels<float> y = {nullptr, 70, batch, width, nullptr};
        const DeviceArray<float> memory(
            std::vector<float>(static_cast<std::size_t>(y.size()), 5.0F), device, stream);
        y.data = memory.data();
        const PreparedWeights uploaded = upload_csr(images, device, stream);
        layout_kernels<float>(device.info().kind).expand({uploaded.csr, y}, stream);
        std::vector<float> got = memory.read();
        y.data = got.data();
        double sum = 0.0;
        for (std::int64_t i = 0; i < batch; ++i) {
          for (std::int64_t k = images.row_begin(i); k < images.row_begin(i + 1); ++k) {
            ASSERT_EQ(y.at(images.col(k), i), static_cast<float>(images.value(k)));
            sum += std::abs(images.value(k));
          }
        }
        double total = 0.0;
        for (const float value : got) total += std::abs(static_cast<double>(value));
        ASSERT_NEAR(total, sum, 1e-9) << "something besides the images is not zero";
      }
    }
  });
}

/// Slot from which packed images are written, inside a panel.
constexpr std::int64_t kOffset = 5;

struct Packed {
  std::vector<std::int32_t> ids, parent;
  std::vector<float> values;  ///< panels
  std::int32_t live = -1;
};

/// Packs a batch whose image i holds i + feature / 100 in each feature.
Packed pack(const std::vector<std::uint8_t>& alive, std::int64_t live_in, bool keep_representative,
            Device& device, Stream& stream) {
  const auto batch = std::ssize(alive);
  const std::int64_t features = 37;
  const std::int64_t width = panel_width(device.info());
  Panels<float> x = {nullptr, features, batch, width, nullptr};
  std::vector<float> values(static_cast<std::size_t>(x.size()));
  x.data = values.data();
  for (std::int64_t i = 0; i < batch; ++i) {
    for (std::int64_t f = 0; f < features; ++f) {
      x.at(f, i) = static_cast<float>(i) + static_cast<float>(f) / 100.0F;
    }
  }
  std::vector<std::int32_t> ids(alive.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::reverse(ids.begin(), ids.end());
  const DeviceArray<float> from(values, device, stream);
  const Panels<float> y = {nullptr, features, batch + kOffset, width, nullptr};
  const DeviceArray<float> to(std::vector<float>(static_cast<std::size_t>(y.size()), -1.0F), device,
                              stream);
  const DeviceArray<std::uint8_t> flags(alive, device, stream);
  const DeviceArray<std::int32_t> ids_in(ids, device, stream);
  const DeviceArray<std::int32_t> ids_out(std::vector<std::int32_t>(ids.size() + kOffset, -5),
                                          device, stream);
  const DeviceArray<std::int32_t> parent(std::vector<std::int32_t>(ids.size(), -1), device, stream);
  const DeviceArray<std::int32_t> live({static_cast<std::int32_t>(live_in)}, device, stream);
  const DeviceArray<std::int32_t> live_out({-1}, device, stream);
  const LayoutKernels<float>& layout = layout_kernels<float>(device.info().kind);
  const Buffer workspace = device.allocate(layout.compact_workspace_bytes(batch));
  layout.compact({{from.data(), features, batch, width, live.data()},
                  flags.data(),
                  ids_in.data(),
                  keep_representative,
                  parent.data(),
                  {to.data(), features, batch + kOffset, width, nullptr},
                  kOffset,
                  ids_out.data(),
                  live_out.data(),
                  workspace.data()},
                 stream);
  return {ids_out.read(), parent.read(), to.read(), live_out.read().front()};
}

void check_pack(const std::vector<std::uint8_t>& alive, std::int64_t live_in, bool keep,
                Device& device, Stream& stream) {
  const auto batch = std::ssize(alive);
  const Packed got = pack(alive, live_in, keep, device, stream);
  std::vector<std::int64_t> kept;
  std::int64_t representative = -1;
  std::vector<std::int32_t> parent(alive.size(), -1);
  for (std::int64_t slot = 0; slot < live_in; ++slot) {
    const bool first_dead = alive[slot] == 0 && representative < 0;
    if (alive[slot] != 0 || (keep && first_dead)) kept.push_back(slot);
    if (keep && alive[slot] == 0 && !first_dead) {
      parent[batch - 1 - slot] = static_cast<std::int32_t>(batch - 1 - representative);
    }
    if (first_dead) representative = slot;
  }
  ASSERT_EQ(got.live, std::ssize(kept));
  ASSERT_EQ(got.parent, parent);
  std::vector<float> values = got.values;
  const Panels<float> y = {values.data(), 37, batch + kOffset, panel_width(device.info()), nullptr};
  for (std::int64_t f = 0; f < 37; ++f) {
    for (std::int64_t i = 0; i < kOffset; ++i) ASSERT_EQ(y.at(f, i), -1.0F);
  }
  for (std::int64_t i = 0; i < std::ssize(kept); ++i) {
    ASSERT_EQ(got.ids[kOffset + i], batch - 1 - kept[i]);
    for (std::int64_t f = 0; f < 37; ++f) {
      ASSERT_EQ(y.at(f, kOffset + i), static_cast<float>(kept[i]) + static_cast<float>(f) / 100.0F);
    }
  }
}

TEST(Compact, KeepsTheLivingInOrderAndMergesTheDeadWhereAsked) {
  test::for_each_device([](Device& device, Stream& stream) {
    std::mt19937_64 random(5);
    for (const std::size_t batch : {1, 2, 63, 64, 65, 300, 1025}) {
      for (const unsigned percent : {0U, 3U, 50U, 100U}) {
        std::vector<std::uint8_t> alive(batch);
        for (auto& flag : alive) flag = random() % 100 < percent ? 1 : 0;
        for (const bool keep : {false, true}) {
          SCOPED_TRACE(testing::Message()
                       << "batch " << batch << ", " << percent << " % alive, keep " << keep);
          check_pack(alive, static_cast<std::int64_t>(batch), keep, device, stream);
          check_pack(alive, static_cast<std::int64_t>(batch) * 2 / 3, keep, device, stream);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  });
}

TEST(Layout, EqualAndUnchangedImagesAreFoundOnEveryDevice) {
  for (const DeviceSpec& spec : test::tested_devices()) {
    const std::unique_ptr<Device> device = open_device(spec);
    const std::unique_ptr<Stream> stream = device->make_stream();
    const LayoutKernels<float>& kernels = layout_kernels<float>(spec.kind);
    if (kernels.find_equal == nullptr || kernels.find_unchanged == nullptr) continue;
    const std::int64_t width = panel_width(device->info());
    std::mt19937_64 random(8);
    for (const std::int64_t features : {1, 130, 300}) {
      for (const std::int64_t batch : {1, 64, 333}) {
        Panels<float> x = {nullptr, features, batch, width, nullptr};
        Panels<float> y = x;
        std::vector<float> x_host(static_cast<std::size_t>(x.size()), 2.0F);
        x.data = x_host.data();
        std::vector<std::uint64_t> kinds;
        std::vector<std::int32_t> first;
        for (std::int64_t i = 0; i < batch; ++i) {
          kinds.push_back(random() % 20);
          x.at(features - 1, i) = static_cast<float>(kinds.back());
          first.push_back(static_cast<std::int32_t>(
              std::find(kinds.begin(), kinds.end(), kinds.back()) - kinds.begin()));
        }
        std::vector<float> y_host = x_host;
        y.data = y_host.data();
        std::vector<std::uint8_t> unchanged(static_cast<std::size_t>(batch), 1);
        for (std::int64_t i = 0; i < batch; i += 3) {
          y.at(i % features, i) += 1.0F;
          unchanged[i] = 0;
        }
        const test::DeviceArray<float> x_device(x_host, *device, *stream);
        const test::DeviceArray<float> y_device(y_host, *device, *stream);
        const test::DeviceArray<std::int32_t> first_device(
            std::vector<std::int32_t>(first.size(), -9), *device, *stream);
        const test::DeviceArray<std::uint8_t> flags(std::vector<std::uint8_t>(first.size(), 9),
                                                    *device, *stream);
        const auto workspace_bytes = kernels.find_equal_workspace_bytes;
        const Buffer workspace =
            device->allocate(workspace_bytes == nullptr ? 0 : workspace_bytes(batch));
        x.data = x_device.data();
        y.data = y_device.data();
        kernels.find_equal({x, nullptr, first_device.data(), workspace.data()}, *stream);
        kernels.find_unchanged({x, y, flags.data()}, *stream);
        EXPECT_EQ(first_device.read(), first) << features << " features, batch " << batch;
        EXPECT_EQ(flags.read(), unchanged) << features << " features, batch " << batch;
      }
    }
  }
}

}  // namespace
}  // namespace spdnn
