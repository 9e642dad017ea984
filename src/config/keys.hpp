// The keys of a configuration as one table: the parser and the JSON Schema are both driven by it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace spdnn::config {

using Json = nlohmann::ordered_json;

/// One form that a value may take.
struct Form {
  enum class Type : std::uint8_t { word, boolean, integer, number, text, bytes, list, object };
  Type type = Type::text;
  std::vector<std::string_view> words{};  ///< of a word
  std::int64_t least = 0, most = 0;       ///< of an integer; `least` items of a list
  double low = 0.0, high = 0.0;           ///< of a number
  bool above_low = false;                 ///< a number must be greater than `low`
};

/// A word that is documented but that this version does not do.
struct Unavailable {
  std::string_view word;
  std::string_view remedy;
};

/// One key of the configuration.
struct Key {
  std::string_view pointer{};  ///< JSON pointer; `*` stands for every item of a list
  std::vector<Form> forms{};
  std::string_view fallback{};  ///< the default, as JSON; empty where there is none
  std::string_view about{};     ///< one line for the schema
  bool required = false;
  std::string_view needs{};                ///< sibling that this key goes with
  std::vector<std::string_view> one_of{};  ///< of an object: exactly one of these must be there
  std::vector<Unavailable> unavailable{};

  [[nodiscard]] std::string_view name() const { return pointer.substr(pointer.rfind('/') + 1); }
  [[nodiscard]] std::string_view parent() const {
    return pointer.empty() ? pointer : pointer.substr(0, pointer.rfind('/'));
  }
};

/// Every key, parents before children, in the order the schema lists them. The first is the
/// configuration itself, with an empty pointer.
[[nodiscard]] const std::vector<Key>& keys();

/// The keys directly under `parent`, which is a pointer in the table's notation.
[[nodiscard]] std::vector<const Key*> children(std::string_view parent);

/// The key of the items of the list at `pointer`.
[[nodiscard]] const Key& item_of(const Key& list);

/// What a size in bytes looks like when it is a string: "8GB", "512MiB", "1.5 GiB".
inline constexpr std::string_view size_pattern =
    "^[0-9]+(\\.[0-9]+)? ?(B|[kK]B|MB|GB|TB|KiB|MiB|GiB|TiB)$";

}  // namespace spdnn::config
