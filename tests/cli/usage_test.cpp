// Help, usage errors, and output that can't be written.
#include <sys/resource.h>
#include <unistd.h>

#include "process.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::expect_part;
using test::Outcome;

class Usage : public test::CliTest {};

TEST_F(Usage, HelpOfEverySubcommandHasAnExample) {
  const std::vector<std::vector<std::string>> commands{{},
                                                       {"run"},
                                                       {"devices"},
                                                       {"profile"},
                                                       {"inspect"},
                                                       {"partition"},
                                                       {"simulate"},
                                                       {"generate"},
                                                       {"generate", "images"},
                                                       {"generate", "network"},
                                                       {"bench"},
                                                       {"bench", "node"},
                                                       {"convert"},
                                                       {"schema"}};
  for (std::vector<std::string> command : commands) {
    command.emplace_back("--help");
    const Outcome o = run(command);
    EXPECT_EQ(o.status, 0) << command.front();
    expect_part(o.out, "Example:\n  spdnn-gpu");
    EXPECT_EQ(o.err, "");
  }
}

TEST_F(Usage, VersionIsPrinted) {
  const Outcome o = run({"--version"});
  EXPECT_EQ(o.status, 0);
  expect_part(o.out, "spdnn-gpu ");
}

TEST_F(Usage, ErrorsEndWithTwo) {
  const std::vector<std::vector<std::string>> wrong{
      {},
      {"run"},
      {"run", "a.json", "--bogus"},
      {"run", "a.json", "b.json"},
      {"generate"},
      {"generate", "network", "--neurons", "many", "--layers", "2"},
      {"generate", "images", "--neurons", "1024"},
      {"generate", "images", "--neurons", "1024", "--digits", "3", "--mnist", "m"},
      {"generate", "images", "--neurons", "1024", "--digits", "0"},
      {"generate", "images", "--neurons", "1024", "--digits", "3", "--count", "2"}};
  for (const auto& arguments : wrong) {
    const Outcome o = run(arguments);
    EXPECT_EQ(o.status, 2) << testing::PrintToString(arguments);
    EXPECT_NE(o.err, "");
    EXPECT_EQ(o.out, "");
  }
}

TEST_F(Usage, NumbersThatDoNotFitAreNamedWithTheirLimits) {
  const std::string huge = "99999999999999999999";  // above 64 bits
  const std::vector<std::vector<std::string>> wrong{
      {"generate", "network", "--layers", "2", "--neurons", huge},
      {"generate", "network", "--layers", "2", "--neurons", "1024", "--seed", huge},
      {"generate", "images", "--neurons", "1024", "--digits", huge},
      {"convert", "a.tsv", "b.npz", "--neurons", "1024," + huge},
      {"partition", "c.json", "--seed", huge}};
  for (const auto& arguments : wrong) {
    const Outcome o = run(arguments);
    EXPECT_EQ(o.status, 2) << testing::PrintToString(arguments);
    expect_part(o.err, "'" + huge + "'; give a whole number from ");
    expect_part(o.err, " to 9223372036854775807");
  }
  expect_part(run({"convert", "a.tsv", "b.npz", "--neurons", "-1"}).err,
              "--neurons: '-1'; give a whole number from 1 to ");
}

TEST_F(Usage, HelpOfWhatIsNotThereIsAnError) {
  const Outcome o = run({"reprot", "--help"});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "no subcommand 'reprot'");
}

