// Connections of a layer changed in the device's memory: the smallest dropped, as many grown, and
// the pattern, the values and what else belongs to the connections put in their new order.
//
// Selecting (`select.cuh`) finds the k-th largest of n keys by its digits, 8 bits at a time from
// the highest: four passes in which blocks count digits in shared memory, each read of 4 bytes.
// Two more passes, a warp a chunk of 1024 keys, count those above the bar and take them in order,
// by ballots. Nothing of the size of the keys is written but what is asked for, so that dense
// gradients need no memory beside the rows that are weighed at a time. Their best so far stand
// before the next rows' keys, which are further on.
//
// A change of n connections, of which k go, moves, by one thread for each, beside binary searches
// of rows and grown places (in L2): to drop, 4 to make a key, 24 to select and 4 of rank; to merge,
// 8 read and 8 written; for each array 8 read and 8 written, twice; by columns, CUB's radix sort,
// 16 bytes for each 8 bits of a column's number, and 16. Growing at random sorts about k draws by
// place, columns first, to find those drawn twice; each draw is a function of its number, made anew
// wherever its place is wanted. Growing by gradient reads the gradient seven times and writes it
// twice; what makes it costs more.
//
// Bound: device memory, or with few connections latency: about 40 launches a layer.
// Order: there are no sums but of counts; equal arguments give equal bits, the host's.
#include <bit>

#include "cuda/launch.hpp"
#include "cuda/rewire.cuh"
#include "cuda/sort.hpp"
#include "rewire_kernels.hpp"

namespace spdnn {
namespace {

using cuda::NativeStream;
using cuda::SelectTraits;

std::int64_t chunks_of(std::int64_t keys) { return cuda::ceil_div(keys, SelectTraits::chunk); }

/// Hands out a workspace, or counts its bytes where it is null.
class Carver {
 public:
  explicit Carver(void* memory) : begin_(static_cast<std::byte*>(memory)) {}
  template <class T>
  T* take(std::int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }
  void* take_bytes(std::size_t bytes) {
    constexpr std::size_t kAlignment = 256;
    void* const taken = begin_ == nullptr ? nullptr : begin_ + used_;
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return taken;
  }
  [[nodiscard]] std::size_t used() const { return used_; }

