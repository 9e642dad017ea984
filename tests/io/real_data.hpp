// Real data for tests, found through the environment variable SPDNN_DATA.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

namespace spdnn::test {

/// `SPDNN_DATA/name` where that is there.
inline std::optional<std::filesystem::path> real_data(const std::string& name) {
  const char* folder = std::getenv("SPDNN_DATA");
  if (folder == nullptr) return std::nullopt;
  const std::filesystem::path file = std::filesystem::path(folder) / name;
  if (!std::filesystem::exists(file)) return std::nullopt;
  return file;
}

/// Unpacks the official network of 1024 neurons × 120 layers, its first 1,200 images and their
/// categories into `folder`; false where SPDNN_DATA has none.
inline bool unpack_official_data(const std::filesystem::path& folder) {
  const auto archive = real_data("sdgc/sdgc-neuron1024-l120.tar.xz");
  if (!archive) return false;
  const std::string command = "tar -xJf '" + archive->string() + "' -C '" + folder.string() + "'";
  const int status = std::system(command.c_str());
  EXPECT_EQ(status, 0) << command;
  return status == 0;
}

}  // namespace spdnn::test
