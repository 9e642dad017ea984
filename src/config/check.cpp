// Walks a configuration along the table of keys.
#include "check.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>

#include "document.hpp"
#include "spdnn/config.hpp"

namespace spdnn::config {
namespace {

// Beyond this a double no longer holds every integer.
constexpr double max_exact_integer = 9007199254740992.0;

std::string expected(const Form& form) {
  switch (form.type) {
    case Form::Type::word: return fmt::format("'{}'", fmt::join(form.words, "', '"));
    case Form::Type::boolean: return "true or false";
    case Form::Type::integer: return fmt::format("an integer from {} to {}", form.least, form.most);
    case Form::Type::number:
      return form.above_low ? fmt::format("a number above {}, at most {}", form.low, form.high)
                            : fmt::format("a number from {} to {}", form.low, form.high);
    case Form::Type::text: return "a string that is not empty, without \\u0000";
    case Form::Type::bytes: return "a number of bytes, or a size such as \"8GB\" or \"512MiB\"";
    case Form::Type::list: return fmt::format("a list of at least {}", form.least);
    case Form::Type::object: return "an object";
  }
  return {};
}

std::string found(const Json& value) {
  constexpr std::size_t most = 60;
  if (value.is_object()) return value.empty() ? "an empty object" : "an object";
  if (value.is_array()) return value.empty() ? "an empty list" : "a list";
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > most) text = text.substr(0, most) + "…";
  return value.is_string() ? "the string " + text : text;
}

/// Makes 1e3 and 2.0 the integers they are.
void normalise_integer(Json& value) {
  if (!value.is_number_float()) return;
  const double number = value.get<double>();
  if (std::abs(number) <= max_exact_integer && number == std::floor(number)) {
    value = static_cast<std::int64_t>(number);
  }
}

bool is_integer_within(const Json& value, std::int64_t least, std::int64_t most) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(most)) {
    return false;
  }
  const auto number = value.get<std::int64_t>();
  return number >= least && number <= most;
}

bool fits(const Form& form, Json& value) {
  switch (form.type) {
    case Form::Type::word:
      for (const std::string_view word : form.words) {
        if (value.is_string() && value.get_ref<const std::string&>() == word) return true;
      }
      return false;
    case Form::Type::boolean: return value.is_boolean();
    case Form::Type::integer:
      normalise_integer(value);
      return is_integer_within(value, form.least, form.most);
    case Form::Type::number: {
      if (!value.is_number()) return false;
      const auto number = value.get<double>();
      return number <= form.high && (form.above_low ? number > form.low : number >= form.low);
    }
    case Form::Type::text: {
      // A name with a zero byte would be cut there by the system, and name another file.
      if (!value.is_string()) return false;
      const std::string& text = value.get_ref<const std::string&>();
      return !text.empty() && text.find('\0') == std::string::npos;
    }
    case Form::Type::bytes:
      normalise_integer(value);
      return is_integer_within(value, 1, std::numeric_limits<std::int64_t>::max()) ||
             (value.is_string() && parse_size(value.get_ref<const std::string&>()).has_value());
    case Form::Type::list:
      return value.is_array() && value.size() >= static_cast<std::size_t>(form.least);
    case Form::Type::object: return value.is_object();
  }
  return false;
}

class Checker {
 public:
  [[nodiscard]] std::vector<Problem> take() { return std::move(problems_); }

  void value(Json& value, const Key& key, const std::string& pointer) {
    for (const Form& form : key.forms) {
      if (!fits(form, value)) continue;
      if (form.type == Form::Type::object) object(value, key, pointer);
      if (form.type == Form::Type::list) {
        for (std::size_t i = 0; i < value.size(); ++i) {
          this->value(value[i], item_of(key), join(pointer, std::to_string(i)));
        }
      }
      return;
    }
    problems_.push_back({pointer, misfit(value, key)});
  }

