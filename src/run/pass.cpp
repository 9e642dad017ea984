// What a rank does next: begin images, flush pools of survivors, help others or be helped.
#include "pass.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "crew_choice.hpp"
#include "flow.hpp"
#include "image_queue.hpp"
#include "spdnn/pace.hpp"

namespace spdnn {
namespace {

/// Images that a CPU's kernels compute side by side: fewer of them take as long.
constexpr std::int64_t kSideBySide = 16;
/// Times as fast as this one that an idle rank has to be for all images to go there rather than
/// both to share their rows: a crew meets after each layer, and its members are seldom done at
/// once.
constexpr double kFasterThanCrew = 4.0;

}  // namespace

struct Pass::State {
  const PassContext& context;
  Communicator& comm;
  int rank;
  Device& device;
  Pace pace;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<Flow> flow;
  std::int64_t begun = 0, taken_over = 0, helped_segments = 0;  ///< see `PassResult`

  std::shared_ptr<Crew> crew;     ///< that shares the rows of the current images
  bool crew_is_new = false;       ///< it has not been through a segment
  bool crews_pay = true;          ///< as far as was measured
  double alone_rate = 0.0;        ///< edges/s of a few images that this rank computed alone
  std::int64_t image_layers = 0;  ///< done by this rank, for the speed it has

  State(const PassContext& c, Communicator& with, Device& d, const DeviceSpec& spec)
      : context(c), comm(with), rank(with.rank()), device(d), pace(spec), stream(d.make_stream()) {}

  [[nodiscard]] const Plan& plan() const { return *context.plan; }
  [[nodiscard]] bool may_begin_images() const {
    return plan().sharing != Sharing::own || plan().images[rank].size() > 0;
  }
  /// Room of the work buffers and of a pool: what is left of a batch may join a pool that is almost
  /// full.
  [[nodiscard]] std::int64_t capacity() const {
    const std::int64_t batch = plan().batch[rank];
    return plan().pools[rank] ? batch + batch / 2 : batch;
  }
  [[nodiscard]] std::int64_t layers_from(std::size_t segment) const {
    return std::ssize(context.model->layers) - plan().segments[segment].first;
  }

  /// Works until there is nothing left that this rank may do.
  void run_all() {
    if (plan().helping == Helping::rows && rank == 0) {
      form_crew(context.roster->claim_all(rank));
    }
    while (run_own() || run_given()) {
    }
  }

  /// Takes some images to the end or into a pool: those of a full pool, else input images, else
  /// those of any pool. False when there are none.
  bool run_own() {
    if (flow == nullptr) return false;
    const std::int64_t batch = plan().batch[rank];
    auto [segment, pool] = flow->next_pool(batch, false);
    if (pool == nullptr) {
      const Range images = context.queue->take(rank, batch);
      if (images.size() > 0) {
        begin(images);
        return true;
      }
      std::tie(segment, pool) = flow->next_pool(0, true);
    }
    if (pool == nullptr) return false;
    flow->take(segment, *pool);
    run_from(segment);
    return true;
  }

  void begin(Range images) {
    const Range share = plan().images[rank];
    begun += images.size();
    const bool others = images.begin < share.begin || images.end > share.end;
    if (plan().sharing == Sharing::stealing && others) taken_over += images.size();
    flow->load(images);
    run_from(0);
  }

  /// Waits for another rank to give this one something to do, and does it. False when no rank has
  /// work any more, or ranks do not help one another.
  bool run_given() {
    if (plan().helping == Helping::none || flow == nullptr) return false;
    dismiss();
    pace.begin_wait();
    const std::optional<Assignment> given = context.roster->offer(rank, &flow->landing());
    pace.end_wait();
    if (!given) return false;
    if (const auto* parcel = std::get_if<Parcel>(&*given)) {
      taken_over += parcel->images;
      flow->land(*parcel);
      run_from(parcel->segment);
    } else {
      const auto& place = std::get<Membership>(*given);
      helped_segments += flow->serve(*place.crew, place.member, pace, [&](std::size_t segment) {
        comm.show("helping with segment", static_cast<std::int64_t>(segment));
      });
    }
    return true;
  }

  /// Takes the current images from segment `first` on.
  void run_from(std::size_t first) {
    bool here = true;
    for (std::size_t s = first; s < plan().segments.size() && here; ++s) {
      find_help(s);
      comm.show("segment", static_cast<std::int64_t>(s));
      const std::int64_t images = flow->bound();
      const double start = pace.due();
      here = flow->run_segment(s, crew.get(), pace);
      image_layers += images * plan().segments[s].count;
      // Without images a segment takes no time, which tells nothing of a crew.
      if (plan().helping == Helping::images_then_rows && images > 0 && images <= kSideBySide) {
        judge_crew(s, pace.due() - start);
      }
      keep_time();
    }
    if (here) flow->collect();
    flow->count_images();
  }

