// What the tests of readers share: folders of their own, errors caught as text, whole matrices
// compared, and a way to lose root's rights.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn::test {

/// A folder that goes with the test, open to every user so that a test may change who it is.
class ScratchDir {
 public:
  ScratchDir() {
    std::string name = (std::filesystem::temp_directory_path() / "spdnn-io-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no folder for the test");
    path_ = name;
    std::filesystem::permissions(path_, std::filesystem::perms::all);
  }
  ~ScratchDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const {
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

inline void write_text(const std::filesystem::path& file, std::string_view text) {
  std::filesystem::create_directories(file.parent_path());
  // A new file: some file systems bring a file that is cut and written again to the disk at once.
  std::filesystem::remove(file);
  std::ofstream out(file, std::ios::binary);
  out << text;
  out.close();
  if (!out) throw std::runtime_error(file.string() + " could not be written");
}

inline std::string read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

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
