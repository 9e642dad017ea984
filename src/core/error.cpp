// How errors tell their place.
#include "spdnn/error.hpp"

#include <fmt/format.h>

namespace spdnn {

InputError::InputError(const std::filesystem::path& file, std::string_view message)
    : InputError(fmt::format("{}: {}", file.string(), message)) {}

InputError::InputError(const std::filesystem::path& file, std::int64_t line,
                       std::string_view message)
    : InputError(fmt::format("{}:{}: {}", file.string(), line, message)) {}

}  // namespace spdnn
