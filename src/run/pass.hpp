// One rank's part in a forward pass: the images it begins, those it takes over, and its help.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "spdnn/run.hpp"

namespace spdnn {

class ImageSource;
class Roster;
class SharedForms;

/// What all ranks of a run share.
struct PassContext {
  const Model* model = nullptr;
  const Csr* images = nullptr;  ///< [images × inputs], the ones really run
  const Plan* plan = nullptr;
  std::int64_t dead_from = 0;   ///< `dead_stays_dead_from`
  std::int64_t keep_first = 0;  ///< outputs are kept of the first so many of a rank's survivors
  const std::vector<std::int64_t>* keep_ids = nullptr;  ///< and of these images, ascending
  bool merge_images = false;    ///< images that have become equal go on as one
  std::int64_t alike_from = 0;  ///< the layers from here on are all alike; see `alike_from`
  bool replay = true;           ///< devices may keep segments they have run before
  Progress* progress = nullptr;
  SharedForms* forms = nullptr;
  const std::vector<LayerPartition>* rows = nullptr;  ///< their owners, where ranks own rows
  // Filled in by `run_all_ranks`:
  ImageSource* queue = nullptr;
  Roster* roster = nullptr;
};

struct PassResult {
  std::vector<std::int64_t> ids;  ///< images with a nonzero output that ended on this rank
  std::map<std::int64_t, std::vector<float>> outputs;  ///< of those among them that are kept
  std::vector<std::int64_t> merged;  ///< pairs: an image, and an equal one that went on for it
  std::vector<std::int64_t> images_per_layer;  ///< images each layer was computed for
  std::int64_t begun = 0;                      ///< images it began
  std::int64_t taken_over = 0;                 ///< images it got from others' shares, or under way
  std::int64_t helped_segments = 0;            ///< segments whose rows it shared under another rank
  std::int64_t equal = 0;              ///< images that went on as another one, having become equal
  std::int64_t fixed = 0;              ///< images that the layers left out would not have changed
  std::int64_t replayed_segments = 0;  ///< queued as a whole, having been met before
  /// Where ranks own rows: bytes sent before each layer, and at the end for the images whose
  /// outputs were gathered, which are counted on rank 0.
  std::vector<std::int64_t> sent;
  std::int64_t gathered = 0;
  double busy_s = 0.0;
};

/// Drives one device. Used from the thread that opened the device.
class Pass {
 public:
  Pass(const PassContext& context, Communicator& comm, Device& device, const DeviceSpec& spec);
  ~Pass();
  /// Allocates memory and brings resident weights and biases to the device.
  void prepare();
  /// Works until no rank has images left, as far as the plan lets it.
  [[nodiscard]] PassResult run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spdnn
