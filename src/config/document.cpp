// Reading a configuration file and applying `--set` to it.
#include "document.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "sax.hpp"
#include "spdnn/error.hpp"

namespace spdnn::config {
namespace {

constexpr std::size_t max_file_bytes = std::size_t{16} << 20;

std::string read_text(const std::filesystem::path& file) {
  std::error_code error;
  if (std::filesystem::is_directory(file, error)) {
    throw InputError(fmt::format("{}: is a folder; a configuration is a JSON file", file.string()));
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> in(std::fopen(file.c_str(), "rb"),
                                                           &std::fclose);
  if (in == nullptr) {
    throw InputError(fmt::format("{}: cannot be opened: {}", file.string(), std::strerror(errno)));
  }
  std::string text;
  std::vector<char> piece(std::size_t{1} << 16);
  for (std::size_t got = 0; (got = std::fread(piece.data(), 1, piece.size(), in.get())) > 0;) {
    text.append(piece.data(), got);
    if (text.size() > max_file_bytes) {
      throw InputError(
          fmt::format("{}: is larger than {} MiB; a configuration is a short JSON file",
                      file.string(), max_file_bytes >> 20));
    }
  }
  if (std::ferror(in.get()) != 0) {
    throw InputError(fmt::format("{}: cannot be read: {}", file.string(), std::strerror(errno)));
  }
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  return text;
}

/// The steps of a JSON pointer, unescaped.
std::vector<std::string> steps_of(std::string_view pointer, const std::string& where) {
  std::vector<std::string> steps;
  while (!pointer.empty()) {
    pointer.remove_prefix(1);
    const std::string_view raw = pointer.substr(0, pointer.find('/'));
    std::string step;
    for (std::size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '~') {
        step += raw[i];
      } else if (i + 1 < raw.size() && (raw[i + 1] == '0' || raw[i + 1] == '1')) {
        step += raw[++i] == '0' ? '~' : '/';
      } else {
        throw InputError(where + ": in a JSON pointer '~' is written ~0 and '/' in a name ~1");
      }
    }
    steps.push_back(std::move(step));
    pointer.remove_prefix(raw.size());
  }
  return steps;
}

/// The item of `list` that `step` names, one past the end being a new one.
Json& list_item(Json& list, const std::string& step, const std::string& where,
                const std::string& at) {
  const bool digits =
      !step.empty() && step.size() < 10 &&
      std::all_of(step.begin(), step.end(), [](char c) { return c >= '0' && c <= '9'; });
  const std::size_t index = digits ? std::stoul(step) : list.size() + 1;
  if (index > list.size()) {
    throw InputError(fmt::format("{}: {} is a list of {}; an item is a number from 0 to {}", where,
                                 at.empty() ? "/" : at, list.size(), list.size()));
  }
  if (index == list.size()) list.push_back(nullptr);
  return list[index];
}

Json parse_set_value(std::string_view text, const std::string& where) {
  const Parsed parsed = parse(text);
  if (parsed.problem.empty()) return parsed.value;
  // What opens a JSON string, list or object was meant as one; anything else is a bare word.
  const bool meant_as_json =
      !text.empty() && (text.front() == '{' || text.front() == '[' || text.front() == '"');
  if (!meant_as_json && !text.empty()) return Json(std::string(text));
  throw InputError(
      fmt::format("{}: column {} of the value: {}", where, parsed.column, parsed.problem));
}

}  // namespace

std::string join(std::string_view pointer, std::string_view name) {
  std::string joined(pointer);
  joined += '/';
  for (const char c : name) {
    if (c == '~') {
      joined += "~0";
    } else if (c == '/') {
      joined += "~1";
    } else {
      joined += c;
    }
  }
  return joined;
}

Document Document::read(const std::filesystem::path& file) {
  Document document;
  document.file_ = file.string();
  const std::string text = read_text(file);
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
    throw InputError(fmt::format("{}: is empty; expected a JSON object", document.file_));
  }
  Parsed parsed = parse(text);
  if (!parsed.problem.empty()) {
    throw InputError(
        fmt::format("{}:{}:{}: {}", document.file_, parsed.line, parsed.column, parsed.problem));
  }
  document.root_ = std::move(parsed.value);
  document.places_.emplace("", document.file_);
  for (const auto& [pointer, line] : parsed.lines) {
    document.places_.emplace(pointer, fmt::format("{}:{}", document.file_, line));
  }
  return document;
}

void Document::set(const std::string& argument) {
  const std::string where = "--set " + argument;
  const std::size_t equals = argument.find('=');
  if (argument.empty() || argument.front() != '/' || equals == std::string::npos) {
    throw InputError(where + ": expected /json/pointer=value, for example /batch=64");
  }
  const std::string pointer = argument.substr(0, equals);
  Json value = parse_set_value(std::string_view(argument).substr(equals + 1), where);
  Json* at = &root_;
  std::string done;
  for (const std::string& step : steps_of(pointer, where)) {
    if (at->is_null()) {
      *at = step == "0" ? Json::array() : Json::object();
      places_[done] = where;
    }
    if (at->is_array()) {
      at = &list_item(*at, step, where, done);
    } else if (at->is_object()) {
      at = &(*at)[step];
    } else {
      throw InputError(fmt::format("{}: {} is {}, which has no '{}' inside", where,
                                   done.empty() ? "the configuration" : done,
                                   at->dump(-1, ' ', true, Json::error_handler_t::replace), step));
    }
    done = join(done, step);
  }
  *at = std::move(value);
  // What was written inside the replaced value is gone.
  for (auto it = places_.lower_bound(done); it != places_.end() && it->first.starts_with(done);) {
    it = it->first == done || it->first[done.size()] == '/' ? places_.erase(it) : std::next(it);
  }
  places_[done] = where;
}

std::string Document::place(std::string_view pointer) const {
  for (;;) {
    const auto found = places_.find(pointer);
    if (found != places_.end()) return found->second;
    if (pointer.empty()) return file_;
    pointer = pointer.substr(0, pointer.rfind('/'));
  }
}

}  // namespace spdnn::config
