// Partitions and hypergraphs as text: the owner of each row, a line each, as hMETIS and its like
// write them; and the hypergraph for those programs.
#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <iterator>

#include "hypergraph/hypergraph.hpp"
#include "spdnn/io.hpp"
#include "spdnn/partition.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "% spdnn-gpu partition 1";

/// Lines of a file, one after another, with their numbers.
class Lines {
 public:
  explicit Lines(const fs::path& file) : file_(file), in_(file) {
    if (!in_) throw InputError(file, "can't be opened");
  }
  bool next() {
    ++number_;
    if (!std::getline(in_, line_)) {
      if (in_.bad()) throw InputError(file_, "can't be read");
      return false;
    }
    if (!line_.empty() && line_.back() == '\r') line_.pop_back();
    return true;
  }
  [[nodiscard]] const std::string& line() const { return line_; }
  [[noreturn]] void fail(const std::string& what) const { throw InputError(file_, number_, what); }

  /// The whole line behind `prefix` as a number from 0 to `most`.
  template <class T>
  T number(std::string_view what, T most, std::size_t prefix = 0, int base = 10) const {
    T value{};
    const char* end = line_.data() + line_.size();
    const auto [at, error] = std::from_chars(line_.data() + prefix, end, value, base);
    if (error != std::errc{} || at != end || value > most) {
      fail(fmt::format("'{}' is no {} from 0 to {}", line_.substr(prefix, 40), what, most));
    }
    return value;
  }

 private:
  fs::path file_;
  std::ifstream in_;
  std::string line_;
  std::int64_t number_ = 0;
};

/// The header of a file of ours: key and parts. A file without one is another program's.
struct Header {
  bool ours = false;
  std::uint64_t key = 0;
  std::uint32_t parts = 0;
};

constexpr std::string_view kKey = "% network ";
constexpr std::string_view kParts = "% parts ";

Header read_header(Lines& lines) {
  Header header;
  if (lines.line() != kMagic) return header;
  header.ours = true;
  if (!lines.next() || !lines.line().starts_with(kKey)) lines.fail("expected '% network KEY'");
  header.key = lines.number<std::uint64_t>("hexadecimal key", ~std::uint64_t{0}, kKey.size(), 16);
  if (!lines.next() || !lines.line().starts_with(kParts)) lines.fail("expected '% parts K'");
  header.parts = lines.number<std::uint32_t>("number of parts", kMaxParts, kParts.size());
  if (header.parts == 0) lines.fail("no parts; a partition has 1 at least");
  lines.next();
  return header;
}

}  // namespace

void write_partition(const fs::path& file, const Partition& partition) {
  std::string text = fmt::format("{}\n{}{:016x}\n{}{}\n", kMagic, kKey, partition.model_key, kParts,
                                 partition.parts());
  for (const LayerPartition& layer : partition.layers) {
    for (const std::uint32_t owner : owners_of(layer)) {
      fmt::format_to(std::back_inserter(text), "{}\n", owner);
    }
  }
  write_file_atomically(file, text);
}

Partition read_partition(const fs::path& file, const Model& model, std::optional<int> parts) {
  const std::vector<CsrView> weights = partitioned_weights(model);
  std::int64_t rows = 0;
  for (const CsrView& matrix : weights) rows += matrix.rows;
  Lines lines(file);
  bool more = lines.next();
  const Header header = more ? read_header(lines) : Header{};
  const std::uint64_t key = model_key(model);
  if (header.ours && header.key != key) {
    throw InputError(file, fmt::format("is for the network with key {:016x}, but this one has key "
                                       "{:016x}; partition this network",
                                       header.key, key));
  }
  const std::uint32_t most = header.ours ? header.parts - 1 : kMaxParts - 1;
  std::uint32_t count = header.ours ? header.parts : 1;
  std::vector<std::uint32_t> owners;
  for (more = more && !(header.ours && lines.line().empty()); more; more = lines.next()) {
    if (std::ssize(owners) == rows) {
      lines.fail(fmt::format("more owners than the {} rows of the network", rows));
    }
    owners.push_back(lines.number<std::uint32_t>("part", most));
    count = std::max(count, owners.back() + 1);
  }
  if (std::ssize(owners) != rows) {
    lines.fail(
        fmt::format("ends after {} owners, but the network has {} rows", owners.size(), rows));
  }
  if (parts && header.ours && static_cast<int>(count) != *parts) {
    throw InputError(file, fmt::format("has {} parts, but there are {} ranks", count, *parts));
  }
  if (parts && static_cast<int>(count) > *parts) {
    throw InputError(file, fmt::format("names part {} of {}", count - 1, *parts));
  }
  if (parts) count = static_cast<std::uint32_t>(*parts);
  Partition partition{key, {}};
  std::span<const std::uint32_t> rest = owners;
  for (const CsrView& matrix : weights) {
    const auto some = static_cast<std::size_t>(matrix.rows);
    partition.layers.push_back(partition_by_owners(rest.first(some), static_cast<int>(count)));
    rest = rest.subspan(some);
  }
  return partition;
}

void write_hypergraph(const fs::path& file, const Model& model) {
  const std::vector<CsrView> weights = partitioned_weights(model);
  const auto graph = hypergraph::hypergraph_of(weights, {0, std::ssize(weights)}, {}, 1);
  // hMETIS wants two vertices on a net, and nets that nobody reads have one.
  std::string text;
  std::int64_t nets = 0;
  for (std::int64_t net = 0; net < graph.nets(); ++net) {
    const auto pins = graph.pins_of(net);
    if (pins.size() < 2) continue;
    ++nets;
    for (const std::uint32_t v : pins) fmt::format_to(std::back_inserter(text), "{} ", v + 1);
    text.back() = '\n';
  }
  std::string head = fmt::format("{} {} 10\n", nets, graph.vertices());
  for (const hypergraph::Weight& weight : graph.weights) {
    fmt::format_to(std::back_inserter(text), "{}\n", weight.nonzeros);
  }
  write_file_atomically(file, head + text);
}

}  // namespace spdnn
