// Who computes what: a pure function from measured speeds to shares of images and rows.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "spdnn/comm.hpp"
#include "spdnn/compile.hpp"

namespace spdnn {

/// How ranks share the work (Hasanzadeh-Mofrad et al., HPEC 2020; `grid` is data × model).
enum class Strategy : std::uint8_t {
  automatic,
  data,
  model,
  data_then_model,
  task_manager,
  task_stealing,
  grid
};
[[nodiscard]] std::string_view to_string(Strategy strategy);

/// How shares are sized.
enum class SplitKind : std::uint8_t { profiled, even, ratios };
struct Split {
  SplitKind kind = SplitKind::profiled;
  std::vector<double> ratios;  ///< one for each rank, for `ratios`
};

/// What ranks do together at the end of a segment.
enum class Exchange : std::uint8_t { none, all_gather, halo, reduce_scatter, all_reduce };

/// Who may begin an image.
enum class Sharing : std::uint8_t {
  own,      ///< the rank whose share it is in
  common,   ///< any rank: all shares are one pile
  stealing  ///< the rank whose share it is in, or one whose own share is used up
};

/// What ranks without images do for those that have some, at the ends of segments.
enum class Helping : std::uint8_t {
  none,
  rows,  ///< rank 0 has all the images, and every layer is divided by rows from the start
  images_then_rows  ///< they take over images under way, and rows where that was measured to pay
};

/// A short run of layers after which ranks may exchange, dead images are packed away and progress
/// is told.
struct Segment {
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::vector<Range> outputs;  ///< each rank's output rows; empty: every rank has all of them
  std::vector<Range> inputs;   ///< each rank's input columns; empty: every rank has all of them
  Exchange exchange = Exchange::none;
  /// `kernels[rank][layer - first]`: index into the shape's kernel table, by name.
  std::vector<std::vector<std::string>> kernels;
  /// `chains[rank]`: the chain kernel that computes all layers as one, by name; empty: there is
  /// none, and `kernels` run one after another.
  std::vector<std::string> chains;
};

/// The layers of the segments that a network of so many layers is divided into.
[[nodiscard]] std::vector<Range> segment_layers(std::int64_t layers);

/// Ranks in groups that share the images, each group its rows.
struct GridShares {
  std::vector<std::int64_t> places;  ///< by rank: group · rows + number in it; −1: left out
  std::vector<double> images;        ///< by group, relative
  std::vector<double> rows;          ///< by number in a group, relative
};
/// Groups of `rows` ranks, by relative shares of the ranks; 0 leaves one out. Of unlike ranks those
/// next to each other in size have the same number in their groups, and so the same rows. A group
/// has images, and a number rows, as its ranks have shares together, which gives each rank its own
/// share where groups are alike but for their size. Throws `InputError` where the ranks with a
/// share are no whole number of groups.
[[nodiscard]] GridShares share_grid(const std::vector<double>& shares, std::int64_t rows);

/// What it takes ranks of several processes to tell one another the rows that each has computed of
/// a layer.
struct MessageCost {
  double latency_s = 0.0;         ///< a layer of next to no rows
  double seconds_per_row = 0.0;   ///< of all rows of the layer
  double seconds_per_byte = 0.0;  ///< that a rank sends or receives
};

struct Plan {
  Strategy strategy = Strategy::data;
  Sharing sharing = Sharing::own;
  Helping helping = Helping::none;
  bool own_rows = false;  ///< as `PlanRequest`; the ranks of a group take the same batches
  GridShares grid;        ///< where ranks own rows: who of them are a group; under `model` all
  bool rebalance_rows = false;  ///< rows shared by ranks follow the speeds they turn out to have
  /// Seconds of work left that are worth a helper: several times what it takes to wake one and to
  /// copy images to it.
  double worth_help_s = 300e-6;
  /// A rank that has few images left keeps helpers that compute rows of them only while that is so
  /// many times faster than it is alone: on many a machine a line that another core has read costs
  /// more to write than its value took to compute.
  double worth_rows = 1.1;
  /// Where ranks that share rows do so by messages; nothing: they share memory.
  std::optional<MessageCost> messages;
  std::vector<double> speeds;       ///< of the ranks, relative, as the split asks
  std::vector<Range> images;        ///< each rank's share at the start
  std::int64_t grain = 1;           ///< images that are taken from another rank's share together
  std::vector<std::int64_t> batch;  ///< images each rank takes through a segment together
  /// Ranks that set the survivors of several batches aside until they fill a batch of their own.
  std::vector<bool> pools;
  std::vector<bool> stream_weights;  ///< ranks that hold a window of layers instead of all of them
  std::vector<Segment> segments;
  std::vector<std::string> notes;  ///< why, in sentences, for the report
};

/// A layer as the planner sees it.
struct LayerStats {
  SpmmShape shape;  ///< batch and panel_width unset
  std::int64_t weight_bytes = 0;
};

/// A model and its input as the planner sees them.
struct ModelStats {
  std::vector<LayerStats> layers;
  std::int64_t images = 0;
  std::int64_t max_features = 0;  ///< widest of all inputs and outputs
  double input_bytes_per_image = 0.0;
};
/// What kernels must know of a layer; batch and panel_width are unset.
[[nodiscard]] SpmmShape layer_shape(const Layer& layer);
[[nodiscard]] ModelStats stats_of(const Model& model, const Csr& images);

/// The measured time of one kernel on one distinct layer shape.
struct KernelTime {
  std::string kernel;
  std::string declined;            ///< reason; then seconds_per_image is 0
  double seconds_per_image = 0.0;  ///< at `batch` images; infinite where it was not timed
  std::int64_t batch = 0;
};

/// One device's measurements: `times[shape]` lists its kernels in table order.
struct DeviceProfile {
  DeviceInfo device;
  double slowdown = 1.0;          ///< declared, already contained in the times
  std::int64_t memory_limit = 0;  ///< bytes this rank may use
  std::vector<std::vector<KernelTime>> times;
  /// `chain_times[run]` lists the chain kernels, but for the one that runs layer by layer.
  std::vector<std::vector<KernelTime>> chain_times;
  /// By shape: seconds an image takes at least. Its inputs and outputs once at the rate of a copy
  /// within the device, or its edges at `fma_per_s`, whichever takes longer. Not slowed down; empty
  /// where the request does not ask for them.
  std::vector<double> floors;
};

/// Measurements of every rank's device on a model's distinct shapes.
struct Profile {
  std::vector<SpmmShape> shapes;  ///< distinct; batch unset
  std::vector<std::int64_t> shape_of_layer;
  /// The distinct runs of shapes that segments of two layers and more have; empty where chains were
  /// not asked for.
  std::vector<std::vector<std::int64_t>> runs;
  std::vector<DeviceProfile> ranks;
};

struct PlanRequest {
  Strategy strategy = Strategy::automatic;
  Split split;
  std::string kernel = "auto";
  std::optional<std::int64_t> batch;  ///< nothing: chosen
  /// Under `model`, each rank owns some rows to the end, and is sent what they read, as always
  /// under `grid`; without it ranks share memory, and rows follow the speeds they turn out to have.
  bool own_rows = false;
  std::int64_t model_ranks = 2;  ///< under `grid`, ranks of a group
  bool chains = true;            ///< runs of layers may be computed as one
};

/// Seconds one image takes through all layers on a rank with its fastest kernels, none of it dead.
[[nodiscard]] double modelled_seconds_per_image(const Profile& profile, std::size_t rank);

/// Splits `count` items in proportion to `weights` (non-negative, not all 0) by largest remainder.
/// Pieces are contiguous, in order, multiples of `grain` but for the last non-empty one.
[[nodiscard]] std::vector<Range> split_in_proportion(std::int64_t count,
                                                     const std::vector<double>& weights,
                                                     std::int64_t grain = 1);

/// The plan for a request. Pure: equal arguments give equal plans, and no device is touched. Throws
/// `InputError` where no kernel takes a layer, ratios do not fit the ranks, a strategy is not
/// available, or one image does not fit a device's memory.
[[nodiscard]] Plan make_plan(const ModelStats& stats, const Profile& profile,
                             const PlanRequest& request);

/// Seconds that were measured before, by what was measured; kept in a file between runs. Entries
/// older than a month are forgotten: drivers, firmware and neighbours change.
class Measurements {
 public:
  /// Reads `file`; one that is empty or can't be read remembers nothing. `refresh` forgets it all.
  Measurements(std::string file, bool refresh);
  /// What is known of `key`; 0 where nothing is. What is set is remembered once stored.
  [[nodiscard]] double& operator[](const std::string& key);
  /// Writes what is new. A folder that can't be written only costs time next time.
  void store();

 private:
  struct Entry {
    double seconds = 0.0;
    std::int64_t day = 0;  ///< since 1970
  };
  std::string file_;
  std::map<std::string, Entry> entries_;
  std::size_t stored_ = 0;
};

/// Measures `specs`' devices on the model's distinct shapes. Equal devices are measured once.
/// Results are kept in `cache_file` (when not empty) keyed by device, shape and version.
struct ProfileRequest {
  std::vector<DeviceSpec> specs;
  std::optional<std::int64_t> memory_limit;  ///< bytes for each rank; nothing: found out
  std::string cache_file;
  bool refresh = false;
  Precision precision = Precision::fp32;  ///< the least that kernels may multiply in
  bool floors = false;                    ///< measure what the report sets times beside, too
  bool chains = true;                     ///< and runs of layers as one
};
[[nodiscard]] Profile measure_profile(const Model& model, const ProfileRequest& request);

/// What images cost on `specs`' devices together, each with its fastest kernels: measured on a few
/// layers of random columns, and kept like a profile.
[[nodiscard]] CostModel measure_cost(const ProfileRequest& request);

}  // namespace spdnn
