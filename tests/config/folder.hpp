// A configuration in a folder of its own, and the error a configuration ends with.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "spdnn/config.hpp"
#include "support/scratch.hpp"

namespace spdnn::test {

class ConfigTest : public ::testing::Test {
 protected:
  void SetUp() override { unsetenv("SPDNN_DATA"); }

  std::filesystem::path write(const std::string& name, const std::string& text) const {
    write_text(folder_ / name, text);
    return folder_ / name;
  }

  /// The smallest whole configuration, with `more` members such as R"("batch": 4)".
  [[nodiscard]] static std::string with(const std::string& more) {
    return R"({"model": {"radixnet": {"neurons": 1024, "layers": 6}}, "input": {"digits": {}})" +
           (more.empty() ? std::string() : ",\n" + more) + "}";
  }

  [[nodiscard]] RunConfig load(const std::string& text, std::vector<std::string> sets = {}) const {
    ConfigOverrides overrides;
    overrides.sets = std::move(sets);
    return load_config(write("c.json", text), overrides);
  }

  /// The message a configuration is refused with; empty when it is accepted.
  [[nodiscard]] std::string refusal(const std::string& text,
                                    std::vector<std::string> sets = {}) const {
    try {
      static_cast<void>(load(text, std::move(sets)));
      return "";
    } catch (const InputError& error) {
      EXPECT_EQ(error.status(), ExitStatus::bad_input);
      return error.what();
    }
  }

  ScratchDir folder_;
};

/// Every one of `parts` is in `text`.
inline void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << "no \"" << part << "\" in:\n" << text;
  }
}

}  // namespace spdnn::test
