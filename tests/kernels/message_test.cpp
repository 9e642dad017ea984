// Rows of panels into messages and back on every device, beside plain loops: every bit, and nothing
// written that is nobody's business.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "spdnn/message_op.hpp"
#include "support/devices.hpp"

namespace spdnn {
namespace {

constexpr std::uint32_t kFeatures = 67;

struct Shape {
  std::int64_t count, batch, width;
};

/// Rows from none to all of them, images around whole warps and panels of every width.
std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const std::int64_t count : {0, 1, 5, 64, 67}) {
    for (const std::int64_t batch : {0, 1, 31, 33, 64, 65, 200}) {
      for (const std::int64_t width : {1, 32, 64, 128}) all.push_back({count, batch, width});
    }
  }
  return all;
}

/// Some of the features, in an order of their own.
std::vector<std::uint32_t> some_rows(std::int64_t count, std::mt19937_64& random) {
  std::vector<std::uint32_t> rows(kFeatures);
  std::iota(rows.begin(), rows.end(), 0U);
  std::shuffle(rows.begin(), rows.end(), random);
  rows.resize(static_cast<std::size_t>(count));
  return rows;
}

template <class T>
std::vector<T> random_numbers(std::int64_t count, std::mt19937_64& random) {
  std::vector<T> numbers(static_cast<std::size_t>(count));
  for (T& x : numbers) {
    x = static_cast<T>(static_cast<Wide<T>>(random() % 100000) / Wide<T>{977});
  }
  return numbers;
}

/// Panels in plain memory, of random numbers.
template <class T>
struct Plain {
  Panels<T> view;
  std::vector<T> data;
  Plain(const Shape& shape, std::mt19937_64& random)
      : view{nullptr, kFeatures, shape.batch, shape.width, nullptr} {
    data = random_numbers<T>(view.size(), random);
    view.data = data.data();
  }
  [[nodiscard]] Panels<T> on(const test::DeviceArray<T>& array) const {
    Panels<T> there = view;
    there.data = array.data();
    return there;
  }
};

template <class T>
struct Devices {
  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream;
  const MessageKernels<T>& kernels;
  explicit Devices(const DeviceSpec& spec)
      : device(open_device(spec)),
        stream(device->make_stream()),
        kernels(message_kernels<T>(spec.kind)) {}
  template <class E>
  [[nodiscard]] test::DeviceArray<E> put(const std::vector<E>& host) const {
    return {host, *device, *stream};
  }
};

template <class Check>
void on_all(const Check& check) {
  for (const DeviceSpec& spec : test::tested_devices()) {
    for (const Shape& shape : shapes()) {
      SCOPED_TRACE(fmt::format("{}, {} rows of {} images in panels of {}", to_string(spec.kind),
                               shape.count, shape.batch, shape.width));
      check(Devices<float>(spec), shape);
      check(Devices<double>(spec), shape);
      if (spec.kind == DeviceKind::cuda) check(Devices<Half>(spec), shape);
      if (testing::Test::HasFailure()) return;
    }
  }
}

/// Of the same bits, which is more than equal.
template <class T>
void expect_equal(const std::vector<T>& got, const std::vector<T>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::memcmp(&got[i], &expected[i], sizeof(T)), 0) << "number " << i;
  }
}

struct Packs {
  template <class T>
  void operator()(const Devices<T>& on, const Shape& shape) const {
    std::mt19937_64 random(3);
    Plain<T> x(shape, random);
    const std::vector<std::uint32_t> rows = some_rows(shape.count, random);
    std::vector<T> expected(static_cast<std::size_t>(shape.count * shape.batch) + 3, T(-7.0F));
    const auto got = on.put(expected);
    for (std::int64_t i = 0; i < shape.count; ++i) {
      for (std::int64_t b = 0; b < shape.batch; ++b) {
        expected[i * shape.batch + b] = x.view.at(rows[i], b);
      }
    }
    const auto from = on.put(x.data);
    const auto list = on.put(rows);
    on.kernels.pack({x.on(from), list.data(), shape.count, got.data()}, *on.stream);
    expect_equal(got.read(), expected);
  }
};

