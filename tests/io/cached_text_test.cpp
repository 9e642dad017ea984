// When the cache is used, when it is made again, and where it goes.
#include "cached_text.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>

#include "cache.hpp"
#include "cache_format.hpp"
#include "graph_challenge.hpp"
#include "reading.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using test::entries_of;
using test::error_of;
using test::expect_contains;

constexpr std::int64_t kNeurons = 16;

class CachedTexts : public testing::Test {
 protected:
  CachedTexts() { policy_.fallback_dir = dir_ / "fallback"; }

  void write_layers() {
    test::write_text(layer_path(data_, kNeurons, 1), "1\t1\t0.5\n2\t1\t0.5\n");
    test::write_text(layer_path(data_, kNeurons, 2), "3\t4\t0.25\n4\t5\t0.5\n");
  }
  std::vector<Csr> read() {
    return read_graph_challenge_weights(data_, kNeurons, 2, policy_, &report_);
  }
  /// Reads and expects the two layers, whatever they were read from.
  void expect_layers() {
    const std::vector<Csr> layers = read();
    ASSERT_EQ(layers.size(), 2U);
    EXPECT_EQ(entries_of(layers[0].view()), (test::Entries{{0, 0, 0.5}, {0, 1, 0.5}}));
    EXPECT_EQ(entries_of(layers[1].view()), (test::Entries{{3, 2, 0.25}, {4, 3, 0.5}}));
    EXPECT_EQ(layers[1].rows(), kNeurons);
    EXPECT_EQ(report_.origin, "official files");
  }
  void expect_rebuilt(std::string_view why) {
    expect_layers();
    EXPECT_FALSE(report_.from_cache);
    expect_contains(report_.cache_note, why);
    expect_layers();
    EXPECT_TRUE(report_.from_cache);
    EXPECT_EQ(report_.cache_note, "");
  }

  test::ScratchDir dir_;
  fs::path data_ = dir_ / "data";
  fs::path cache_ = weights_cache_path(data_, kNeurons, 2);
  CachePolicy policy_;
  ReadReport report_;
};

TEST_F(CachedTexts, SecondReadComesFromTheCache) {
  write_layers();
  expect_layers();
  EXPECT_FALSE(report_.from_cache);
  EXPECT_EQ(report_.cache_note, "");
  EXPECT_EQ(report_.cache_file, cache_);
  EXPECT_EQ(report_.bytes, 33);
  expect_layers();
  EXPECT_TRUE(report_.from_cache);
  EXPECT_EQ(report_.cache_file, cache_);
  EXPECT_EQ(report_.bytes, static_cast<std::int64_t>(fs::file_size(cache_)));
  EXPECT_FALSE(fs::exists(policy_.fallback_dir));
}

TEST_F(CachedTexts, NoCacheIsWrittenWhenNotWanted) {
  write_layers();
  policy_.use = false;
  expect_layers();
  EXPECT_FALSE(fs::exists(cache_));
}

TEST_F(CachedTexts, ChangedSourceIsReadAgain) {
  write_layers();
  expect_layers();
  const fs::path text = layer_path(data_, kNeurons, 1);
  // Same size and contents, another time: nothing says that it is the same.
  fs::last_write_time(text, fs::last_write_time(text) + std::chrono::seconds(1));
  expect_rebuilt("n16-l1.tsv has changed");
  const auto time = fs::last_write_time(text);
  test::write_text(text, "1\t1\t0.5\n2\t1\t0.50\n");
  fs::last_write_time(text, time);
  expect_rebuilt("n16-l1.tsv has changed");
}

TEST_F(CachedTexts, OtherVersionIsRebuilt) {
  write_layers();
  expect_layers();
  std::string bytes = test::read_text(cache_);
  bytes[offsetof(CacheHeader, version)] = 99;
  test::write_text(cache_, bytes);
  expect_rebuilt("version 99");
}

TEST_F(CachedTexts, CutShortIsRebuilt) {
  write_layers();
  expect_layers();
  fs::resize_file(cache_, fs::file_size(cache_) - 1);
  expect_rebuilt("bytes, but should have");
}