 private:
  std::byte* begin_;
  std::size_t used_ = 0;
};

/// What a change keeps from its first call to its last, and what its steps use in turn.
struct Room {
  explicit Room(const RewireArgs& args) : carver(args.workspace) {
    const std::int64_t n = args.pattern.nnz;
    selection = carver.take<cuda::Selection>(1);
    counts = carver.take<cuda::ChunkCount>(
        chunks_of(std::max({n, args.draws, args.count + args.places})));
    kept_before = carver.take<std::uint32_t>(n + 1);
    grown = carver.take<std::int64_t>(args.count);
  }
  Carver carver;
  cuda::Selection* selection;
  cuda::ChunkCount* counts;
  std::uint32_t* kept_before;
  std::int64_t* grown;
};

/// What `weigh` keeps beside the grown places: their keys, and the next ones of both.
struct WeighRoom {
  WeighRoom(Room& room, const RewireArgs& args)
      : keys(room.carver.take<std::uint32_t>(args.count)),
        next_keys(room.carver.take<std::uint32_t>(args.count)),
        next_places(room.carver.take<std::int64_t>(args.count)) {}
  std::uint32_t *keys, *next_keys;
  std::int64_t* next_places;
};

struct DrawRoom {
  DrawRoom(Room& room, const RewireArgs& args)
      : keys(room.carver.take<std::uint32_t>(args.draws)),
        sorted_keys(room.carver.take<std::uint32_t>(args.draws)),
        numbers(room.carver.take<std::uint32_t>(args.draws + 1)),
        sorted_numbers(room.carver.take<std::uint32_t>(args.draws)),
        places(room.carver.take<std::int64_t>(args.draws)),
        scratch(room.carver.take_bytes(args.draws > 0 ? cuda::sort_bytes(args.draws) : 0)) {}
  std::uint32_t *keys, *sorted_keys, *numbers, *sorted_numbers;
  std::int64_t* places;
  void* scratch;
};

struct ChangeRoom {
  ChangeRoom(Room& room, const RewireArgs& args)
      : row_offsets(room.carver.take<std::int64_t>(args.pattern.rows + 1)),
        entries(room.carver.take<std::uint32_t>(args.pattern.nnz)),
        source(room.carver.take<std::uint32_t>(args.pattern.nnz)),
        scratch(room.carver.take_bytes(cuda::sort_bytes(args.pattern.nnz))) {}
  std::int64_t* row_offsets;
  std::uint32_t *entries, *source;  ///< the first for one new array after the other
  void* scratch;
};

template <class... Parameters, class... Arguments>
void launch_items(void (*kernel)(Parameters...), std::int64_t items, NativeStream stream,
                  const Arguments&... arguments) {
  cuda::launch(kernel, cuda::grid_for(cuda::ceil_div(items, SelectTraits::block)),
               SelectTraits::block, 0, stream, arguments...);
}

/// Counts the keys by how they compare with the bar, and takes those that are selected.
void take(const Room& room, const cuda::Keys& keys, const cuda::Taken& to, NativeStream stream) {
  const std::int64_t chunks = chunks_of(keys.count());
  launch_items(&cuda::count_chunks_kernel, chunks * cuda::kWarp, stream, keys, room.selection,
               room.counts, chunks);
  launch_items(&cuda::sum_chunks_kernel, 1, stream, room.selection, room.counts, chunks);
  launch_items(&cuda::take_kernel, chunks * cuda::kWarp, stream, keys, room.selection, room.counts,
               chunks, to);
  cuda::check_launch("rewire (take)");
}

/// The `wanted` largest of the keys, of equal ones the first.
void take_largest(const Room& room, const cuda::Keys& keys, std::int64_t wanted,
                  const cuda::Taken& to, NativeStream stream) {
  launch_items(&cuda::begin_selection_kernel, 1, stream, room.selection, std::uint32_t{0},
               static_cast<unsigned>(wanted));
  for (int shift = 32 - SelectTraits::digit_bits; shift >= 0; shift -= SelectTraits::digit_bits) {
    constexpr std::int64_t kEach = 16;  // keys of a thread, so that bins are worth their counting
    launch_items(&cuda::count_digits_kernel, cuda::ceil_div(keys.count(), kEach), stream, keys,
                 room.selection, shift);
    launch_items(&cuda::choose_digit_kernel, 1, stream, room.selection, shift);
  }
  cuda::check_launch("rewire (select)");
  take(room, keys, to, stream);
}

/// The first `wanted` of the keys that are 1; the others are 0.
void take_first(const Room& room, const cuda::Keys& keys, std::int64_t wanted,
                const cuda::Taken& to, NativeStream stream) {
  launch_items(&cuda::begin_selection_kernel, 1, stream, room.selection, std::uint32_t{1},
               static_cast<unsigned>(wanted));
  take(room, keys, to, stream);
}

std::size_t workspace_bytes(const RewireArgs& args) {
  RewireArgs counted = args;
  counted.workspace = nullptr;
  const Room room(counted);
  std::size_t most = 0;
  const auto add = [&](const auto& make) {
    Room own = room;
    make(own);
    most = std::max(most, own.carver.used());
  };
  add([&](Room& own) { own.carver.take<std::uint32_t>(args.pattern.nnz); });
  if (args.places > 0) add([&](Room& own) { const WeighRoom part(own, args); });
  if (args.draws > 0) add([&](Room& own) { const DrawRoom part(own, args); });
  add([&](Room& own) { const ChangeRoom part(own, args); });
  return most;
}

void drop(const RewireArgs& args, const float* values, Stream& stream) {
  const NativeStream native = cuda::stream_of(stream);
  Room room(args);
  const std::int64_t count = args.pattern.nnz;
  auto* const keys = room.carver.take<std::uint32_t>(count);
  launch_items(&cuda::small_values_kernel, count, native, values, count, keys);
  cuda::Taken to;
  to.left_before = room.kept_before;
  take_largest(room, {nullptr, 0, keys, count}, args.count, to, native);
}

void weigh(const RewireArgs& args, Range rows, float* gradient, Stream& stream) {
  const NativeStream native = cuda::stream_of(stream);
  Room room(args);
  const WeighRoom own(room, args);
  const std::int64_t cols = args.pattern.cols;
  const std::int64_t places = rows.size() * cols;
  if (places == 0) return;
  auto* const keys = reinterpret_cast<std::uint32_t*>(gradient);
  launch_items(&cuda::gradient_keys_kernel, places, native, keys, places);
  launch_items(&cuda::clear_kept_kernel, rows.size() * cuda::kWarp, native, args.pattern,
               room.kept_before, rows, keys);
  cuda::check_launch("rewire (gradient)");
  const std::int64_t before = std::min(args.count, rows.begin * cols);
  const std::int64_t best = std::min(args.count, rows.end * cols);
  cuda::Taken to;
  to.keys = own.next_keys;
  to.places = own.next_places;
  to.first_places = room.grown;
  to.place = rows.begin * cols;
  take_largest(room, {own.keys, before, keys, places}, best, to, native);
  stream.copy(own.keys, own.next_keys, static_cast<std::size_t>(best) * sizeof(std::uint32_t));
  stream.copy(room.grown, own.next_places, static_cast<std::size_t>(best) * sizeof(std::int64_t));
}

int bits_of(std::int64_t largest) {
  return std::max(1, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(largest))));
}