  /// Holds a slowed rank back as soon as another is idle, or it is ahead of its time by half of
  /// what all images that nobody has begun will take. Until then what it did it would have done
  /// anyway, and a rank that sleeps once and long finds more of its caches as it left them.
  void keep_time() {
    if (plan().sharing == Sharing::own && plan().helping == Helping::none) return;
    const double ahead = pace.due() - now_seconds();
    const double left = context.queue->rest() * (pace.busy() - ahead);
    const bool idle = context.roster != nullptr && context.roster->idle() > 0;
    if (idle || ahead > left / 2.0) pace.hold();
  }

  /// Hands pools and current images, which go on with `segment`, to idle ranks, or forms a crew.
  void find_help(std::size_t segment) {
    if (plan().helping != Helping::images_then_rows || segment == 0 || image_layers == 0) return;
    std::int64_t work = flow->bound() * layers_from(segment);
    for (const auto& [s, pool] : flow->pools()) work += pool.count * layers_from(s);
    const double left = seconds_of(work);
    context.roster->tell_remaining(rank, left);
    const std::int64_t parts = (flow->bound() + kSideBySide - 1) / kSideBySide;
    if (parts > 1) dismiss();
    if (context.roster->idle() == 0 || left < plan().worth_help_s) return;
    give_pools(left);
    if (parts > 1) {
      give_images(segment, parts);
    } else if (crew == nullptr) {
      give_last(segment);
    }
  }

  /// Of images that are computed side by side: hands them to a faster rank, or shares their rows.
  void give_last(std::size_t segment) {
    // Whether a crew pays is known when this rank has been through a segment with so few alone.
    const bool known = alone_rate > 0.0;
    const std::size_t most = crews_pay && known ? most_helpers(segment) : 0;
    const double faster = context.roster->fastest_idle() / plan().speeds[rank];
    if (faster > (crews_pay && (!known || most > 0) ? kFasterThanCrew : plan().worth_rows)) {
      give_images(segment, 1);
    } else if (most > 0) {
      form_crew(context.roster->claim(rank, most));
    }
  }

  /// Seconds that so many images take this rank, each through a layer.
  [[nodiscard]] double seconds_of(std::int64_t images_and_layers) {
    return pace.busy() / static_cast<double>(image_layers) * static_cast<double>(images_and_layers);
  }

  /// What messages cost this rank; nothing where ranks share memory.
  [[nodiscard]] std::optional<MessageCost> messages() const {
    std::optional<MessageCost> cost = plan().messages;  // of ranks that are not slowed
    if (!cost) return cost;
    cost->seconds_per_row *= pace.slowdown();
    cost->seconds_per_byte *= pace.slowdown();
    return cost;
  }

  /// What it takes to hand over images that go on with a segment.
  [[nodiscard]] Handing handing_from(std::size_t segment) const {
    const std::optional<MessageCost> cost = messages();
    if (!cost) return {};
    return handing_of(layer_inputs(context.model->layers[plan().segments[segment].first]), *cost);
  }

  /// Seconds that a rank of speed `speed` takes for what takes this one `seconds`.
  [[nodiscard]] double on_rank_of(double speed, double seconds) const {
    constexpr double kLeast = 1e-30;  // of a rank without a share
    return seconds * std::max(plan().speeds[rank], kLeast) / std::max(speed, kLeast);
  }

  /// How many helpers may share the rows of the current images from `segment` on.
  [[nodiscard]] std::size_t most_helpers(std::size_t segment) const {
    const std::optional<MessageCost> cost = messages();
    if (!cost) return plan().images.size();
    const std::vector<Layer>& layers = context.model->layers;
    const std::int64_t first = plan().segments[segment].first;
    CrewWork work = {edges_of({first, std::ssize(layers)}) / alone_rate, layers_from(segment), 0,
                     layer_inputs(layers[first]), flow->bound()};
    for (auto layer = layers.begin() + first; layer != layers.end(); ++layer) {
      work.rows += layer_outputs(*layer);
    }
    return choose_helpers(work, plan().speeds, rank,
                          static_cast<std::size_t>(context.roster->idle()), *cost,
                          plan().worth_rows);
  }

