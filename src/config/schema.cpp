// The JSON Schema of a configuration, written from the table of keys.
#include <limits>

#include "keys.hpp"
#include "spdnn/config.hpp"

namespace spdnn {
namespace {

using config::children;
using config::Form;
using config::Json;
using config::Key;

Json schema_of(const Key& key);

Json object_schema(const Key& key) {
  Json schema{{"type", "object"}};
  Json properties = Json::object();
  Json required = Json::array();
  Json dependent = Json::object();
  for (const Key* child : children(key.pointer)) {
    const std::string name(child->name());
    properties[name] = schema_of(*child);
    if (child->required) required.push_back(name);
    if (!child->needs.empty()) dependent[name] = Json::array({std::string(child->needs)});
  }
  schema["properties"] = std::move(properties);
  if (!required.empty()) schema["required"] = std::move(required);
  if (!dependent.empty()) schema["dependentRequired"] = std::move(dependent);
  if (!key.one_of.empty()) {
    Json choices = Json::array();
    for (const std::string_view name : key.one_of) {
      choices.push_back(Json{{"required", Json::array({std::string(name)})}});
    }
    schema["oneOf"] = std::move(choices);
  }
  schema["additionalProperties"] = false;
  return schema;
}

Json form_schema(const Key& key, const Form& form) {
  switch (form.type) {
    case Form::Type::word: {
      Json names = Json::array();
      for (const std::string_view word : form.words) names.push_back(std::string(word));
      return Json{{"type", "string"}, {"enum", std::move(names)}};
    }
    case Form::Type::boolean: return Json{{"type", "boolean"}};
    case Form::Type::integer:
      return Json{{"type", "integer"}, {"minimum", form.least}, {"maximum", form.most}};
    case Form::Type::number:
      return Json{{"type", "number"},
                  {form.above_low ? "exclusiveMinimum" : "minimum", form.low},
                  {"maximum", form.high}};
    case Form::Type::text: return Json{{"type", "string"}, {"minLength", 1}};
    case Form::Type::bytes: {
      const Json count{{"type", "integer"},
                       {"minimum", 1},
                       {"maximum", std::numeric_limits<std::int64_t>::max()}};
      const Json size{{"type", "string"}, {"pattern", std::string(config::size_pattern)}};
      return Json{{"anyOf", Json::array({count, size})}};
    }
    case Form::Type::list:
      return Json{
          {"type", "array"}, {"items", schema_of(config::item_of(key))}, {"minItems", form.least}};
    case Form::Type::object: return object_schema(key);
  }
  return Json::object();
}

Json schema_of(const Key& key) {
  Json schema{{"description", std::string(key.about)}};
  if (!key.fallback.empty()) schema["default"] = Json::parse(key.fallback);
  if (key.forms.size() == 1) {
    schema.update(form_schema(key, key.forms.front()));
    return schema;
  }
  Json forms = Json::array();
  for (const Form& form : key.forms) forms.push_back(form_schema(key, form));
  schema["anyOf"] = std::move(forms);
  return schema;
}

}  // namespace

std::string config_schema() {
  Json schema{{"$schema", "https://json-schema.org/draft/2020-12/schema"},
              {"title", "Configuration of spdnn-gpu"}};
  schema.update(schema_of(config::keys().front()));
  return schema.dump(2) + "\n";
}

}  // namespace spdnn
