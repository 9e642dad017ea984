// Letting go of equal and fixed images, on every device whose host does not see the flags.
#include <gtest/gtest.h>

#include <random>

#include "kernels/targets.hpp"

namespace spdnn {
namespace {

using test::DeviceArray;

/// What `SettleArgs` reads and writes, by slot and by image.
struct Images {
  std::vector<std::uint8_t> alive, unchanged, finished, is_wanted;
  std::vector<std::int32_t> ids, parent, first, wanted;
  std::vector<std::int64_t> counts;  ///< equal, fixed
  std::int32_t live = 0;
  std::int64_t first_wanted = 0;
};

/// Slots hold every second image, in reverse. Some have equals before them; a few images were
/// merged earlier on, two deep.
Images random_images(std::int64_t batch, std::mt19937_64& random) {
  const auto size = static_cast<std::size_t>(batch);
  Images i;
  for (std::int64_t s = 0; s < batch; ++s) {
    i.ids.push_back(static_cast<std::int32_t>(2 * (batch - 1 - s)));
    i.alive.push_back(random() % 5 != 0);
    i.unchanged.push_back(random() % 3 == 0);
    i.first.push_back(static_cast<std::int32_t>(s));
    const auto other = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(s + 1));
    if (random() % 2 == 0 && i.first[other] == other && i.alive[other] != 0) i.first[s] = other;
  }
  i.parent.assign(2 * size, -1);
  for (std::size_t image = 1; image < 2 * size; image += 2) {  // images that hold no slot
    if (random() % 2 == 0) i.parent[image] = static_cast<std::int32_t>(image - 1);
    if (image > 2 && random() % 4 == 0) i.parent[image] = static_cast<std::int32_t>(image - 2);
  }
  for (int w = 0; w < 5; ++w) i.wanted.push_back(static_cast<std::int32_t>(random() % (2 * size)));
  i.finished.assign(2 * size, 0);
  i.is_wanted.assign(2 * size, 0);
  i.counts = {100, 1000};
  i.live = static_cast<std::int32_t>(batch - batch / 5);
  i.first_wanted = batch / 7;
  return i;
}

Images expected(Images i, bool equal, bool fixed) {
  for (std::int32_t s = 0; equal && s < i.live; ++s) {
    if (i.first[s] == s || i.alive[s] == 0) continue;
    i.parent[i.ids[s]] = i.ids[i.first[s]];
    i.alive[s] = 0;
    ++i.counts[0];
  }
  for (std::int32_t image : i.wanted) {
    while (i.parent[image] >= 0) image = i.parent[image];
    if (fixed) i.is_wanted[image] = 1;
  }
  for (std::int32_t s = 0; fixed && s < i.live; ++s) {
    if (s < i.first_wanted || i.alive[s] == 0 || i.unchanged[s] == 0) continue;
    if (i.is_wanted[i.ids[s]] != 0) continue;
    i.finished[i.ids[s]] = 1;
    i.alive[s] = 0;
    ++i.counts[1];
  }
  return i;
}

void check(const Images& images, bool equal, bool fixed, const LayoutKernels<float>& kernels,
           Device& device, Stream& stream) {
  const auto on_device = [&](const auto& host) { return DeviceArray(host, device, stream); };
  const auto alive = on_device(images.alive);
  const auto unchanged = on_device(images.unchanged);
  const auto finished = on_device(images.finished);
  const auto is_wanted = on_device(images.is_wanted);
  const auto ids = on_device(images.ids);
  const auto parent = on_device(images.parent);
  const auto first = on_device(images.first);
  const auto wanted = on_device(images.wanted);
  const auto counts = on_device(images.counts);
  const auto live = on_device(std::vector<std::int32_t>{images.live});
  SettleArgs<float> args;
  args.x = {nullptr, 0, std::ssize(images.alive), panel_width(device.info()), live.data()};
  args.alive = alive.data();
  args.ids = ids.data();
  args.parent = parent.data();
  args.equal_count = counts.data();
  args.fixed_count = counts.data() + 1;
  if (equal) args.first = first.data();
  if (fixed) args.unchanged = unchanged.data();
  args.finished = finished.data();
  args.first_wanted = images.first_wanted;
  args.wanted = wanted.data();
  args.wanted_count = std::ssize(images.wanted);
  args.is_wanted = is_wanted.data();
  kernels.settle(args, stream);
  const Images right = expected(images, equal, fixed);
  EXPECT_EQ(alive.read(), right.alive);
  EXPECT_EQ(parent.read(), right.parent);
  EXPECT_EQ(finished.read(), right.finished);
  EXPECT_EQ(is_wanted.read(), right.is_wanted);
  EXPECT_EQ(counts.read(), right.counts);
}

TEST(Settle, LetsGoOfEqualAndFixedImagesButNotOfWantedOnes) {
  for (const DeviceSpec& spec : test::tested_devices()) {
    const std::unique_ptr<Device> device = open_device(spec);
    const std::unique_ptr<Stream> stream = device->make_stream();
    const LayoutKernels<float>& kernels = layout_kernels<float>(spec.kind);
    if (kernels.settle == nullptr) continue;
    std::mt19937_64 random(19);
    for (const std::int64_t batch : {1, 2, 31, 32, 33, 64, 255, 256, 257, 700}) {
      for (const bool equal : {false, true}) {
        for (const bool fixed : {false, true}) {
          SCOPED_TRACE(testing::Message() << "batch " << batch << ", equal images " << equal
                                          << ", fixed ones " << fixed);
          check(random_images(batch, random), equal, fixed, kernels, *device, *stream);
          if (HasFailure()) return;
        }
      }
    }
  }
}

}  // namespace
}  // namespace spdnn