  /// Hands pools to idle ranks that are done with them before this one, which takes `left` seconds
  /// for all it has, would be.
  void give_pools(double left) {
    for (auto [segment, pool] = flow->next_pool(0, true); pool != nullptr;
         std::tie(segment, pool) = flow->next_pool(0, true)) {
      const Handing handing = handing_from(segment);
      const double there = on_rank_of(context.roster->fastest_idle(),
                                      seconds_of(pool->count * layers_from(segment)));
      if (handing.first_s + static_cast<double>(pool->count) * handing.image_s + there > left) {
        return;
      }
      const std::vector<Roster::Helper> helpers = context.roster->claim(rank, 1);
      if (helpers.empty()) return;
      context.roster->give(helpers[0], flow->give_pool(segment, *pool, *helpers[0].landing));
    }
  }

  /// Shares the current images with idle ranks by their speeds, in `parts` of those computed side
  /// by side; the last one may go whole.
  void give_images(std::size_t segment, std::int64_t parts) {
    Handing handing = handing_from(segment);
    handing.image_s *= kSideBySide;
    const double own_s = seconds_of(kSideBySide * layers_from(segment));
    const double best_s = on_rank_of(context.roster->fastest_idle(), own_s);
    if (share_parts(parts, {own_s, best_s}, handing)[1] == 0) return;
    const auto most = static_cast<std::size_t>(std::max<std::int64_t>(parts - 1, 1));
    const auto helpers = context.roster->claim(rank, most);
    if (helpers.empty()) return;
    std::vector<double> seconds = {own_s};
    for (const Roster::Helper& helper : helpers) {
      seconds.push_back(on_rank_of(plan().speeds[helper.rank], own_s));
    }
    const std::vector<std::int64_t> shares = share_parts(parts, seconds, handing);
    const std::int64_t images = flow->bound();
    const std::int64_t own = std::min(images, shares[0] * kSideBySide);
    std::int64_t begin = own;
    for (std::size_t h = 0; h < helpers.size(); ++h) {
      const std::int64_t end = std::min(images, begin + shares[h + 1] * kSideBySide);
      flow->give({begin, end}, segment, *helpers[h].landing);
      context.roster->give(helpers[h], Parcel{segment, end - begin});
      begin = end;
    }
    flow->keep_first(own, segment);
  }

  void form_crew(const std::vector<Roster::Helper>& helpers) {
    if (helpers.empty()) return;
    crew = context.roster->form_crew(rank, helpers, plan().speeds);
    crew_is_new = true;
  }

  void dismiss() {
    if (crew == nullptr) return;
    crew->dismiss(pace);
    crew.reset();
  }

  [[nodiscard]] double edges_of(Range layers) const {
    double edges = 0.0;
    for (std::int64_t l = layers.begin; l < layers.end; ++l) {
      edges += static_cast<double>(layer_edges(context.model->layers[l]));
    }
    return edges;
  }

  /// Sends a crew away that is hardly faster than this rank alone, for good.
  void judge_crew(std::size_t segment, double seconds) {
    const Segment& s = plan().segments[segment];
    const double edges = edges_of({s.first, s.first + s.count});
    // Its first segment has the images sent to other processes, and rows not by measured speed.
    if (crew != nullptr && plan().messages && std::exchange(crew_is_new, false)) return;
    if (crew == nullptr) {
      alone_rate = edges / seconds;
    } else if (edges / seconds < plan().worth_rows * alone_rate) {
      crews_pay = false;
      dismiss();
    }
  }
};

Pass::Pass(const PassContext& context, Communicator& comm, Device& device, const DeviceSpec& spec)
    : state_(std::make_unique<State>(context, comm, device, spec)) {}

Pass::~Pass() = default;

void Pass::prepare() {
  State& s = *state_;
  const ProfileRange range("prepare");
  if (!s.may_begin_images() && s.plan().helping == Helping::none) return;
  s.flow = std::make_unique<Flow>(s.context, s.rank, s.device, *s.stream, s.capacity());
  s.flow->upload_weights(std::ssize(s.context.model->layers) * s.rank /
                         std::ssize(s.plan().images));
  s.stream->synchronize();
}

PassResult Pass::run() {
  State& s = *state_;
  try {
    s.run_all();
  } catch (const std::exception& error) {
    if (s.context.roster != nullptr) s.context.roster->abort(error.what());
    throw;
  }
  PassResult result;
  if (s.flow != nullptr) result = s.flow->take_result();
  s.pace.hold();
  result.begun = s.begun;
  result.taken_over = s.taken_over;
  result.helped_segments = s.helped_segments;
  result.busy_s = s.pace.busy();
  return result;
}

}  // namespace spdnn
