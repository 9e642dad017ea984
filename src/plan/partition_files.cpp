// Partitions as text: the owner of each row, a line each, as hMETIS and its like write them.
#include <fmt/format.h>

#include <iterator>

#include "number_lines.hpp"
#include "spdnn/io.hpp"
#include "spdnn/partition.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "% spdnn-gpu partition 1";

/// The header of a file of ours: key and parts. A file without one is another program's.
struct Header {
  bool ours = false;
  std::uint64_t key = 0;
  std::uint32_t parts = 0;
};

constexpr std::string_view kKey = "% network ";
constexpr std::string_view kParts = "% parts ";

Header read_header(NumberLines& lines) {
  Header header;
  if (lines.line() != kMagic) return header;
  header.ours = true;
  const auto rest = [&](std::string_view prefix) {
    return std::string_view(lines.line()).substr(prefix.size());
  };
  if (!lines.next() || !lines.line().starts_with(kKey)) lines.fail("expected '% network KEY'");
  header.key = lines.number<std::uint64_t>(rest(kKey), "hexadecimal key", 0, ~std::uint64_t{0}, 16);
  if (!lines.next() || !lines.line().starts_with(kParts)) lines.fail("expected '% parts K'");
  header.parts = lines.number<std::uint32_t>(rest(kParts), "number of parts", 1, kMaxParts);
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
  NumberLines lines(file);
  lines.next();
  const Header header = read_header(lines);
  const std::uint64_t key = model_key(model);
  if (header.ours && header.key != key) {
    throw InputError(file, fmt::format("is for the network with key {:016x}, but this one has key "
                                       "{:016x}; partition this network",
                                       header.key, key));
  }
  const std::uint32_t most = header.ours ? header.parts - 1 : kMaxParts - 1;
  const std::vector<std::uint32_t> owners = read_parts(lines, rows, most, "rows of the network");
  std::uint32_t count = header.ours ? header.parts : 1;
  for (const std::uint32_t owner : owners) count = std::max(count, owner + 1);
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

}  // namespace spdnn
