// One rank's partition on all ranks: a search is done once, and a file is read once.
#include <algorithm>
#include <span>

#include "spdnn/halo.hpp"

namespace spdnn {

Partition share_partition(Communicator& comm, const std::function<Partition()>& make) {
  Partition partition;
  // The key's halves, the parts, and the rows of each layer; then every row's owner.
  std::vector<std::uint32_t> head, owners;
  if (comm.rank() == 0) {
    partition = make();
    head = {static_cast<std::uint32_t>(partition.model_key),
            static_cast<std::uint32_t>(partition.model_key >> 32U),
            static_cast<std::uint32_t>(partition.parts())};
    for (const LayerPartition& layer : partition.layers) {
      const std::vector<std::uint32_t> some = owners_of(layer);
      head.push_back(static_cast<std::uint32_t>(some.size()));
      owners.insert(owners.end(), some.begin(), some.end());
    }
  }
  const auto send = [&comm](std::vector<std::uint32_t>& list) {
    std::int64_t count = std::ssize(list);
    comm.all_reduce(&count, &count, 1, DType::i64, Reduction::max, nullptr);
    std::vector<std::int64_t> counts(static_cast<std::size_t>(comm.size()));
    counts[0] = count;
    std::vector<std::uint32_t> got(static_cast<std::size_t>(count));
    comm.all_gather(list.data(), got.data(), counts, DType::u32, nullptr);
    list = std::move(got);
  };
  send(head);
  send(owners);
  if (comm.rank() == 0) return partition;
  partition.model_key = head[0] | std::uint64_t{head[1]} << 32U;
  std::span<const std::uint32_t> rest = owners;
  for (std::size_t l = 3; l < head.size(); ++l) {
    partition.layers.push_back(partition_by_owners(rest.first(head[l]), static_cast<int>(head[2])));
    rest = rest.subspan(head[l]);
  }
  return partition;
}

}  // namespace spdnn
