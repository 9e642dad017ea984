// Collectives on a stream: what it was given before is done first, and memory that only the stream
// can reach is brought to the other ranks and back.
#include <cstring>

#include "comm/backends.hpp"

namespace spdnn::test {
namespace {

/// A stream that does nothing until it is synchronised. As a GPU's (`remote`), it keeps the
/// contents of its memory elsewhere: an address is a key, and reading through it gives junk.
class LateStream final : public Stream {
 public:
  explicit LateStream(bool remote) : remote_(remote) {}
  /// Memory of the device: `bytes` at the key `at`.
  void add_memory(void* at, std::size_t bytes) {
    memory_.push_back({static_cast<std::byte*>(at), std::vector<std::byte>(bytes)});
  }
  /// The real place of what the address stands for.
  [[nodiscard]] std::byte* place(const void* address) {
    for (auto& [key, bytes] : memory_) {
      const auto offset = static_cast<const std::byte*>(address) - key;
      if (offset >= 0 && offset < static_cast<std::ptrdiff_t>(bytes.size())) {
        return bytes.data() + offset;
      }
    }
    return static_cast<std::byte*>(const_cast<void*>(address));
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    work_.push_back([this, to, from, bytes] { std::memcpy(place(to), place(from), bytes); });
  }
  void zero(void* to, std::size_t bytes) override {
    work_.push_back([this, to, bytes] { std::memset(place(to), 0, bytes); });
  }
  std::unique_ptr<Event> record() override { return nullptr; }
  void wait(const Event& /*event*/) override {}
  void synchronize() override {
    for (const auto& piece : work_) piece();
    work_.clear();
  }
  void* native() override { return remote_ ? this : nullptr; }

 private:
  bool remote_;
  std::vector<std::pair<std::byte*, std::vector<std::byte>>> memory_;
  std::vector<std::function<void()>> work_;
};

/// Of backends that stage what a stream has; what others do with one is in tests of theirs.
class CommStream : public CommTest {};
INSTANTIATE_TEST_SUITE_P(Ranks, CommStream,
                         testing::Combine(testing::Values(backends.front()), testing::Values(1, 3)),
                         test_name);

/// All collectives once, with ranks that have a remote stream, a CPU stream or none.
void use_streams(Communicator& comm) {
  constexpr std::int64_t count = 6;
  constexpr std::size_t bytes = count * sizeof(std::int64_t);
  const int kind = comm.rank() % 3;
  LateStream late(kind == 0);
  Stream* stream = kind == 2 ? nullptr : &late;
  const auto ranks = static_cast<std::size_t>(comm.size());
  const auto source = values_of<std::int64_t>(1, comm.rank(), count);
  std::vector<std::int64_t> send(count, -1), receive(count * ranks, -1);
  if (kind == 0) {
    late.add_memory(send.data(), bytes);
    late.add_memory(receive.data(), bytes * ranks);
  }
  const auto received = [&](std::size_t elements) {
    late.synchronize();
    std::vector<std::int64_t> values(elements);
    std::memcpy(values.data(), late.place(receive.data()), elements * sizeof(std::int64_t));
    return values;
  };
  if (stream == nullptr) {
    send = source;
  } else {
    stream->copy(send.data(), source.data(), bytes);  // not done before the collective asks
  }

  const std::vector<std::int64_t> counts(ranks, count);
  comm.all_gather(send.data(), receive.data(), counts, DType::i64, stream);
  EXPECT_EQ(received(receive.size()), gathered<std::int64_t>(1, counts));

  comm.all_reduce(send.data(), receive.data(), count, DType::i64, Reduction::sum, stream);
  std::vector<std::int64_t> sums;
  for (std::int64_t i = 0; i < count; ++i) {
    sums.push_back(reduced_value<std::int64_t>(1, comm.size(), i, Reduction::sum));
  }
  EXPECT_EQ(received(count), sums);

  std::vector<std::int64_t> pieces(ranks, 0);
  pieces[0] = count;
  comm.reduce_scatter(send.data(), receive.data(), pieces, DType::i64, Reduction::max, stream);
  if (comm.rank() == 0) {
    EXPECT_EQ(received(1)[0], reduced_value<std::int64_t>(1, comm.size(), 0, Reduction::max));
  }

  const int next = (comm.rank() + 1) % comm.size();
  const int previous = (comm.rank() + comm.size() - 1) % comm.size();
  comm.exchange(std::vector{Communicator::Message{next, send.data(), bytes}},
                std::vector{Communicator::Message{previous, receive.data(), bytes}}, stream);
  EXPECT_EQ(received(count), values_of<std::int64_t>(1, previous, count));

  const auto pending =
      comm.start_exchange(std::vector{Communicator::Message{previous, send.data(), bytes}},
                          std::vector{Communicator::Message{next, receive.data(), bytes}}, stream);
  pending->finish();
  EXPECT_EQ(received(count), values_of<std::int64_t>(1, next, count));
}

TEST_P(CommStream, CollectivesAreOrderedOnTheStream) { run(use_streams); }

}  // namespace
}  // namespace spdnn::test
