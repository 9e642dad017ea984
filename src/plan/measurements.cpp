// The file in which measurements are kept: one JSON object, `key: [seconds, day]`.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "spdnn/io.hpp"
#include "spdnn/plan.hpp"

namespace spdnn {
namespace {

using nlohmann::json;

constexpr std::int64_t kDaysKept = 30;

std::int64_t today() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::hours>(now).count() / 24;
}

}  // namespace

Measurements::Measurements(std::string file, bool refresh) : file_(std::move(file)) {
  if (file_.empty() || refresh) return;
  std::ifstream stream(file_);
  const json content = json::parse(stream, nullptr, false);
  if (!content.is_object()) return;
  for (const auto& [key, value] : content.items()) {
    if (!value.is_array() || value.size() != 2 || !value[0].is_number() ||
        !value[1].is_number_integer()) {
      continue;
    }
    const Entry entry = {value[0], value[1]};
    if (entry.seconds > 0.0 && today() - entry.day <= kDaysKept) entries_[key] = entry;
  }
  stored_ = entries_.size();
}

double& Measurements::operator[](const std::string& key) {
  return entries_.try_emplace(key, Entry{0.0, today()}).first->second.seconds;
}

void Measurements::store() {
  if (file_.empty() || entries_.size() == stored_) return;
  json content = json::object();
  for (const auto& [key, entry] : entries_) content[key] = {entry.seconds, entry.day};
  const std::filesystem::path path = file_;
  std::error_code ignored;
  std::filesystem::create_directories(path.parent_path(), ignored);
  try {
    write_file_atomically(path, content.dump(1) + '\n');
  } catch (const SystemError&) {
    // What is not remembered is measured again.
  }
  stored_ = entries_.size();
}

}  // namespace spdnn