TEST_F(CachedTexts, FlippedBitIsRebuilt) {
  write_layers();
  expect_layers();
  std::string bytes = test::read_text(cache_);
  bytes[128] = static_cast<char>(bytes[128] ^ 4);
  test::write_text(cache_, bytes);
  expect_rebuilt("checksum");
}

TEST_F(CachedTexts, DirectoryInPlaceOfTheCacheIsLeftAlone) {
  write_layers();
  fs::create_directories(cache_ / "x");
  expect_layers();
  expect_contains(report_.cache_note, "is a directory");
  expect_layers();
  EXPECT_TRUE(report_.from_cache);
  EXPECT_EQ(report_.cache_file.parent_path(), policy_.fallback_dir);
}

TEST_F(CachedTexts, CacheOfOtherLayersIsNotTaken) {
  write_layers();
  CacheWriter writer(
      cache_, "x", stamp_sources({layer_path(data_, kNeurons, 1), layer_path(data_, kNeurons, 2)}));
  writer.add(make_csr(1, 1, {0, 1}, {0}, {1.0F}).view());
  writer.finish();
  const auto layers = read();
  ASSERT_EQ(layers.size(), 2U);
  expect_contains(report_.cache_note, "holds 1 layers, but 2 are needed");
}

TEST_F(CachedTexts, BadTextLeavesNoCache) {
  write_layers();
  test::write_text(layer_path(data_, kNeurons, 2), "3\t4\tnan\n");
  expect_contains(error_of([&] { read(); }), "n16-l2.tsv:1: value \"nan\"");
  EXPECT_EQ(test::names_in(data_ / "neuron16"),
            (std::vector<std::string>{"n16-l1.tsv", "n16-l2.tsv"}));
}

TEST_F(CachedTexts, ReadOnlyFolderUsesTheFallback) {
  write_layers();
  fs::permissions(data_ / "neuron16",
                  fs::perms::owner_write | fs::perms::group_write | fs::perms::others_write,
                  fs::perm_options::remove);
  const bool run = test::run_unprivileged([&] {
    expect_layers();
    EXPECT_EQ(report_.cache_note, "");
    EXPECT_EQ(report_.cache_file, fallback_cache(cache_, policy_));
    EXPECT_FALSE(fs::exists(cache_));
    expect_layers();
    EXPECT_TRUE(report_.from_cache);
  });
  fs::permissions(data_ / "neuron16", fs::perms::all);
  if (!run) GTEST_SKIP() << "this process is root and may not become another user";
}

TEST_F(CachedTexts, NowhereToWriteIsSaidAndNoError) {
  write_layers();
  policy_.fallback_dir = "/proc/no-such-folder";
  fs::permissions(data_ / "neuron16",
                  fs::perms::owner_write | fs::perms::group_write | fs::perms::others_write,
                  fs::perm_options::remove);
  const bool run = test::run_unprivileged([&] {
    expect_layers();
    expect_contains(report_.cache_note, "no cache kept");
    expect_contains(report_.cache_note, cache_.string());
    expect_contains(report_.cache_note, policy_.fallback_dir.string());
    EXPECT_TRUE(report_.cache_file.empty());
  });
  fs::permissions(data_ / "neuron16", fs::perms::all);
  if (!run) GTEST_SKIP() << "this process is root and may not become another user";
}

TEST_F(CachedTexts, FallbackNamesTellFoldersApart) {
  const CachePolicy policy = {.use = true, .fallback_dir = "/f"};
  const fs::path a = fallback_cache(dir_ / "a/n16-2.spdnn", policy);
  EXPECT_NE(a, fallback_cache(dir_ / "b/n16-2.spdnn", policy));
  EXPECT_EQ(a, fallback_cache(dir_ / "b/../a/n16-2.spdnn", policy));
  EXPECT_EQ(a.parent_path(), "/f");
  ASSERT_EQ(::setenv("XDG_CACHE_HOME", "/xdg", 1), 0);
  EXPECT_EQ(fallback_cache("n.spdnn", {}).parent_path(), "/xdg/spdnn-gpu");
  ASSERT_EQ(::unsetenv("XDG_CACHE_HOME"), 0);
  ASSERT_EQ(::setenv("HOME", "/home/somebody", 1), 0);
  EXPECT_EQ(fallback_cache("n.spdnn", {}).parent_path(), "/home/somebody/.cache/spdnn-gpu");
}

