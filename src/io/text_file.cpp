// Fields of a line, one at a time.
#include "text_file.hpp"

#include <fmt/format.h>

namespace spdnn {

std::int64_t TextFile::take_integer(const char* name, std::int64_t least, std::int64_t most,
                                    std::string_view remedy) {
  const std::string_view field = take_word();
  if (field.empty()) fail(fmt::format("{} is missing at the end of the line", name));
  std::optional<std::string> error;
  const auto value = read_id(field, {name, most, least}, remedy, error);
  if (!value) fail(*error);
  return *value;
}

float TextFile::take_float(const char* name) {
  const std::string_view field = take_word();
  if (field.empty()) fail(fmt::format("{} is missing at the end of the line", name));
  float value = 0.0F;
  if (read_finite_float(field, value) != field.size()) {
    fail(fmt::format("{} {} is not a number within ±3.4e38; write it as 0.0625 or 6.25e-02", name,
                     quote(field)));
  }
  return value;
}

}  // namespace spdnn
