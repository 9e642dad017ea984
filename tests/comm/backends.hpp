// The communicators that the tests of this folder run on, and data whose contents every rank knows.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <ostream>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "spdnn/comm.hpp"
#include "support/fake_nccl.hpp"

namespace spdnn::test {

/// A way to make a group. A new communicator is tested by being listed in `backends`.
struct Backend {
  const char* name;
  void (*run)(int size, const std::function<void(Communicator&)>& body);
  /// Of a group of `size`, the ranks that run in this process.
  Range (*ranks_here)(int size);
  std::uint64_t walks;  ///< random tests take so many
};

/// The processes of this test; see main.cpp.
[[nodiscard]] World& world();

/// This process's ranks where `size` of them are shared by all processes.
[[nodiscard]] inline Range share_of(int size) {
  const std::int64_t processes = world().processes().size();
  const std::int64_t process = world().processes().rank();
  return {size * process / processes, size * (process + 1) / processes};
}

/// With SPDNN_TEST_MPI set, the ranks are those of one or more MPI processes.
inline std::vector<Backend> chosen_backends() {
  if (std::getenv("SPDNN_TEST_MPI") == nullptr) {
    return {
        {"in_process",
         [](int size, const std::function<void(Communicator&)>& body) { run_ranks(size, body); },
         [](int size) {
           return Range{0, size};
         },
         1000},
        {"fake_nccl",
         [](int size, const std::function<void(Communicator&)>& body) {
           run_nccl_ranks(size, body);
         },
         [](int size) {
           return Range{0, size};
         },
         200}};
  }
  return {{"mpi",
           [](int size, const std::function<void(Communicator&)>& body) {
             world().run_ranks(static_cast<int>(share_of(size).size()), body);
           },
           share_of, 200}};
}
inline const std::vector<Backend> backends = chosen_backends();

/// Runs `body` on a group of `size`, in which `rank` throws an E: rethrown in the process it runs
/// in; in the others a rank that waits for it gets a `CommError`.
template <class E>
void expect_thrown(const Backend& backend, int size, int rank,
                   const std::function<void(Communicator&)>& body) {
  const Range here = backend.ranks_here(size);
  if (here.begin <= rank && rank < here.end) {
    EXPECT_THROW(backend.run(size, body), E);
  } else if (here.size() > 0) {
    EXPECT_THROW(backend.run(size, body), CommError);
  } else {
    backend.run(size, body);
  }
}

inline void PrintTo(const Backend& backend, std::ostream* out) { *out << backend.name; }

/// Tests for each backend and 1 to 8 ranks.
class CommTest : public testing::TestWithParam<std::tuple<Backend, int>> {
 protected:
  [[nodiscard]] int size() const { return std::get<1>(GetParam()); }
  void run(const std::function<void(Communicator&)>& body) const {
    std::get<0>(GetParam()).run(size(), body);
  }
  template <class E>
  void expect_thrown(int rank, const std::function<void(Communicator&)>& body) const {
    test::expect_thrown<E>(std::get<0>(GetParam()), size(), rank, body);
  }
  /// How many ranks the test sees the memory of.
  [[nodiscard]] std::int64_t here() const {
    return std::get<0>(GetParam()).ranks_here(size()).size();
  }
};

inline std::string test_name(const testing::TestParamInfo<CommTest::ParamType>& info) {
  return std::string(std::get<0>(info.param).name) + "_" + std::to_string(std::get<1>(info.param));
}

/// Calls `visit` with a value of each element type.
template <class Visit>
void for_each_type(Visit visit) {
  visit(float{});
  visit(double{});
  visit(std::uint8_t{});
  visit(std::uint16_t{});
  visit(std::uint32_t{});
  visit(std::int32_t{});
  visit(std::int64_t{});
}

/// Element `i` of what `rank` gives in step `step`: spread over the whole range of an integer type;
/// fractions whose sum depends on the order for a floating-point type.
template <class T>
T value_of(std::uint64_t step, int rank, std::int64_t i) {
  std::uint64_t x = step * 0x9E3779B97F4A7C15U + static_cast<std::uint64_t>(rank) * 0xBF58476DU +
                    static_cast<std::uint64_t>(i) * 0x94D049BB133111EBU;
  x ^= x >> 31U;
  x *= 0xD6E8FEB86659FD93U;
  x ^= x >> 32U;
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(x);
  } else {
    return static_cast<T>(static_cast<double>(static_cast<std::int64_t>(x)) * 0x1p-60);
  }
}

template <class T>
std::vector<T> values_of(std::uint64_t step, int rank, std::int64_t count) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(value_of<T>(step, rank, i));
  return values;
}

/// What the documentation says a reduction of two elements is, written without regard to speed.
template <class T>
T reduced(T a, T b, Reduction reduction) {
  switch (reduction) {
    case Reduction::sum:
      if constexpr (std::is_integral_v<T>) {
        return static_cast<T>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
      } else {
        return a + b;
      }
    case Reduction::max: return a < b ? b : a;
    case Reduction::min: return b < a ? b : a;
    case Reduction::bit_or:
    case Reduction::bit_and:
      if constexpr (std::is_integral_v<T>) {
        return static_cast<T>(reduction == Reduction::bit_or ? a | b : a & b);
      }
  }
  ADD_FAILURE() << "no such reduction of this type";
  return a;
}

/// The reductions defined for T.
template <class T>
std::vector<Reduction> reductions_of() {
  std::vector<Reduction> all = {Reduction::sum, Reduction::max, Reduction::min};
  if (std::is_integral_v<T>) all.insert(all.end(), {Reduction::bit_or, Reduction::bit_and});
  return all;
}

/// Element `i` of step `step`, reduced over `ranks` ranks in order.
template <class T>
T reduced_value(std::uint64_t step, int ranks, std::int64_t i, Reduction reduction) {
  T result = value_of<T>(step, 0, i);
  for (int r = 1; r < ranks; ++r) result = reduced(result, value_of<T>(step, r, i), reduction);
  return result;
}

/// All ranks' pieces one after the other.
template <class T>
std::vector<T> gathered(std::uint64_t step, std::span<const std::int64_t> counts) {
  std::vector<T> all;
  for (std::size_t r = 0; r < counts.size(); ++r) {
    const auto piece = values_of<T>(step, static_cast<int>(r), counts[r]);
    all.insert(all.end(), piece.begin(), piece.end());
  }
  return all;
}

}  // namespace spdnn::test