void draw(const RewireArgs& args, const Random& random, std::int64_t* found, Stream& stream) {
  const NativeStream native = cuda::stream_of(stream);
  Room room(args);
  const DrawRoom own(room, args);
  const std::int64_t count = args.draws;
  const cuda::Draws draws{args.pattern, random, count};
  launch_items(&cuda::drawn_columns_kernel, count, native, draws, own.keys, own.numbers);
  const auto sort = [&](std::int64_t largest, std::uint32_t* numbers, std::uint32_t* sorted) {
    cuda::sort_pairs({own.keys, numbers, own.sorted_keys, sorted, count, bits_of(largest)},
                     own.scratch, native);
  };
  sort(args.pattern.cols - 1, own.numbers, own.sorted_numbers);
  launch_items(&cuda::drawn_rows_kernel, count, native, draws, own.sorted_numbers, own.keys);
  sort(args.pattern.rows, own.sorted_numbers, own.numbers);
  std::uint32_t* const numbers = own.sorted_numbers;
  stream.copy(numbers, own.numbers, static_cast<std::size_t>(count) * sizeof(std::uint32_t));

  // By draws: which are the first of their places. Then by places, which of these are early enough.
  std::uint32_t* const taken_before = own.numbers;
  launch_items(&cuda::first_draws_kernel, count, native, draws, own.sorted_keys, numbers, own.keys);
  cuda::Taken drawn;
  drawn.taken_before = taken_before;
  take_first(room, {own.keys, count, nullptr, 0}, args.count, drawn, native);
  launch_items(&cuda::report_draws_kernel, 1, native, room.selection, args.count, found);
  launch_items(&cuda::drawn_places_kernel, count, native, draws, numbers, taken_before, own.keys,
               own.places);
  cuda::Taken places;
  places.places = room.grown;
  places.first_places = own.places;
  take_first(room, {own.keys, count, nullptr, 0}, args.count, places, native);
}

/// The view by columns, anew from that by rows.
void build_columns(const PatternArrays& pattern, const ChangeRoom& room, NativeStream stream) {
  const std::int64_t count = pattern.nnz;
  std::uint32_t* const columns = room.source;
  launch_items(&cuda::number_kernel, count, stream, room.entries, count);
  cuda::sort_pairs({pattern.col_indices, room.entries, columns, pattern.entries, count,
                    bits_of(pattern.cols - 1)},
                   room.scratch, stream);
  launch_items(&cuda::columns_kernel, count + pattern.cols + 1, stream, pattern, columns);
  cuda::check_launch("rewire (columns)");
}

void change(const RewireArgs& args, std::span<float* const> arrays, Stream& stream) {
  const NativeStream native = cuda::stream_of(stream);
  Room room(args);
  const ChangeRoom own(room, args);
  const PatternArrays& pattern = args.pattern;
  const std::int64_t count = pattern.nnz;
  const cuda::Change merged{pattern,         room.kept_before, room.grown, args.count,
                            own.row_offsets, own.entries,      own.source};
  launch_items(&cuda::merge_kernel, count + args.count + pattern.rows + 1, native, merged);
  cuda::check_launch("rewire (merge)");
  const auto bytes = static_cast<std::size_t>(count) * sizeof(std::uint32_t);
  stream.copy(pattern.col_indices, own.entries, bytes);
  stream.copy(pattern.row_offsets, own.row_offsets,
              static_cast<std::size_t>(pattern.rows + 1) * sizeof(std::int64_t));
  auto* const moved = reinterpret_cast<float*>(own.entries);
  for (float* const array : arrays) {
    launch_items(&cuda::move_entries_kernel, count, native, array, own.source, count, moved);
    cuda::check_launch("rewire (move)");
    stream.copy(array, moved, bytes);
  }
  build_columns(pattern, own, native);
}

}  // namespace

const RewireKernels& rewire_cuda() {
  static const RewireKernels kernels{&workspace_bytes, &drop, &weigh, &draw, &change};
  return kernels;
}

}  // namespace spdnn
