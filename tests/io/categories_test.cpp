// Truth files: what they may hold, and what is wrong with others.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "reading.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

using test::error_of;
using test::expect_contains;

class Categories : public testing::Test {
 protected:
  std::string error(const std::string& text) {
    test::write_text(file_, text);
    return error_of([&] { static_cast<void>(read_categories(file_, 100)); });
  }
  test::ScratchDir dir_;
  std::filesystem::path file_ = categories_path(dir_.path(), 16, 2);
};

TEST_F(Categories, PathFollowsTheChallenge) {
  EXPECT_EQ(categories_path("d", 1024, 120).string(), "d/neuron1024-l120-categories.tsv");
}

TEST_F(Categories, RoundTrip) {
  for (const std::vector<std::int64_t>& ids :
       {std::vector<std::int64_t>{0, 7, 99}, std::vector<std::int64_t>{}}) {
    write_categories(file_, ids);
    EXPECT_EQ(read_categories(file_, 100), ids);
  }
  EXPECT_EQ(test::names_in(dir_.path()).size(), 1U);
}

TEST_F(Categories, IdsAreOneBasedAndSorted) {
  for (const char* const text :
       {"3\n1\n100\n", "3\r\n 1 \r\n100\r\n", "3\n1\n100", "3\n1\n100\n\n\n"}) {
    test::write_text(file_, text);
    EXPECT_EQ(read_categories(file_, 100), (std::vector<std::int64_t>{0, 2, 99})) << text;
  }
}

TEST_F(Categories, BadLines) {
  const std::string file = file_.string();
  expect_contains(error("1\nx\n"), file + ":2: image \"x\" is not a whole number");
  expect_contains(error("0\n"), file + ":1: image 0 is out of range; it must be from 1 to 100");
  expect_contains(error("1\n101\n"), file + ":2: image 101 is out of range");
  expect_contains(error("5\n2\n5\n"), file + ":3: image 5 stands in line 1 already");
  expect_contains(error("1\t7\n"), file + ":1: \"7\" follows the image id");
  expect_contains(error("1\n\n2\n"), file + ":2: blank line between ids");
  expect_contains(error(""), file + ": is empty");
  expect_contains(error(std::string(100000, '1')), "not a truth file");
}

TEST_F(Categories, MissingFile) {
  expect_contains(error_of([&] { static_cast<void>(read_categories(file_, 100)); }),
                  file_.string() + ": no such file");
}

}  // namespace
}  // namespace spdnn