 private:
  [[nodiscard]] static std::string misfit(const Json& value, const Key& key) {
    std::vector<std::string> forms;
    std::vector<std::string_view> words;
    for (const Form& form : key.forms) {
      forms.push_back(expected(form));
      words.insert(words.end(), form.words.begin(), form.words.end());
    }
    std::string near;
    if (value.is_string()) {
      const std::string& word = value.get_ref<const std::string&>();
      for (const Unavailable& u : key.unavailable) {
        if (u.word == word) return fmt::format("'{}' is not available: {}", u.word, u.remedy);
      }
      near = nearest(word, words);
      if (!near.empty()) near = fmt::format("; did you mean '{}'?", near);
    }
    return fmt::format("found {}; expected {}{}", found(value), fmt::join(forms, ", or "), near);
  }

  void object(Json& object, const Key& key, const std::string& pointer) {
    const std::vector<const Key*> members = children(key.pointer);
    std::vector<std::string_view> names;
    names.reserve(members.size());
    for (const Key* member : members) names.push_back(member->name());
    for (auto& [name, inside] : object.items()) {
      const Key* member = nullptr;
      for (const Key* candidate : members) {
        if (candidate->name() == name) member = candidate;
      }
      if (member == nullptr) {
        problems_.push_back({join(pointer, name), unknown(name, names)});
      } else if (!member->needs.empty() && !object.contains(std::string(member->needs))) {
        problems_.push_back({join(pointer, name),
                             fmt::format("goes with '{}', which is not there", member->needs)});
      } else {
        value(inside, *member, join(pointer, name));
      }
    }
    choose(object, key, pointer);
    complete(object, members, pointer);
  }

  [[nodiscard]] static std::string unknown(const std::string& name,
                                           const std::vector<std::string_view>& names) {
    const std::string_view near = nearest(name, names);
    std::string hint;
    if (!near.empty()) {
      hint = fmt::format("did you mean '{}'? ", near);
    } else {
      for (const Key& key : keys()) {
        if (!name.empty() && key.name() == name) {
          hint = fmt::format("{} is where that key belongs; ", key.pointer);
          break;
        }
      }
    }
    return fmt::format("unknown key; {}allowed: {}", hint, fmt::join(names, ", "));
  }

  /// Exactly one of `key.one_of` must be there.
  void choose(const Json& object, const Key& key, const std::string& pointer) {
    std::vector<std::string_view> there;
    for (const std::string_view name : key.one_of) {
      if (object.contains(std::string(name))) there.push_back(name);
    }
    if (key.one_of.empty() || there.size() == 1) return;
    problems_.push_back({pointer, there.empty()
                                      ? fmt::format("needs one of: {}", fmt::join(key.one_of, ", "))
                                      : fmt::format("has both '{}' and '{}'; keep one of them",
                                                    there[0], there[1])});
  }

  /// Reports what is missing, or fills it in.
  void complete(Json& object, const std::vector<const Key*>& members, const std::string& pointer) {
    for (const Key* member : members) {
      const std::string name(member->name());
      if (object.contains(name)) continue;
      if (member->required) {
        problems_.push_back(
            {join(pointer, name), fmt::format("missing; {}", lower_first(member->about))});
      } else if (!member->fallback.empty() &&
                 (member->needs.empty() || object.contains(std::string(member->needs)))) {
        object[name] = Json::parse(member->fallback);
        // A default is checked as well: that is how the defaults inside it are filled in.
        value(object[name], *member, join(pointer, name));
      }
    }
  }

  [[nodiscard]] static std::string lower_first(std::string_view sentence) {
    std::string text(sentence);
    if (!text.empty() && text[0] >= 'A' && text[0] <= 'Z')
      text[0] = static_cast<char>(text[0] + 32);
    return text;
  }

  std::vector<Problem> problems_;
};

}  // namespace

std::vector<Problem> check(Json& root) {
  Checker checker;
  checker.value(root, keys().front(), "");
  return checker.take();
}

}  // namespace spdnn::config