struct Unpacks {
  template <class T>
  void operator()(const Devices<T>& on, const Shape& shape) const {
    std::mt19937_64 random(5);
    Plain<T> x(shape, random);
    const std::vector<std::uint32_t> rows = some_rows(shape.count, random);
    const auto message = random_numbers<T>(shape.count * shape.batch, random);
    const auto got = on.put(x.data);
    const std::int64_t lanes = x.view.count() * shape.width;
    for (std::int64_t i = 0; i < shape.count; ++i) {
      for (std::int64_t b = 0; b < lanes; ++b) {
        x.view.at(rows[i], b) = b < shape.batch ? message[i * shape.batch + b] : T(0.0F);
      }
    }
    const auto from = on.put(message);
    const auto list = on.put(rows);
    on.kernels.unpack({x.on(got), list.data(), shape.count, from.data()}, *on.stream);
    expect_equal(got.read(), x.data);
  }
};

/// Numbers whose sum depends on the order: bits tell that it is the list's.
struct Adds {
  template <class T>
  void operator()(const Devices<T>& on, const Shape& shape) const {
    std::mt19937_64 random(7);
    Plain<T> x(shape, random);
    const std::vector<std::uint32_t> rows = some_rows(shape.count, random);
    constexpr std::int64_t kMessageRows = 40;
    const auto message = random_numbers<T>(kMessageRows * shape.batch, random);
    std::vector<std::uint32_t> offsets = {0};
    std::vector<std::uint32_t> sources;
    for (std::int64_t i = 0; i < shape.count; ++i) {
      for (auto k = random() % 5; k > 0; --k) {
        sources.push_back(static_cast<std::uint32_t>(random() % kMessageRows));
      }
      offsets.push_back(static_cast<std::uint32_t>(sources.size()));
    }
    const auto got = on.put(x.data);
    for (std::int64_t i = 0; i < shape.count; ++i) {
      for (std::int64_t b = 0; b < shape.batch; ++b) {
        Wide<T> sum = x.view.at(rows[i], b);
        for (std::uint32_t k = offsets[i]; k < offsets[i + 1]; ++k) {
          sum += message[sources[k] * shape.batch + b];
        }
        x.view.at(rows[i], b) = T(sum);
      }
    }
    const auto from = on.put(message);
    const auto row_list = on.put(rows);
    const auto offset_list = on.put(offsets);
    const auto source_list = on.put(sources);
    on.kernels.add({x.on(got), row_list.data(), offset_list.data(), source_list.data(), shape.count,
                    from.data()},
                   *on.stream);
    expect_equal(got.read(), x.data);
  }
};

struct CopiesRows {
  template <class T>
  void operator()(const Devices<T>& on, const Shape& shape) const {
    std::mt19937_64 random(9);
    const Plain<T> x(shape, random);
    Plain<T> y(shape, random);
    const std::vector<std::uint32_t> from_rows = some_rows(shape.count, random);
    const std::vector<std::uint32_t> to_rows = some_rows(shape.count, random);
    const auto got = on.put(y.data);
    for (std::int64_t i = 0; i < shape.count; ++i) {
      for (std::int64_t b = 0; b < x.view.count() * shape.width; ++b) {
        y.view.at(to_rows[i], b) = x.view.at(from_rows[i], b);
      }
    }
    const auto from = on.put(x.data);
    const auto from_list = on.put(from_rows);
    const auto to_list = on.put(to_rows);
    on.kernels.copy_rows({x.on(from), y.on(got), from_list.data(), to_list.data(), shape.count},
                         *on.stream);
    expect_equal(got.read(), y.data);
  }
};

TEST(MessageKernels, PackTheRowsOfAList) { on_all(Packs()); }
TEST(MessageKernels, UnpackThemAndClearTheRestOfAPanel) { on_all(Unpacks()); }
TEST(MessageKernels, AddInTheOrderOfTheList) { on_all(Adds()); }
TEST(MessageKernels, CopyRowsWithAllTheirLanes) { on_all(CopiesRows()); }

}  // namespace
}  // namespace spdnn
