// Images of a step that CPU ranks of one process hand each other while they compute: a rank that is
// done with its own takes from the back of the one that would be done last, as workers help
// stragglers in inference (Hasanzadeh-Mofrad et al., HPEC 2020), within one batch.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <vector>

#include "loader.hpp"

namespace spdnn::train {

class PieceQueue {
 public:
  /// Of so many ranks, of which those of this process that train on shared images take part.
  explicit PieceQueue(std::size_t ranks) : ranks_(ranks) {}

  /// What one rank computes of a step, from its construction to its destruction: pieces of its own
  /// batch from the front, then pieces of others'. Ends when nobody computes on its images any
  /// more; those it took of others must stay where they are until then, which they do, since these
  /// wait likewise. Used by the rank's thread alone.
  class Turn {
   public:
    /// `batch` is the rank's own of step `step`, by equal numbers on all ranks; pieces have up to
    /// `most` images. `spare` has room for a panel of images, to which those of a piece that begins
    /// within one are copied. `now` is in seconds of any steady clock.
    Turn(PieceQueue& queue, std::size_t rank, std::int64_t step, const Batch& batch,
         std::int64_t most, float* spare, double now);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    /// Whether the rank's next piece would stay its own, however the ranks help one another: they
    /// can't be done together before it is. One that is held back (`Pace`) may compute it ahead of
    /// its time, `due`.
    [[nodiscard]] bool works_ahead(double now, double due) const;
    /// The next piece, when the one before is computed (on a rank that works ahead of its time,
    /// when that is due): the first one is of the rank's own batch, even if that has no images.
    /// Nothing when no other rank would be done sooner by help.
    [[nodiscard]] std::optional<Batch> next(double now);
    /// Images of all pieces so far, and those of them that were others'.
    [[nodiscard]] std::int64_t images() const noexcept { return images_; }
    [[nodiscard]] std::int64_t taken_over() const noexcept { return taken_over_; }

   private:
    [[nodiscard]] std::int64_t own_piece() const;
    [[nodiscard]] std::optional<Batch> help(double now);
    [[nodiscard]] Batch piece_from(const Batch& batch, std::int64_t begin, std::int64_t count);

    PieceQueue& queue_;
    std::size_t rank_;
    std::int64_t most_;
    float* spare_;
    double start_;
    std::int64_t images_ = 0, taken_over_ = 0;
    bool begun_ = false;
    std::vector<std::size_t> lenders_;  ///< ranks on whose images this one computed
  };

 private:
  /// A rank as the others see it.
  struct Rank {
    std::int64_t step = -1;  ///< none at present
    Batch batch;
    std::int64_t begin = 0, end = 0;  ///< images that nobody has begun
    std::int64_t piece = 0;           ///< images of the piece it computes
    double began = 0.0;               ///< when it did
    double per_image = 0.0;           ///< seconds it lately took for one; 0: not known
    int helpers = 0;                  ///< that may read its images

    [[nodiscard]] std::int64_t left() const { return end - begin; }
    [[nodiscard]] std::int64_t ragged() const;
    [[nodiscard]] std::int64_t cut(std::int64_t wanted) const;
    [[nodiscard]] double seconds_each(double now) const;
    /// When it would have computed all its images by itself.
    [[nodiscard]] double done(double now) const;
  };
  [[nodiscard]] std::size_t last_to_be_done(std::int64_t step, double now) const;
  [[nodiscard]] double done_together(std::size_t own, double now, double due) const;

  std::mutex mutex_;
  std::condition_variable unread_;
  std::vector<Rank> ranks_;
};

}  // namespace spdnn::train
