// Tables of an assignment, and how moves change them.
#include "assignment.hpp"

#include <algorithm>

namespace spdnn::hypergraph {
namespace {

/// In `used_`: the net has a slot for each part.
constexpr std::uint32_t kDirect = ~std::uint32_t{0};

/// Whether a net of so many pins has a slot for each part. A list is faster where the net touches
/// few of the parts: its slots share a line or two.
bool direct(std::int64_t pins, std::int64_t parts) { return parts <= 8 || pins >= 4 * parts; }

}  // namespace

Assignment::Assignment(const Hypergraph& graph, const Limits& limits,
                       std::vector<std::uint32_t> parts)
    : graph_(graph),
      limits_(limits),
      parts_(std::move(parts)),
      load_(static_cast<std::size_t>(graph.layers * limits.parts())),
      slot_offsets_{0},
      used_(static_cast<std::size_t>(graph.nets())),
      anchor_(static_cast<std::size_t>(graph.vertices())),
      bucket_(static_cast<std::size_t>(graph.layers * limits.parts())),
      place_(static_cast<std::size_t>(graph.vertices())),
      change_of_u_(static_cast<std::size_t>(graph.nets())),
      seen_(static_cast<std::size_t>(graph.nets())) {
  for (std::int64_t net = 0; net < graph.nets(); ++net) {
    const std::int64_t pins = std::ssize(graph.pins_of(net));
    if (direct(pins, limits.parts())) used_[net] = kDirect;
    const std::int64_t slots = used_[net] == kDirect ? limits.parts() : pins;
    slot_offsets_.push_back(slot_offsets_.back() + slots);
  }
  slots_.resize(static_cast<std::size_t>(slot_offsets_.back()));
  for (std::uint32_t net = 0; net < graph.nets(); ++net) {
    for (const std::uint32_t v : graph.pins_of(net)) add_pin(net, parts_[v]);
    cost_ -= graph.net_words[net];  // the first part on a net costs nothing
  }
  std::vector<std::int64_t> count(static_cast<std::size_t>(graph.layers));
  std::vector<std::int64_t> sum(static_cast<std::size_t>(graph.layers));
  for (std::int64_t v = 0; v < graph.vertices(); ++v) {
    for (const Weight& own : graph.weights_of(v)) {
      load_[own.layer * limits.parts() + parts_[v]] += own.nonzeros;
      sum[own.layer] += own.nonzeros;
      ++count[own.layer];
    }
    if (v < graph.fixed) continue;
    anchor_[v] = graph.weights_of(v).front().layer;
    auto& bucket = bucket_[bucket_of(static_cast<std::uint32_t>(v), parts_[v])];
    place_[v] = static_cast<std::uint32_t>(bucket.size());
    bucket.push_back(static_cast<std::uint32_t>(v));
  }
  for (std::int64_t l = 0; l < graph.layers; ++l) {
    per_row_.push_back(sum[l] == 0 ? 0.0
                                   : static_cast<double>(count[l]) / static_cast<double>(sum[l]));
    for (int part = 0; part < limits.parts(); ++part) {
      overload_ += over(static_cast<std::size_t>(l), load_[l * limits.parts() + part], part);
    }
  }
}

std::uint32_t Assignment::pins_in(std::uint32_t net, std::uint32_t part) const {
  const Slot* slots = slots_.data() + slot_offsets_[net];
  if (used_[net] == kDirect) return slots[part].pins;
  for (std::uint32_t s = 0; s < used_[net]; ++s) {
    if (slots[s].part == part) return slots[s].pins;
  }
  return 0;
}

void Assignment::add_pin(std::uint32_t net, std::uint32_t part) {
  Slot* slots = slots_.data() + slot_offsets_[net];
  std::uint32_t at = part;
  if (used_[net] != kDirect) {
    for (at = 0; at < used_[net] && slots[at].part != part;) ++at;
    if (at == used_[net]) slots[used_[net]++] = {part, 0};
  }
  if (slots[at].pins++ == 0) cost_ += graph_.net_words[net];
}

void Assignment::drop_pin(std::uint32_t net, std::uint32_t part) {
  Slot* slots = slots_.data() + slot_offsets_[net];
  std::uint32_t at = part;
  const bool listed = used_[net] != kDirect;
  if (listed) {
    for (at = 0; slots[at].part != part;) ++at;
  }
  if (--slots[at].pins > 0) return;
  cost_ -= graph_.net_words[net];
  if (listed) slots[at] = slots[--used_[net]];
}

double Assignment::over(std::size_t layer, std::int64_t load, std::int64_t part) const {
  const std::int64_t above = load - limits_.most(static_cast<std::int64_t>(layer), part);
  return above > 0 ? static_cast<double>(above) * per_row_[layer] : 0.0;
}

double Assignment::overload_change(std::uint32_t v, std::uint32_t to) const {
  const std::uint32_t from = parts_[v];
  double change = 0.0;
  for (const Weight& own : graph_.weights_of(v)) {
    const std::int64_t* load = load_.data() + own.layer * limits_.parts();
    change += over(own.layer, load[to] + own.nonzeros, to) - over(own.layer, load[to], to) +
              over(own.layer, load[from] - own.nonzeros, from) - over(own.layer, load[from], from);
  }
  return change;
}

void Assignment::shift_load(std::uint32_t v, std::uint32_t from, std::uint32_t to) {
  for (const Weight& own : graph_.weights_of(v)) {
    load_[own.layer * limits_.parts() + from] -= own.nonzeros;
    load_[own.layer * limits_.parts() + to] += own.nonzeros;
  }
}

Assignment::Change Assignment::change_of_move(std::uint32_t v, std::uint32_t to) const {
  Change change;
  for (const std::uint32_t net : graph_.nets_of(v)) change.words += change_on(net, parts_[v], to);
  change.overload = overload_change(v, to);
  return change;
}

Assignment::Change Assignment::change_of_swap(std::uint32_t u, std::uint32_t v) {
  const std::uint32_t a = parts_[u];
  const std::uint32_t b = parts_[v];
  Change change;
  ++tick_;
  for (const std::uint32_t net : graph_.nets_of(u)) {
    change.words += change_of_u_[net] = change_on(net, a, b);
    seen_[net] = tick_;
  }
  for (const std::uint32_t net : graph_.nets_of(v)) {
    // A net of both has as many pins in either part as before.
    change.words += seen_[net] == tick_ ? -change_of_u_[net] : change_on(net, b, a);
  }
  change.overload = overload_change(u, b);
  shift_load(u, a, b);
  change.overload += overload_change(v, a);
  shift_load(u, b, a);
  return change;
}

void Assignment::move(std::uint32_t v, std::uint32_t to) {
  const std::uint32_t from = parts_[v];
  overload_ += overload_change(v, to);
  shift_load(v, from, to);
  for (const std::uint32_t net : graph_.nets_of(v)) {
    // First out, then in: a net without a slot to spare has one after a pin has gone.
    drop_pin(net, from);
    add_pin(net, to);
  }
  auto& old_bucket = bucket_[bucket_of(v, from)];
  place_[old_bucket.back()] = place_[v];
  old_bucket[place_[v]] = old_bucket.back();
  old_bucket.pop_back();
  auto& new_bucket = bucket_[bucket_of(v, to)];
  place_[v] = static_cast<std::uint32_t>(new_bucket.size());
  new_bucket.push_back(v);
  parts_[v] = to;
}

}  // namespace spdnn::hypergraph
