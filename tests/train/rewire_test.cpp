// Connections changed where they are go on as those of rows that are gathered, changed and loaded.
#include <gtest/gtest.h>

#include "train/rewired_side.hpp"

namespace spdnn {
namespace {

using test::RewiredSide;

/// Nine steps, four of which rewire, on ranks with other images.
void compare(const TrainSpec& spec, int ranks) {
  run_ranks(ranks, [&](Communicator& comm) {
    const std::unique_ptr<Communicator> alone = comm.split(comm.rank(), 0);
    const std::unique_ptr<Device> device = open_device({});
    std::mt19937_64 random(8);
    const std::vector<train::TrainLayer> network = test::layers_of_all_kinds(random);
    RewiredSide here(spec, network, *alone, *device);
    RewiredSide gathered(spec, network, *alone, *device);
    here.rewirer = train::make_rewirer(spec, here.worker, comm);
    gathered.rewirer = train::make_shared_rewirer(spec, gathered.worker, comm);
    const float* const parameters = here.worker.network().parameters();
    std::mt19937_64 images(20 + static_cast<std::uint64_t>(comm.rank()));
    for (int step = 0; step < 9; ++step) {
      test::OwnedPanels<float> x(50, 70, panel_width(device->info()));
      test::fill_random(x, 0.0F, images);
      std::vector<std::int32_t> labels(70);
      for (std::int32_t& label : labels) label = static_cast<std::int32_t>(images() % 4);
      const bool rewire = step % 2 == 1;
      const std::int64_t grown = here.step(x.view, labels, rewire, comm);
      EXPECT_EQ(grown, gathered.step(x.view, labels, rewire, comm));
      EXPECT_EQ(grown > 50, rewire);
      for (std::size_t l = 0; l < network.size(); ++l) {
        SCOPED_TRACE(testing::Message() << "layer " << l);
        test::expect_same_rows(here, gathered, l);
      }
    }
    EXPECT_EQ(here.worker.network().parameters(), parameters);
    EXPECT_EQ(here.worker.pass().images_backward(), 9 * 70) << "the pass was made anew";
    EXPECT_EQ(here.worker.network().pattern(1).version(), 4);
    EXPECT_EQ(here.worker.network().pattern(3).version(), 0) << "nothing to change";
    EXPECT_GT(here.rewirer->host_bytes(), 0);
  });
}

TEST(Rewire, InPlaceAsGatheredAndLoaded) {
  for (const RewireMethod method : {RewireMethod::set, RewireMethod::rigl}) {
    for (const OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adam}) {
      for (const int ranks : {1, 2}) {
        SCOPED_TRACE(testing::Message() << static_cast<int>(method) << static_cast<int>(kind));
        compare(test::rewired(method, kind, Precision::fp32), ranks);
      }
    }
  }
}

}  // namespace
}  // namespace spdnn
