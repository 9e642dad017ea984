// What the tests of readers share: errors caught as text, whole matrices compared, and a way to
// lose root's rights.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "spdnn/matrix.hpp"
#include "support/scratch.hpp"

namespace spdnn::test {

/// Names in a folder, sorted.
inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// The message of the `Expected` that `body` throws; anything else fails the test.
template <class Expected = InputError>
std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Expected& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another exception: " << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no exception";
  return "";
}

inline void expect_contains(const std::string& text, std::string_view part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is missing in: " << text;
}

/// (row, column, value) of every entry, in stored order.
using Entries = std::vector<std::tuple<std::int64_t, std::int64_t, double>>;
inline Entries entries_of(const CsrView& matrix) {
  Entries entries;
  for (std::int64_t row = 0; row < matrix.rows; ++row) {
    for (std::int64_t k = matrix.row_begin(row); k < matrix.row_begin(row + 1); ++k) {
      entries.emplace_back(row, matrix.col(k), matrix.value(k));
    }
  }
  return entries;
}

inline void expect_equal(const Csr& a, const Csr& b) {
  EXPECT_EQ(a.rows(), b.rows());
  EXPECT_EQ(a.cols(), b.cols());
  EXPECT_EQ(a.nnz(), b.nnz());
  EXPECT_EQ(entries_of(a.view()), entries_of(b.view()));
}

/// Runs `body` as a user without rights, in a child process when this one is root. Returns whether
/// it could be run; failures in it are failures of the test.
inline bool run_unprivileged(const std::function<void()>& body) {
  if (::geteuid() != 0) {
    body();
    return true;
  }
  constexpr int kNoChange = 77;
  constexpr unsigned kNobody = 65534;
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) return false;
  if (child == 0) {
    if (::setgid(kNobody) != 0 || ::setuid(kNobody) != 0) ::_exit(kNoChange);
    try {
      body();
    } catch (const std::exception& error) {
      ADD_FAILURE() << "unexpected exception: " << error.what();
    }
    std::fflush(nullptr);
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNoChange) return false;
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "in the child process, see above";
  return true;
}

}  // namespace spdnn::test
