// Short names for the forms of keys, and limits that several of them share.
#pragma once

#include <limits>
#include <vector>

#include "keys.hpp"

namespace spdnn::config {

// Image ids are 32-bit on devices.
inline constexpr std::int64_t max_images = std::numeric_limits<std::int32_t>::max();
inline constexpr std::int64_t max_neurons = std::numeric_limits<std::int32_t>::max();
inline constexpr std::int64_t max_kernel = 1 << 16;
inline constexpr std::int64_t max_layers = 1'000'000;
inline constexpr std::int64_t max_seed = std::numeric_limits<std::int64_t>::max();
// Far inside float's range, so that sums of weights and biases stay finite.
inline constexpr double max_weight = 1e30;

inline Form words(std::vector<std::string_view> list) {
  return {.type = Form::Type::word, .words = std::move(list)};
}
inline Form boolean() { return {.type = Form::Type::boolean}; }
inline Form integer(std::int64_t least, std::int64_t most) {
  return {.type = Form::Type::integer, .least = least, .most = most};
}
inline Form number(double low, double high) {
  return {.type = Form::Type::number, .low = low, .high = high};
}
inline Form above(double low, double high) {
  return {.type = Form::Type::number, .low = low, .high = high, .above_low = true};
}
inline Form text() { return {.type = Form::Type::text}; }
inline Form bytes() { return {.type = Form::Type::bytes}; }
inline Form list(std::int64_t at_least) { return {.type = Form::Type::list, .least = at_least}; }
inline Form object() { return {.type = Form::Type::object}; }

/// Adds the keys of how a run is computed.
void add_plan(std::vector<Key>& table);

/// Adds the keys of devices.
void add_devices(std::vector<Key>& table);

/// Adds the keys of networks and runs that train.
void add_train(std::vector<Key>& table);

}  // namespace spdnn::config
