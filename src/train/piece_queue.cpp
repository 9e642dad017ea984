// Who takes which piece: own ones become smaller towards the end, so that something is left to
// hand over, and others' are as large as lets both ranks finish together.
#include "piece_queue.hpp"

#include <algorithm>

#include "pieces.hpp"

namespace spdnn::train {
namespace {

/// Weight of a rank's last piece in what it is taken to need for an image: phases in which a core
/// is slower last for many pieces, so that the last one tells most.
constexpr double kNewest = 0.5;
/// A rank helps where the step would else go on by more than this part of itself: shares follow
/// times, so that less is noise, and each piece has costs of its own (the sum of its gradient).
constexpr double kWorthHelp = 0.1;
/// Images that go to another rank: as many as a vector has lanes, or a whole number of times.
constexpr std::int64_t kGrain = 16;

std::int64_t up_to(std::int64_t count, std::int64_t grain) {
  return (count + grain - 1) / grain * grain;
}

}  // namespace

/// As long as its last pieces took, or as it is already at this one.
double PieceQueue::Rank::seconds_each(double now) const {
  return piece > 0 ? std::max(per_image, (now - began) / static_cast<double>(piece)) : per_image;
}

double PieceQueue::Rank::done(double now) const {
  const double each = seconds_each(now);
  return began + static_cast<double>(piece + left()) * each;
}

/// Images behind the last panel that is the rank's whole: its others went to helpers.
std::int64_t PieceQueue::Rank::ragged() const {
  return end == batch.x.batch ? 0 : end % batch.x.width;
}

/// Where the last `wanted` images begin, or somewhat fewer: whole panels, or a part of the last
/// one.
std::int64_t PieceQueue::Rank::cut(std::int64_t wanted) const {
  std::int64_t begin_of = up_to(end - wanted, batch.x.width);
  if (ragged() > 0) begin_of = std::max(begin_of, end - ragged());
  if (begin_of >= end)
    begin_of = std::min(up_to(end - wanted, kGrain), (end - 1) / kGrain * kGrain);
  return std::max(begin_of, begin);
}

/// The rank with images to hand over that would be done last; their number where there is none.
std::size_t PieceQueue::last_to_be_done(std::int64_t step, double now) const {
  std::size_t last = ranks_.size();
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    const Rank& rank = ranks_[r];
    if (rank.step != step || rank.left() == 0) continue;
    if (last == ranks_.size() || rank.done(now) > ranks_[last].done(now)) last = r;
  }
  return last;
}

/// When the ranks at the same step as rank `own`, which was done with its piece at `due`, would be
/// done with all their images if each took as many as it can until then.
double PieceQueue::done_together(std::size_t own, double now, double due) const {
  double images = 0.0;  // as many as all would have done together since time 0
  double speed = 0.0;
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    const Rank& rank = ranks_[r];
    const double each = rank.seconds_each(r == own ? due : now);
    if (rank.step != ranks_[own].step || each <= 0.0) continue;
    images += static_cast<double>(rank.piece + rank.left()) + rank.began / each;
    speed += 1.0 / each;
  }
  return speed > 0.0 ? images / speed : due;
}

PieceQueue::Turn::Turn(PieceQueue& queue, std::size_t rank, std::int64_t step, const Batch& batch,
                       std::int64_t most, float* spare, double now)
    : queue_(queue), rank_(rank), most_(most), spare_(spare), start_(now) {
  const std::lock_guard lock(queue_.mutex_);
  Rank& own = queue_.ranks_[rank_];
  own.step = step;
  own.batch = batch;
  own.begin = own.piece = 0;
  own.end = batch.x.batch;
  own.began = now;
}

PieceQueue::Turn::~Turn() {
  std::unique_lock lock(queue_.mutex_);
  for (const std::size_t lender : lenders_) --queue_.ranks_[lender].helpers;
  if (!lenders_.empty()) queue_.unread_.notify_all();
  Rank& own = queue_.ranks_[rank_];
  own.step = -1;
  queue_.unread_.wait(lock, [&own] { return own.helpers == 0; });
}

/// As much as there is room for; at the end pieces of half as much, so that some are left to hand
/// over.
std::int64_t PieceQueue::Turn::own_piece() const {
  const Rank& own = queue_.ranks_[rank_];
  const std::int64_t width = own.batch.x.width;
  const std::int64_t half = up_to(std::max(own.left() / 2, most_ / 2), width);
  const std::int64_t count = std::min({half, std::max(most_, width), own.left()});
  return count == own.left() && count > own.ragged() ? count - own.ragged() : count;
}

bool PieceQueue::Turn::works_ahead(double now, double due) const {
  const std::lock_guard lock(queue_.mutex_);
  const Rank& own = queue_.ranks_[rank_];
  if (own.left() == 0) return false;
  const double done = due + static_cast<double>(own_piece()) * own.seconds_each(due);
  const double together = queue_.done_together(rank_, now, due);
  return done <= together + kWorthHelp * (together - start_);
}

std::optional<Batch> PieceQueue::Turn::next(double now) {
  const std::lock_guard lock(queue_.mutex_);
  Rank& own = queue_.ranks_[rank_];
  if (own.piece > 0) {
    const double newest = (now - own.began) / static_cast<double>(own.piece);
    own.per_image =
        own.per_image > 0.0 ? kNewest * newest + (1.0 - kNewest) * own.per_image : newest;
  }
  own.piece = 0;
  own.began = now;
  if (begun_ && own.left() == 0) return help(now);
  begun_ = true;
  const std::int64_t begin = own.begin;
  own.piece = own_piece();
  own.begin += own.piece;
  images_ += own.piece;
  return piece_from(own.batch, begin, own.piece);
}

std::optional<Batch> PieceQueue::Turn::help(double now) {
  Rank& own = queue_.ranks_[rank_];
  const std::size_t slow = queue_.last_to_be_done(own.step, now);
  if (slow == queue_.ranks_.size() || own.per_image <= 0.0) return {};
  Rank& lender = queue_.ranks_[slow];
  const double done = lender.done(now);
  if (done - now < kWorthHelp * (done - start_)) return {};
  const double both = (done - now) / (own.per_image + lender.seconds_each(now));
  const std::int64_t room = std::min(lender.left(), most_);
  const std::int64_t begin =
      lender.cut(static_cast<std::int64_t>(std::min(both, static_cast<double>(room))));
  own.piece = lender.end - begin;
  if (own.piece > most_ || now + static_cast<double>(own.piece) * own.per_image >= done) {
    own.piece = 0;
    return {};
  }
  lender.end = begin;
  if (std::find(lenders_.begin(), lenders_.end(), slow) == lenders_.end()) {
    lenders_.push_back(slow);
    ++lender.helpers;
  }
  images_ += own.piece;
  taken_over_ += own.piece;
  return piece_from(lender.batch, begin, own.piece);
}

/// Within a panel, a piece would have other images in the lanes that belong to none of it.
Batch PieceQueue::Turn::piece_from(const Batch& batch, std::int64_t begin, std::int64_t count) {
  const std::int64_t width = batch.x.width;
  Batch piece = piece_of(batch, begin, count);
  if (begin % width == 0 && (count % width == 0 || begin + count == batch.x.batch)) return piece;
  for (std::int64_t f = 0; f < batch.x.features; ++f) {
    float* const lanes = spare_ + f * width;
    std::copy_n(piece.x.data + f * width + begin % width, count, lanes);
    std::fill(lanes + count, lanes + width, 0.0F);
  }
  piece.x.data = spare_;
  return piece;
}

}  // namespace spdnn::train