/// A user who may have so many threads, as on shared machines, whatever thread is one too many.
TEST_F(Usage, ThreadsThatCannotBeStartedAreAnError) {
  if (geteuid() != 0) GTEST_SKIP() << "root alone may become a user who has no other process";
  const std::string config = write("c.json", R"({
    "model": {"radixnet": {"neurons": 1024, "layers": 2, "bias": -0.2}},
    "input": {"digits": {"images": 100}}, "output": "out",
    "devices": [{"cpu": {"threads": 3}}, {"cpu": {}}, {"cpu": {}}]})");
  fs::permissions(folder_.path(), fs::perms::all);
  int failed = 0;
  for (int limit = 1; limit <= 8; ++limit) {
    const pid_t child = start({"run", config, "--quiet"}, "stdout", [limit] {
      constexpr uid_t kNobodyElse = 61'234;
      setenv("ASAN_OPTIONS", "detect_leaks=0", 1);  // which starts a process of its own
      const rlimit most = {static_cast<rlim_t>(limit), static_cast<rlim_t>(limit)};
      return setrlimit(RLIMIT_NPROC, &most) == 0 && setuid(kNobodyElse) == 0;
    });
    const Outcome o = finish(child);
    if (o.status == 126 || o.status == 127) GTEST_SKIP() << "other users may not run the program";
    if (o.status == 3) {
      ++failed;
      expect_part(o.err, "thread");
    } else {
      EXPECT_EQ(o.status, 0) << "with " << limit << " threads: " << o.err;
    }
  }
  EXPECT_GT(failed, 0);
}

TEST_F(Usage, CachesAreKeptBelowAnAbsoluteFolderAlone) {
  const std::string config = write("c.json", R"({
    "model": {"radixnet": {"neurons": 1024, "layers": 2, "bias": -0.2}},
    "input": {"digits": {"images": 10}}, "output": "out"})");
  const auto outcome = [&](const char* folder) {
    return finish(start({"run", config, "--quiet"}, "stdout", [&] {
      return setenv("XDG_CACHE_HOME", folder, 1) == 0 && unsetenv("HOME") == 0;
    }));
  };
  for (const char* folder : {"relative", "", "/dev/null"}) {
    EXPECT_EQ(outcome(folder).status, 0) << folder;
    EXPECT_FALSE(fs::exists(folder_ / "relative"));
  }
}

TEST_F(Usage, UnknownSubcommandIsNamed) {
  const Outcome o = run({"rnu", "a.json"});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "error: no subcommand 'rnu'; there are: run, devices");
}

TEST_F(Usage, MisspeltWordsAreNamedBeforeWhatIsMissing) {
  expect_part(run({"run", "--hepl"}).err,
              "error: no option '--hepl' of 'spdnn-gpu run'; did you mean '--help'?");
  expect_part(run({"run", "a.json", "--sett=/batch=3"}).err, "did you mean '--set'?");
  expect_part(run({"--versoin"}).err, "did you mean '--version'?");
  expect_part(run({"bench", "nod"}).err,
              "no subcommand 'nod'; there are: node; did you mean 'node'?");
  expect_part(run({"generate", "images", "--neurons", "4", "--digitz", "3"}).err,
              "of 'spdnn-gpu generate images'; did you mean '--digits'?");
  expect_part(
      run({"run", "a.json", "b.json"}).err,
      "error: 'spdnn-gpu run' takes no argument 'b.json'\n'spdnn-gpu run --help' says more");
}

TEST_F(Usage, MissingSubcommandsAreListed) {
  expect_part(run({}).err, "error: a subcommand is needed; there are: run, devices");
  expect_part(run({"generate"}).err, "error: a subcommand is needed; there are: network, images");
}

TEST_F(Usage, DevicesAndSchemaPrintJson) {
  const Outcome devices = run({"devices", "--json"});
  EXPECT_EQ(devices.status, 0);
  EXPECT_EQ(json::parse(devices.out)["devices"][0]["kind"], "cpu");
  expect_part(run({"devices"}).out, "Backends and libraries");
  const Outcome schema = run({"schema"});
  EXPECT_EQ(schema.status, 0);
  EXPECT_EQ(json::parse(schema.out)["type"], "object");
}

TEST_F(Usage, FullDiskEndsWithThree) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "this system has no /dev/full";
  const Outcome o = finish(start({"schema"}, "/dev/full"));
  EXPECT_EQ(o.status, 3);
  expect_part(o.err, "standard output can't be written");
  EXPECT_EQ(finish(start({"--help"}, "/dev/full")).status, 3);
}

TEST_F(Usage, ReaderThatGoesAwayIsNoError) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  close(ends[0]);
  const pid_t child =
      start({"schema"}, "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(ends[1]));
  const Outcome o = finish(child);
  close(ends[1]);
  EXPECT_EQ(o.status, 0) << o.err;
}

}  // namespace
}  // namespace spdnn