TEST_F(CachedTexts, GeneratedCacheNeedsNoText) {
  const Csr layer = make_csr(kNeurons, kNeurons, std::vector<std::int64_t>(17, 0), {}, {});
  fs::create_directories(cache_.parent_path());
  write_cache(cache_, {layer, layer}, "generated");
  for (const bool use : {true, false}) {
    policy_.use = use;
    EXPECT_EQ(read().size(), 2U);
    EXPECT_TRUE(report_.from_cache);
    EXPECT_EQ(report_.origin, "generated");
  }
  // Texts that appear beside it are what was meant.
  write_layers();
  policy_.use = true;
  expect_rebuilt("not made of the text files");
}

TEST_F(CachedTexts, BadGeneratedCacheAsksToGenerateAgain) {
  const Csr layer = make_csr(kNeurons, kNeurons, std::vector<std::int64_t>(17, 0), {}, {});
  fs::create_directories(cache_.parent_path());
  write_cache(cache_, {layer, layer, layer}, "generated");
  expect_contains(error_of([&] { read(); }), "holds 3 layers, but 2 are needed; there are no text");
  fs::resize_file(cache_, fs::file_size(cache_) - 1);
  expect_contains(error_of([&] { read(); }), "generate it again");
}

TEST_F(CachedTexts, OriginOfGeneratedTextsSurvivesABadCache) {
  write_layers();
  {
    CacheWriter writer(
        cache_, "generated",
        stamp_sources({layer_path(data_, kNeurons, 1), layer_path(data_, kNeurons, 2)}));
    const Csr layer = make_csr(kNeurons, kNeurons, std::vector<std::int64_t>(17, 0), {}, {});
    writer.add(layer.view());
    writer.finish();
  }
  EXPECT_EQ(read().size(), 2U);
  EXPECT_EQ(report_.origin, "generated");
  EXPECT_EQ(read().size(), 2U);
  EXPECT_TRUE(report_.from_cache);
  EXPECT_EQ(report_.origin, "generated");
}

TEST_F(CachedTexts, ImagesAreCutToTheCount) {
  test::write_text(images_path(data_, kNeurons), "1\t1\t1\n1\t2\t1\n3\t3\t1\n5\t4\t1\n");
  for (const bool from_cache : {false, true}) {
    const Csr all = read_graph_challenge_images(data_, kNeurons, std::nullopt, policy_, &report_);
    EXPECT_EQ(report_.from_cache, from_cache);
    EXPECT_EQ(all.rows(), 5);
    const Csr some = read_graph_challenge_images(data_, kNeurons, 4, policy_, &report_);
    EXPECT_TRUE(report_.from_cache);
    EXPECT_EQ(some.rows(), 4);
    EXPECT_EQ(entries_of(some.view()), (test::Entries{{0, 0, 1}, {0, 1, 1}, {2, 2, 1}}));
    some.storage()->prefetch();
    some.storage()->release();
    EXPECT_EQ(some.nnz(), 3);
  }
  const std::string error = error_of(
      [&] { static_cast<void>(read_graph_challenge_images(data_, kNeurons, 6, policy_)); });
  expect_contains(error, "6 images were asked for, but it holds 5");
}

TEST_F(CachedTexts, ImagesOfAnotherWidthAreNotTaken) {
  fs::create_directories(data_);
  write_cache(images_cache_path(data_, kNeurons), {make_csr(1, 8, {0, 0}, {}, {})}, "generated");
  const std::string error = error_of([&] {
    static_cast<void>(read_graph_challenge_images(data_, kNeurons, std::nullopt, policy_));
  });
  expect_contains(error, "holds images of 8 pixels, but 16 are needed");
}

}  // namespace
}  // namespace spdnn
