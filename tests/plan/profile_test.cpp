// Measuring devices: what is measured, what is remembered, what a declared slowdown does.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "spdnn/plan.hpp"
#include "support/networks.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

Model small_model() {
  std::mt19937_64 random(2);
  Model model;
  for (int l = 0; l < 3; ++l) {
    const std::int64_t inputs = l == 0 ? 40 : 60;
    model.layers.push_back(SparseLinear{
        test::random_csr({60, inputs, 8, test::Rows::equal, false}, random), {0.0F}, {0.0F, 1.0F}});
  }
  return model;
}

class ProfileCache : public testing::Test {
 protected:
  ProfileCache()
      : folder_(fs::temp_directory_path() / ("spdnn-profile-" + std::to_string(getpid()))) {}
  ~ProfileCache() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(ProfileCache, MeasuresEachDistinctShapeOnce) {
  const Profile profile =
      measure_profile(small_model(), {std::vector<DeviceSpec>(2), {}, "", false});
  EXPECT_EQ(profile.shapes.size(), 2U);
  EXPECT_EQ(profile.shape_of_layer, (std::vector<std::int64_t>{0, 1, 1}));
  ASSERT_EQ(profile.ranks.size(), 2U);
  EXPECT_GT(profile.ranks[0].times[1][0].seconds_per_image, 0.0);
  EXPECT_GT(modelled_seconds_per_image(profile, 0), 0.0);
  EXPECT_EQ(modelled_seconds_per_image(profile, 0), modelled_seconds_per_image(profile, 1));
}

TEST_F(ProfileCache, ADeclaredSlowdownMultipliesTheTimes) {
  std::vector<DeviceSpec> specs(3);
  specs[1].slowdown = 3.0;
  specs[2].slowdown = 6.0;
  const Profile profile = measure_profile(small_model(), {specs, {}, "", false});
  const double base = modelled_seconds_per_image(profile, 0);
  EXPECT_NEAR(modelled_seconds_per_image(profile, 1), 3.0 * base, 1e-9 * base);
  EXPECT_NEAR(modelled_seconds_per_image(profile, 2), 6.0 * base, 1e-9 * base);
}

TEST_F(ProfileCache, FloorsAreMeasuredWhereTheyAreAskedFor) {
  ProfileRequest request = {std::vector<DeviceSpec>(1), {}, "", false};
  EXPECT_TRUE(measure_profile(small_model(), request).ranks[0].floors.empty());
  request.floors = true;
  const Profile profile = measure_profile(small_model(), request);
  ASSERT_EQ(profile.ranks[0].floors.size(), profile.shapes.size());
  for (const double floor : profile.ranks[0].floors) EXPECT_GT(floor, 0.0);
}

TEST_F(ProfileCache, RemembersAndRefreshes) {
  const std::string file = (folder_ / "nested" / "profile.json").string();
  const ProfileRequest request = {std::vector<DeviceSpec>(1), {}, file, false};
  const Profile first = measure_profile(small_model(), request);
  ASSERT_TRUE(fs::exists(file));
  const Profile second = measure_profile(small_model(), request);
  EXPECT_EQ(modelled_seconds_per_image(first, 0), modelled_seconds_per_image(second, 0));
  std::ofstream(file) << "{not json";  // a broken file is measured anew
  EXPECT_GT(modelled_seconds_per_image(measure_profile(small_model(), request), 0), 0.0);
}

TEST_F(ProfileCache, SharesTheHostsMemoryAmongCpuRanks) {
  const Profile profile =
      measure_profile(small_model(), {std::vector<DeviceSpec>(4), 1000000, "", false});
  EXPECT_EQ(profile.ranks[3].memory_limit, 250000);
}

TEST_F(ProfileCache, CostsAreMeasuredOnceAndShared) {
  const std::string file = (folder_ / "profile.json").string();
  const CostModel one = measure_cost({std::vector<DeviceSpec>(1), {}, file, false});
  EXPECT_GT(one.shared_entry, 0.0);
  EXPECT_GT(one.own_entry, 0.0);
  EXPECT_GT(one.row, 0.0);
  EXPECT_LT(one.own_entry, 1e-6);
  const auto written = fs::last_write_time(file);
  const CostModel two = measure_cost({std::vector<DeviceSpec>(2), {}, file, false});
  EXPECT_DOUBLE_EQ(two.shared_entry, one.shared_entry / 2.0);
  std::vector<DeviceSpec> uneven(2);
  uneven[1].slowdown = 3.0;
  EXPECT_DOUBLE_EQ(measure_cost({uneven, {}, file, false}).row, one.row * 0.75);
  EXPECT_EQ(fs::last_write_time(file), written);
}

}  // namespace
}  // namespace spdnn
