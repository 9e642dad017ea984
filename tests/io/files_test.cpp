// Writing a file as a whole or not at all.
#include "files.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <thread>

#include "cache.hpp"
#include "parallel.hpp"
#include "reading.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

using test::error_of;
using test::expect_contains;

/// Runs `body` in a child process in which no file may grow past `bytes`, as on a full disk.
void run_on_full_disk(rlim_t bytes, const std::function<void()>& body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit limit = {bytes, bytes};
    std::signal(SIGXFSZ, SIG_IGN);
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(2);
    body();
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "in the child process, see above";
}

TEST(Files, WriteReplacesAndLeavesNothingElse) {
  const test::ScratchDir dir;
  write_file_atomically(dir / "a.txt", "one");
  write_file_atomically(dir / "a.txt", "two");
  EXPECT_EQ(test::read_text(dir / "a.txt"), "two");
  EXPECT_EQ(test::names_in(dir.path()), std::vector<std::string>{"a.txt"});
}

TEST(Files, FullDiskLosesNothing) {
  const test::ScratchDir dir;
  write_file_atomically(dir / "a.txt", "old");
  write_cache(dir / "c.spdnn", {make_csr(1, 1, {0, 1}, {0}, {1.0F})}, "old");
  write_safetensors(dir / "t.safetensors", {make_tensor("old", std::vector{1.0F})});
  Model network;
  network.layers.emplace_back(
      SparseLinear{make_csr(1, 1, {0, 1}, {0}, {1.0F}), {0.0F}, {0.0F, 1.0F}});
  for (const char* name : {"n.npz", "n.mtx"}) static_cast<void>(write_network(dir / name, network));
  run_on_full_disk(4096, [&] {
    std::vector<std::uint32_t> cols(10000);
    std::vector<float> values(cols.size());
    for (std::size_t k = 0; k < cols.size(); ++k) {
      cols[k] = static_cast<std::uint32_t>(k);
      values[k] = std::sin(static_cast<float>(k));
    }
    expect_contains(error_of<SystemError>([&] {
                      write_safetensors(dir / "t.safetensors", {make_tensor("new", values)});
                    }),
                    "t.safetensors: can't be written");
    Model grown;
    grown.layers.emplace_back(
        SparseLinear{make_csr(1, 10000, {0, 10000}, cols, values), {0.0F}, {0.0F, 1.0F}});
    for (const char* name : {"n.npz", "n.mtx"}) {
      expect_contains(
          error_of<SystemError>([&] { static_cast<void>(write_network(dir / name, grown)); }),
          (dir / name).string() + ": can't be written");
    }
    const std::string error = error_of<SystemError>(
        [&] { write_file_atomically(dir / "a.txt", std::string(10000, 'x')); });
    expect_contains(error, (dir / "a.txt").string() + ": can't be written");
    expect_contains(error, "free space");
    const Csr large = make_csr(1, 10000, {0, 10000}, std::vector<std::uint32_t>(10000), {1.0F});
    expect_contains(error_of<SystemError>([&] { write_cache(dir / "c.spdnn", {large}, "new"); }),
                    (dir / "c.spdnn").string());
  });
  EXPECT_EQ(test::read_text(dir / "a.txt"), "old");
  std::string origin;
  EXPECT_EQ(read_cache(dir / "c.spdnn", &origin).size(), 1U);
  EXPECT_EQ(origin, "old");
  EXPECT_NE(read_safetensors(dir / "t.safetensors").find("old"), nullptr);
  for (const char* name : {"n.npz", "n.mtx"}) EXPECT_EQ(read_network(dir / name).inputs(), 1);
  EXPECT_EQ(test::names_in(dir.path()),
            (std::vector<std::string>{"a.txt", "c.spdnn", "n.mtx", "n.npz", "t.safetensors"}));
}

TEST(Files, MissingFolderIsASystemError) {
  const test::ScratchDir dir;
  expect_contains(error_of<SystemError>([&] { write_file_atomically(dir / "no/a.txt", "x"); }),
                  (dir / "no/a.txt").string());
}

TEST(Files, ShrinkingFileIsNoticed) {
  const test::ScratchDir dir;
  test::write_text(dir / "a.txt", "0123456789");
  const InputFile file(dir / "a.txt");
  std::filesystem::resize_file(dir / "a.txt", 5);
  std::string text(10, ' ');
  expect_contains(error_of([&] { file.read_at(0, text); }), "became shorter than its 10 bytes");
}

