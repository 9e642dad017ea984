// Tables of an assignment, and how moves change them.
#include "assignment.hpp"

#include <algorithm>

namespace spdnn::hypergraph {
Assignment::Assignment(const Hypergraph& graph, const Limits& limits,
                       std::vector<std::uint32_t> parts)
    : graph_(graph),
      limits_(limits),
      parts_(std::move(parts)),
      load_(static_cast<std::size_t>(graph.layers * limits.parts())),
      slot_offsets_{0},
      filter_words_((static_cast<std::size_t>(graph.nets()) + 63) / 64),
      filter_(std::min(kFilterRows, static_cast<std::uint32_t>(limits.parts())) * filter_words_),
      alone_(static_cast<std::size_t>(graph.vertices())),
      anchor_(static_cast<std::size_t>(graph.vertices())),
      bucket_(static_cast<std::size_t>(graph.layers * limits.parts())),
      place_(static_cast<std::size_t>(graph.vertices())) {
  slot_offsets_.reserve(static_cast<std::size_t>(graph.nets()) + 1);
  for (std::int64_t net = 0; net < graph.nets(); ++net) {
    const std::int64_t pins = std::ssize(graph.pins_of(net));
    const std::int64_t slots = std::min<std::int64_t>(limits.parts(), pins + pins / 2 + 1);
    slot_offsets_.push_back(slot_offsets_.back() + slots);
  }
  slots_.resize(static_cast<std::size_t>(slot_offsets_.back()));
  for (std::uint32_t net = 0; net < graph.nets(); ++net) {
    for (const std::uint32_t v : graph.pins_of(net)) add_pin(net, v, parts_[v]);
    cost_ -= graph.net_words[net];  // the first part on a net costs nothing
  }
  add_vertices();
}

void Assignment::add_vertices() {
  std::vector<std::int64_t> count(static_cast<std::size_t>(graph_.layers));
  std::vector<std::int64_t> sum(static_cast<std::size_t>(graph_.layers));
  for (std::int64_t v = 0; v < graph_.vertices(); ++v) {
    for (const Weight& own : graph_.weights_of(v)) {
      load_[own.layer * limits_.parts() + parts_[v]] += own.nonzeros;
      sum[own.layer] += own.nonzeros;
      ++count[own.layer];
    }
    if (v < graph_.fixed) continue;
    anchor_[v] = graph_.weights_of(v).front().layer;
    auto& bucket = bucket_[bucket_of(static_cast<std::uint32_t>(v), parts_[v])];
    place_[v] = static_cast<std::uint32_t>(bucket.size());
    bucket.push_back(static_cast<std::uint32_t>(v));
  }
  for (std::int64_t l = 0; l < graph_.layers; ++l) {
    per_row_.push_back(sum[l] == 0 ? 0.0
                                   : static_cast<double>(count[l]) / static_cast<double>(sum[l]));
    for (int part = 0; part < limits_.parts(); ++part) {
      overload_ += over(static_cast<std::size_t>(l), load_[l * limits_.parts() + part], part);
    }
  }
}

std::int64_t Assignment::home_of(std::uint32_t part, std::int64_t slots) const {
  if (slots == limits_.parts()) return part;
  constexpr std::uint32_t kGolden = 0x9E3779B1U;  // Knuth's multiplicative hash
  const std::uint32_t mixed = part * kGolden;
  return static_cast<std::int64_t>(mixed * static_cast<std::uint64_t>(slots) >> 32U);
}

const Assignment::Slot* Assignment::find(std::uint32_t net, std::uint32_t part) const {
  const Slot* slots = slots_.data() + slot_offsets_[net];
  const std::int64_t count = slots_of(net);
  std::int64_t at = home_of(part, count);
  while (slots[at].pins > 0 && slots[at].part != part) at = at + 1 == count ? 0 : at + 1;
  return slots + at;
}

/// Frees a slot of a hashed net: those behind it that would no longer be found move up.
void Assignment::free_slot(std::uint32_t net, Slot* slot) {
  Slot* slots = slots_.data() + slot_offsets_[net];
  const std::int64_t count = slots_of(net);
  std::int64_t hole = slot - slots;
  slots[hole].pins = 0;
  for (std::int64_t at = hole;;) {
    at = at + 1 == count ? 0 : at + 1;
    if (slots[at].pins == 0) return;
    const std::int64_t home = home_of(slots[at].part, count);
    const bool stays = hole < at ? hole < home && home <= at : hole < home || home <= at;
    if (stays) continue;
    slots[hole] = slots[at];
    slots[at].pins = 0;
    hole = at;
  }
}

bool Assignment::touches(std::uint32_t net, std::uint32_t part) const {
  const std::uint64_t word = filter_[(part % kFilterRows) * filter_words_ + net / 64];
  if ((word >> (net % 64) & 1U) == 0) return false;
  if (static_cast<std::uint32_t>(limits_.parts()) <= kFilterRows) return true;
  return find(net, part)->pins > 0;
}

void Assignment::add_pin(std::uint32_t net, std::uint32_t v, std::uint32_t part) {
  auto* slot = const_cast<Slot*>(find(net, part));
  if (slot->pins == 0) *slot = {part, 0, 0};
  const std::int64_t words = graph_.net_words[net];
  if (slot->pins == 0) {
    cost_ += words;
    alone_[v] += words;
    filter(net, part) |= std::uint64_t{1} << (net % 64);
  } else if (slot->pins == 1) {
    alone_[slot->mixed] -= words;
  }
  ++slot->pins;
  slot->mixed ^= v;
}

void Assignment::drop_pin(std::uint32_t net, std::uint32_t v, std::uint32_t part) {
  auto* slot = const_cast<Slot*>(find(net, part));
  const std::int64_t words = graph_.net_words[net];
  --slot->pins;
  slot->mixed ^= v;
  if (slot->pins == 1) alone_[slot->mixed] += words;
  if (slot->pins > 0) return;
  cost_ -= words;
  alone_[v] -= words;
  if (slots_of(net) < limits_.parts()) free_slot(net, slot);
  leave_filter(net, part);
}

/// Clears the bit of a part that has left, unless another on the net shares it.
void Assignment::leave_filter(std::uint32_t net, std::uint32_t part) {
  if (static_cast<std::uint32_t>(limits_.parts()) > kFilterRows) {
    const auto shares = [&](const Slot& slot) {
      return slot.pins > 0 && slot.part % kFilterRows == part % kFilterRows;
    };
    const Slot* slots = slots_.data() + slot_offsets_[net];
    if (std::any_of(slots, slots + slots_of(net), shares)) return;
  }
  filter(net, part) &= ~(std::uint64_t{1} << (net % 64));
}

double Assignment::over(std::size_t layer, std::int64_t load, std::int64_t part) const {
  const std::int64_t above = load - limits_.most(static_cast<std::int64_t>(layer), part);
  return above > 0 ? static_cast<double>(above) * per_row_[layer] : 0.0;
}

double Assignment::overload_of_move(std::uint32_t v, std::uint32_t to) const {
  const std::uint32_t from = parts_[v];
  double change = 0.0;
  for (const Weight& own : graph_.weights_of(v)) {
    const std::int64_t* load = load_.data() + own.layer * limits_.parts();
    change += over(own.layer, load[to] + own.nonzeros, to) - over(own.layer, load[to], to) +
              over(own.layer, load[from] - own.nonzeros, from) - over(own.layer, load[from], from);
  }
  return change;
}

double Assignment::overload_of_swap(std::uint32_t u, std::uint32_t v) {
  const std::uint32_t a = parts_[u];
  const std::uint32_t b = parts_[v];
  double change = overload_of_move(u, b);
  shift_load(u, a, b);
  change += overload_of_move(v, a);
  shift_load(u, b, a);
  return change;
}

bool Assignment::crowded(std::uint32_t v) const {
  const auto own = graph_.weights_of(v);
  return std::any_of(own.begin(), own.end(), [&](const Weight& weight) {
    return load_[weight.layer * limits_.parts() + parts_[v]] >
           limits_.most(weight.layer, parts_[v]);
  });
}

void Assignment::shift_load(std::uint32_t v, std::uint32_t from, std::uint32_t to) {
  for (const Weight& own : graph_.weights_of(v)) {
    load_[own.layer * limits_.parts() + from] -= own.nonzeros;
    load_[own.layer * limits_.parts() + to] += own.nonzeros;
  }
}

std::int64_t Assignment::words_of_move(std::uint32_t v, std::uint32_t to, std::int64_t most) const {
  // What it ends is known, what it begins only adds up.
  std::int64_t words = -alone_[v];
  for (const std::uint32_t net : graph_.nets_of(v)) {
    if (touches(net, to)) continue;
    words += graph_.net_words[net];
    if (words > most) break;
  }
  return words;
}

std::int64_t Assignment::find_touched(std::uint32_t v, std::vector<std::int64_t>& words,
                                      std::vector<std::uint32_t>& touched) const {
  std::int64_t elsewhere = -alone_[v];
  for (const std::uint32_t net : graph_.nets_of(v)) {
    elsewhere += graph_.net_words[net];
    const Slot* slots = slots_.data() + slot_offsets_[net];
    const std::int64_t count = slots_of(net);
    for (std::int64_t at = 0; at < count; ++at) {
      if (slots[at].pins == 0) continue;
      if (words[slots[at].part] == 0) touched.push_back(slots[at].part);
      words[slots[at].part] += graph_.net_words[net];
    }
  }
  return elsewhere;
}

void Assignment::compare_nets(std::uint32_t u, std::uint32_t v) {
  nets_.left.clear();
  nets_.right.clear();
  nets_.both.clear();
  const auto of_v = graph_.nets_of(v);
  auto at = of_v.begin();
  for (const std::uint32_t net : graph_.nets_of(u)) {
    while (at != of_v.end() && *at < net) nets_.right.push_back(*at++);
    if (at != of_v.end() && *at == net) {
      nets_.both.push_back(*at++);
    } else {
      nets_.left.push_back(net);
    }
  }
  nets_.right.insert(nets_.right.end(), at, of_v.end());
}

/// What a vertex of these nets changes on them by a move.
std::int64_t Assignment::words_on(const std::vector<std::uint32_t>& nets, std::uint32_t from,
                                  std::uint32_t to) const {
  std::int64_t words = 0;
  for (const std::uint32_t net : nets) {
    const int change = static_cast<int>(!touches(net, to)) - static_cast<int>(alone(net, from));
    words += change * graph_.net_words[net];
  }
  return words;
}

std::int64_t Assignment::words_of_swap(std::uint32_t u, std::uint32_t v, std::int64_t most) {
  const std::uint32_t a = parts_[u];
  const std::uint32_t b = parts_[v];
  const std::int64_t of_u = words_of_move(u, b, most + alone_[v]);
  std::int64_t words = of_u + words_of_move(v, a, most - of_u);
  if (words > most) return words;
  // A net of both has as many pins in either part as before: what it counted for ending is undone.
  compare_nets(u, v);
  if (nets_.left.size() + nets_.right.size() < nets_.both.size()) {
    return words_on(nets_.left, a, b) + words_on(nets_.right, b, a);
  }
  for (const std::uint32_t net : nets_.both) {
    words += graph_.net_words[net] * (alone(net, a) + alone(net, b));
  }
  return words;
}

/// A pin of `part` is another vertex from now on.
void Assignment::hand_over(std::uint32_t net, std::uint32_t part, std::uint32_t from,
                           std::uint32_t to) {
  auto* slot = const_cast<Slot*>(find(net, part));
  slot->mixed ^= from ^ to;
  if (slot->pins > 1) return;
  alone_[from] -= graph_.net_words[net];
  alone_[to] += graph_.net_words[net];
}

void Assignment::change_bucket(std::uint32_t v, std::uint32_t to) {
  auto& old_bucket = bucket_[bucket_of(v, parts_[v])];
  place_[old_bucket.back()] = place_[v];
  old_bucket[place_[v]] = old_bucket.back();
  old_bucket.pop_back();
  auto& new_bucket = bucket_[bucket_of(v, to)];
  place_[v] = static_cast<std::uint32_t>(new_bucket.size());
  new_bucket.push_back(v);
  parts_[v] = to;
}

void Assignment::move(std::uint32_t v, std::uint32_t to) {
  const std::uint32_t from = parts_[v];
  overload_ += overload_of_move(v, to);
  shift_load(v, from, to);
  for (const std::uint32_t net : graph_.nets_of(v)) {
    // First out, then in: a net without a slot to spare has one after a pin has gone.
    drop_pin(net, v, from);
    add_pin(net, v, to);
  }
  change_bucket(v, to);
}

void Assignment::swap(std::uint32_t u, std::uint32_t v) {
  const std::uint32_t a = parts_[u];
  const std::uint32_t b = parts_[v];
  overload_ += overload_of_swap(u, v);
  shift_load(u, a, b);
  shift_load(v, b, a);
  compare_nets(u, v);
  for (const std::uint32_t net : nets_.left) {
    drop_pin(net, u, a);
    add_pin(net, u, b);
  }
  for (const std::uint32_t net : nets_.right) {
    drop_pin(net, v, b);
    add_pin(net, v, a);
  }
  for (const std::uint32_t net : nets_.both) {
    hand_over(net, a, u, v);
    hand_over(net, b, v, u);
  }
  change_bucket(u, b);
  change_bucket(v, a);
}

}  // namespace spdnn::hypergraph
