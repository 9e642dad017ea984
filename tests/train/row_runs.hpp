// Whole runs on ranks that share rows, and how near they must come to those of one rank.
#pragma once

#include <gtest/gtest.h>

#include "support/scratch.hpp"
#include "train/images.hpp"

namespace spdnn::test {

inline TrainResult run(TrainSpec spec, int ranks, int model_ranks) {
  spec.model_ranks = model_ranks;
  return train_network(spec, made_up_images(700, 1), made_up_images(300, 2), cpu_ranks(ranks), {});
}

/// Losses within `bound`, relatively, and parameters within ten times that.
inline void expect_near(const TrainResult& one, const TrainResult& other, double bound) {
  ASSERT_EQ(one.epochs.size(), other.epochs.size());
  for (std::size_t e = 0; e < one.epochs.size(); ++e) {
    EXPECT_NEAR(one.epochs[e].train.loss, other.epochs[e].train.loss,
                bound * one.epochs[e].train.loss);
    EXPECT_EQ(one.epochs[e].train.images, other.epochs[e].train.images);
  }
  const std::vector<float> a = parameters_of(one.model);
  const std::vector<float> b = parameters_of(other.model);
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 10.0 * bound);
  EXPECT_EQ(one.test.images, other.test.images);
}

/// One way of sharing a training.
struct Way {
  int ranks = 1, model_ranks = 1;
  InputSplit split = InputSplit::automatic;
};

/// `spec`, begun in each of these ways and resumed half way through in each, ends near one rank.
inline void expect_resumes(TrainSpec spec, const std::vector<Way>& ways) {
  const std::int64_t epochs = spec.epochs;
  const TrainResult whole = run(spec, 1, 1);
  for (const Way& before : ways) {
    for (const Way& after : ways) {
      const ScratchDir folder;
      spec.checkpoint.folder = folder.path();
      spec.checkpoint.resume = false;
      spec.input_split = before.split;
      spec.epochs = epochs / 2;
      static_cast<void>(run(spec, before.ranks, before.model_ranks));
      spec.epochs = epochs;
      spec.checkpoint.resume = true;
      spec.input_split = after.split;
      const TrainResult resumed = run(spec, after.ranks, after.model_ranks);
      EXPECT_EQ(resumed.resumed_epochs, epochs / 2);
      EXPECT_NEAR(resumed.epochs.back().train.loss, whole.epochs.back().train.loss,
                  1e-3 * whole.epochs.back().train.loss);
    }
  }
}

}  // namespace spdnn::test