TEST(Files, MappedFileThatShrinksIsNoticedBeforeItIsRead) {
  const test::ScratchDir dir;
  const std::filesystem::path file = dir / "c.spdnn";
  write_cache(file, {make_csr(1, 1, {0, 1}, {0}, {1.0F})}, "some");
  const Csr matrix = read_cache(file).front();
  const Storage* storage = matrix.storage();
  ASSERT_NE(storage, nullptr);
  storage->prefetch();
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  expect_contains(error_of<SystemError>([&] { storage->prefetch(); }),
                  "c.spdnn: became shorter than its");
}

TEST(Files, PagesThatAreGoneEndTheProcessWithTheNameOfTheirFile) {
  const test::ScratchDir dir;
  const std::filesystem::path file = dir / "c.spdnn";
  constexpr std::int64_t kCount = 100'000;
  write_cache(file, {make_csr(1, kCount, {0, kCount}, std::vector<std::uint32_t>(kCount), {1.0F})},
              "some");
  const Csr matrix = read_cache(file).front();
  const auto read_after_a_cut = [&] {
    report_lost_pages();
    std::filesystem::resize_file(file, 0);
    std::int64_t sum = 0;
    for (std::int64_t k = 0; k < kCount; ++k) sum += matrix.view().col(k);
    std::exit(static_cast<int>(sum));
  };
  EXPECT_EXIT(read_after_a_cut(), testing::ExitedWithCode(3), "c.spdnn: became shorter than its");
}

TEST(Files, OnlyUnfinishedFilesAreRemoved) {
  const test::ScratchDir dir;
  write_file_atomically(dir / "done.txt", "done");
  OutputFile first(dir / "first.txt");
  OutputFile second(dir / "second.txt");
  first.write("half");
  EXPECT_EQ(test::names_in(dir.path()).size(), 3U);
  remove_unfinished_files();
  EXPECT_EQ(test::names_in(dir.path()), std::vector<std::string>{"done.txt"});
  EXPECT_THROW(second.commit(), SystemError);
}

TEST(Files, WhatCantBeWrittenIsKnownBefore) {
  const test::ScratchDir dir;
  write_file_atomically(dir / "old.txt", "old");
  check_writable(dir / "old.txt");
  check_writable(dir / "new.txt");
  EXPECT_EQ(test::names_in(dir.path()), std::vector<std::string>{"old.txt"});
  EXPECT_EQ(test::read_text(dir / "old.txt"), "old");
  const auto refusal = [](const std::filesystem::path& file) -> std::string {
    try {
      check_writable(file);
    } catch (const SystemError& error) {
      return error.what();
    }
    return {};
  };
  expect_contains(refusal(dir / "none/new.txt"), "make its folder");
  expect_contains(refusal(dir.path()), "choose another name");
}

TEST(Files, WritersOfOneFileDoNotMix) {
  const test::ScratchDir dir;
  std::vector<std::thread> writers;
  for (int w = 0; w < 4; ++w) {
    writers.emplace_back([&, w] {
      for (int round = 0; round < 20; ++round) {
        const auto nnz = static_cast<std::uint32_t>(1000 * (w + 1));
        std::vector<std::uint32_t> cols(nnz, static_cast<std::uint32_t>(w));
        write_cache(dir / "c.spdnn", {make_csr(1, 4, {0, nnz}, std::move(cols), {1.0F})},
                    std::to_string(w));
      }
    });
  }
  for (int seen = 0; seen < 100;) {
    if (!std::filesystem::exists(dir / "c.spdnn")) continue;
    std::string origin;
    const Csr matrix = read_cache(dir / "c.spdnn", &origin).front();
    EXPECT_EQ(std::to_string(matrix.nnz() / 1000 - 1), origin);
    EXPECT_EQ(std::to_string(matrix.view().col(0)), origin);
    ++seen;
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(test::names_in(dir.path()).size(), 1U);
}

TEST(Pieces, LowestErrorWinsAndAllPiecesAreDone) {
  for (const int threads : {1, 2, 5}) {
    std::vector<int> done(1000, 0);
    for_each_piece(1000, threads, [&](std::int64_t i, std::size_t worker) {
      EXPECT_LT(worker, static_cast<std::size_t>(threads));
      done[static_cast<std::size_t>(i)]++;
    });
    EXPECT_EQ(done, std::vector<int>(1000, 1));
    const std::string error = error_of([&] {
      for_each_piece(1000, threads, [](std::int64_t i, std::size_t) {
        if (i >= 100 && i % 2 == 1) throw InputError(fmt::format("piece {}", i));
      });
    });
    EXPECT_EQ(error, "piece 101");
  }
  for_each_piece(0, 3, [](std::int64_t, std::size_t) { ADD_FAILURE(); });
}

}  // namespace
}  // namespace spdnn
