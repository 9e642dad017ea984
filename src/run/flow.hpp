// Images under way on one rank: brought to the device, taken through layers, packed and collected.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "pass.hpp"
#include "rank_memory.hpp"
#include "replays.hpp"
#include "roster.hpp"
#include "weights.hpp"

namespace spdnn {

class Pace;

/// The images one rank computes together, and the memory they live in. The host never waits for a
/// layer: how many images live is known on the device, and the host's bound follows as counts
/// arrive. On a CPU it is always known.
class Flow {
 public:
  /// `capacity`: most images under way.
  Flow(const PassContext& context, int rank, Device& device, Stream& stream, std::int64_t capacity);

  /// Brings resident weights and biases to the device; layer `first` is prepared first.
  void upload_weights(std::int64_t first) { weights_.upload(first); }

  /// Makes input images the current ones.
  void load(Range images);
  /// Makes the images of a pool before `segment` the current ones.
  void take(std::size_t segment, Slots& pool);
  /// Makes what another rank put into the landing slots the current images.
  void land(const Parcel& parcel);
  /// Where other ranks may put images while there are no current ones.
  [[nodiscard]] Slots& landing() { return memory_.work[0]; }

  /// Takes the current images through one segment, on this rank alone or as the leader of `crew`,
  /// and packs the living. Returns false when they were set aside in a pool.
  bool run_segment(std::size_t segment, Crew* crew, Pace& pace);
  /// Computes this rank's rows of every step of a crew that another rank leads; returns the steps.
  /// `at` is told the segment of each before.
  std::int64_t serve(Crew& crew, std::size_t member, Pace& pace,
                     const std::function<void(std::size_t segment)>& at);

  /// CPU: copies a part of the current images, which go on with `segment`, to `to`.
  void give(Range images, std::size_t segment, Slots& to) const;
  /// CPU: moves a pool before `segment` to `to`.
  [[nodiscard]] Parcel give_pool(std::size_t segment, Slots& pool, Slots& to) const;
  /// Forgets all current images but the first `images`, which go on with `segment`.
  void keep_first(std::int64_t images, std::size_t segment);

  /// Records the current images, alive at the end of the network, and the outputs that are kept.
  void collect();
  /// Counts the images of each layer since the current ones became so.
  void count_images();
  /// Everything recorded so far, and which images were merged into which.
  [[nodiscard]] PassResult take_result();

  /// Current images, at most.
  [[nodiscard]] std::int64_t bound() const { return bound_; }
  [[nodiscard]] const std::map<std::size_t, Slots>& pools() const { return memory_.pools; }
  /// The deepest pool that holds `least` images, or with `any`, the shallowest that is not empty.
  [[nodiscard]] std::pair<std::size_t, Slots*> next_pool(std::int64_t least, bool any);

 private:
  template <class T>
  [[nodiscard]] Panels<T> panels_of(const Current& now, T* at, std::int64_t features) const {
    return {at, features, now.bound, width_, now.live};
  }
  template <class T>
  [[nodiscard]] Panels<T> panels(T* at, std::int64_t features, std::int64_t images) const {
    return {at, features, images, width_, live_};
  }
  [[nodiscard]] std::int64_t layers() const { return std::ssize(context_.model->layers); }
  [[nodiscard]] Slots& other() { return other_than({data_, ids_, bound_, live_}); }
  [[nodiscard]] Slots& other_than(const Current& now);
  [[nodiscard]] std::int32_t* other_ids(const std::int32_t* ids);
  [[nodiscard]] bool runs_batches() const;
  [[nodiscard]] Slots* pool_for(std::size_t segment, std::int64_t survivors);
  [[nodiscard]] bool keeps(std::int64_t id) const;
  void become(float* data, std::int32_t* ids, std::int64_t images, std::size_t segment);
  void run_layer(std::int64_t layer, const float* from, float* to, std::int64_t images,
                 std::uint8_t* alive, RowShare rows);
  [[nodiscard]] CrewRoom room() {
    return {stream_,
            width_,
            {memory_.work[0].activations.as<float>(), memory_.work[1].activations.as<float>()}};
  }
  void run_together(Crew& crew, std::size_t member, Pace& pace);
  bool pack(std::size_t segment, std::int64_t layer);
  [[nodiscard]] bool find_equal(std::size_t segment, std::vector<std::uint8_t>& keep);
  [[nodiscard]] bool find_fixed(std::int64_t layer, std::vector<std::uint8_t>& keep);
  void settle(std::size_t segment, std::int64_t layer);
  [[nodiscard]] bool worth_looking(const Segment& segment) const;
  void drop(const std::vector<std::uint8_t>& keep, std::int64_t layer);
  void collect_slots(const std::vector<std::int64_t>& slots, std::int64_t features);
  void copy_images(const float* from, const std::int32_t* ids, Range images, std::size_t segment,
                   Slots& to) const;
  void lower_bound_to(std::int64_t count, std::int64_t layer);
  void refresh_bound(std::int64_t layer);
  void find_wanted();
  void take_settled();

  // On a device that works behind its host:
  [[nodiscard]] bool runs_ahead() const;
  [[nodiscard]] std::int64_t queued_bound() const;
  void run_ahead(std::size_t index);
  [[nodiscard]] Current queue_segment(std::size_t index, const Current& before);
  void queue_layers(const Segment& segment, Current& now, std::uint8_t* alive,
                    std::uint8_t* unchanged);
  [[nodiscard]] bool settles(std::int64_t layer) const;
  [[nodiscard]] bool looks_for_fixed(std::int64_t layer) const;
  void queue_settling(std::size_t index, const Current& now, const std::uint8_t* unchanged);
  [[nodiscard]] Current queue_packing(std::size_t index, const Current& now);

  const PassContext& context_;
  int rank_;
  Device& device_;
  Stream& stream_;
  std::int64_t width_, features_, capacity_;
  DeviceWeights weights_;
  RankMemory memory_;
  PreparedWeights input_;  ///< input images on the device
  Replays replays_;
  bool replays_segments_;
  std::vector<std::int64_t> wanted_;  ///< ascending: images whose outputs are to be kept, and those
                                      ///< that stand for them

  float* data_ = nullptr;             ///< activations of the current images
  const float* before_ = nullptr;     ///< what the last layer read
  std::int64_t arrangement_ = 0;      ///< counts the times that they were put in other places
  std::int32_t* ids_ = nullptr;       ///< which images they are
  std::int64_t bound_ = 0;            ///< how many there are at most
  std::int32_t* live_ = nullptr;      ///< how many there are, on the device; null: exactly `bound_`
  std::int64_t images_ = 0;           ///< how many there were when they became current
  std::size_t first_ = 0, next_ = 0;  ///< segments run since
  std::vector<std::unique_ptr<Event>> arrivals_;  ///< by segment: its count is in `host_live`
  PassResult result_;
};

}  // namespace spdnn
