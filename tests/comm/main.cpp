// Opens the world that the tests run in, and lets it end after the last of them.
#include "comm/backends.hpp"

namespace spdnn::test {
namespace {

std::unique_ptr<World>& the_world() {
  static std::unique_ptr<World> world;
  return world;
}

}  // namespace

World& world() { return *the_world(); }

}  // namespace spdnn::test

int main(int argc, char** argv) {
  using spdnn::test::the_world;
  testing::InitGoogleTest(&argc, argv);
  const bool mpi = std::getenv("SPDNN_TEST_MPI") != nullptr;
  spdnn::WorldSpec spec;
  spec.largest_message = 500;  // pieces of several messages, which otherwise would take gigabytes
  the_world() = mpi ? spdnn::open_world(spec) : spdnn::single_world();
  const int failed = RUN_ALL_TESTS();
  the_world().reset();
  return failed;
}
