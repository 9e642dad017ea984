// Bad configurations, each refused with a message that says where, what and what to do.
#include <gtest/gtest.h>
#include <unistd.h>

#include <utility>

#include "folder.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

class BadConfig : public test::ConfigTest {
 protected:
  void expect(const std::string& text, const std::vector<std::string>& parts,
              std::vector<std::string> sets = {}) const {
    const std::string message = refusal(text, std::move(sets));
    EXPECT_NE(message, "") << "accepted: " << text;
    test::expect_parts(message, parts);
  }
  [[nodiscard]] static std::string file_refusal(const fs::path& file) {
    try {
      static_cast<void>(load_config(file, {}));
      return "";
    } catch (const InputError& error) {
      return error.what();
    }
  }
};

TEST_F(BadConfig, MissingFile) {
  test::expect_parts(file_refusal(folder_ / "no.json"), {"no.json", "No such file"});
}
TEST_F(BadConfig, Folder) { test::expect_parts(file_refusal(folder_.path()), {"is a folder"}); }
TEST_F(BadConfig, Empty) { expect("", {"c.json", "is empty", "expected a JSON object"}); }
TEST_F(BadConfig, OnlyBlanks) { expect(" \n\t", {"is empty"}); }
TEST_F(BadConfig, Unreadable) {
  const fs::path file = write("c.json", with(""));
  fs::permissions(file, fs::perms::none);
  if (geteuid() == 0) GTEST_SKIP() << "root reads every file: run the tests unprivileged";
  test::expect_parts(file_refusal(file), {"c.json", "Permission denied"});
}
TEST_F(BadConfig, TooLarge) { expect(std::string((16U << 20) + 1, ' '), {"larger than 16 MiB"}); }

TEST_F(BadConfig, NotJson) { expect("model = 3\n", {"c.json:1:1: ", "invalid literal"}); }
TEST_F(BadConfig, CutShort) {
  expect("{\n  \"job\": \"inf", {"c.json:2:", "missing closing quote"});
}
TEST_F(BadConfig, MissingComma) {
  expect("{\n  \"batch\": 1\n  \"seed\": 2\n}", {"c.json:3:", "expected '}'"});
}
TEST_F(BadConfig, TrailingComma) {
  expect("{\"batch\": 1,\n}", {"c.json:2:1: ", "remove the comma before it"});
}
TEST_F(BadConfig, Comment) {
  expect("{ // fast\n \"batch\": 1}", {"c.json:1:", "JSON has no comments"});
  expect("{\n # fast\n \"batch\": 1}", {"c.json:2:2: ", "JSON has no comments"});
}
TEST_F(BadConfig, TrailingText) {
  expect(with("") + "\nx", {"c.json:2:1: ", "expected end of input"});
}
TEST_F(BadConfig, NotANumber) { expect(with(R"("batch": NaN)"), {"c.json:2:", "invalid literal"}); }
TEST_F(BadConfig, NumberTooHuge) { expect(with(R"("batch": 1e999)"), {"c.json:2:", "1e999"}); }
TEST_F(BadConfig, NotUtf8) {
  expect("{\"\xff\": 1}", {"c.json:1:3: ", "UTF-8"});
  EXPECT_EQ(refusal("{\"output\": \"a/\xff\"}").find("comments"), std::string::npos);
}
TEST_F(BadConfig, ZeroByte) { expect(std::string("{\0}", 3), {"c.json:1:2: "}); }

TEST_F(BadConfig, KeyTwice) {
  expect("{\"batch\": 1,\n \"seed\": 1,\n \"batch\": 2}",
         {"c.json:3:", "/batch: the key is already there, on line 1"});
}
TEST_F(BadConfig, KeyTwiceInside) {
  expect(with("\"require\": {\"verified\": true,\n \"verified\": false}"),
         {"c.json:3:", "/require/verified: the key is already there, on line 2"});
}
TEST_F(BadConfig, DeepNesting) {
  expect(std::string(100'000, '['), {"c.json:1:65: ", "deeper than 64 levels"});
  std::string objects;
  for (int i = 0; i < 10'000; ++i) objects += "{\"a\":";
  expect(objects, {"deeper than 64 levels"});
}
TEST_F(BadConfig, TooManyKeys) {
  std::string text = "{";
  for (int i = 0; i < 1001; ++i) text += "\"k" + std::to_string(i) + "\": 1, ";
  expect(text, {"more than 1000 keys"});
}

TEST_F(BadConfig, NotAnObject) {
  expect("[1]", {"c.json: the configuration: found a list; expected an object"});
  expect("null", {"found null; expected an object"});
}
TEST_F(BadConfig, MissingModelAndInput) { expect("{}", {"/model: missing", "/input: missing"}); }
TEST_F(BadConfig, MisspeltKey) {
  expect(
      "{\"model\": {\n \"graph_chalenge\": {\"neurons\": 1024, \"layers\": 120}},\n"
      " \"input\": {\"graph_challenge\": {}}}",
      {"c.json:2: /model/graph_chalenge: unknown key; did you mean 'graph_challenge'? allowed: "
       "graph_challenge, radixnet, path",
       "/model: needs one of: graph_challenge, radixnet, path"});
}
TEST_F(BadConfig, SwappedLettersAndCase) {
  expect(with(R"("bacth": 1)"), {"did you mean 'batch'?"});
  expect(with(R"("Batch": 1)"), {"did you mean 'batch'?"});
}
TEST_F(BadConfig, UnknownKeyNearNothing) {
  const std::string message = refusal(with(R"("wibble": 1)"));
  test::expect_parts(message, {"c.json:2: /wibble: unknown key; allowed: $schema, job, model"});
  EXPECT_EQ(message.find("did you mean"), std::string::npos);
}
TEST_F(BadConfig, KeyInTheWrongPlace) {
  expect(with(R"("sample_against_reference": 1)"),
         {"/verify/sample_against_reference is where that key belongs"});
}
TEST_F(BadConfig, OddKeyIsEscaped) { expect(with(R"("a/b~c": 1)"), {"/a~1b~0c: unknown key"}); }

TEST_F(BadConfig, WrongType) {
  expect(with(R"("batch": "many")"),
         {"c.json:2: /batch: found the string \"many\"; expected 'auto', or an integer from 1 to"});
  expect(with(R"("batch": true)"), {"/batch: found true"});
  expect(with(R"("batch": 1.5)"), {"/batch: found 1.5"});
  expect(with(R"("batch": null)"), {"/batch: found null"});
  expect(with(R"("cache": 1)"), {"/cache: found 1; expected true or false"});
  expect(with(R"("verify": [])"), {"/verify: found an empty list; expected an object"});
  expect(with(R"("output": "")"),
         {"/output: found the string \"\"; expected a string that is not"});
  expect(with(R"("output": "a\u0000b")"), {"/output: found the string", "without \\u0000"});
}
TEST_F(BadConfig, PartitionThatFitsNothing) {
  expect(with(R"("partition": "cyclic")"), {"c.json:2: /partition: ", "strategy 'model'"});
  expect(with(R"("strategy": "model", "partition": "blocks")"),
         {"c.json:2: /partition: no file ", "name a way of dividing: auto, random, block"});
  write("rows.part", "0\n");
  expect(with(R"("strategy": "model", "split": [1, 2], "partition": "rows.part")"),
         {"/split: ratios and a /partition"});
}
TEST_F(BadConfig, OutOfRange) {
  expect(with(R"("batch": 0)"), {"/batch: found 0;", "from 1 to 2147483647"});
  expect(with(R"("batch": 2147483648)"), {"/batch: found 2147483648;"});
  expect(with(R"("seed": -1)"),
         {"/seed: found -1; expected an integer from 0 to 9223372036854775807"});
  expect(with(R"("seed": 18446744073709551615)"), {"/seed: found 18446744073709551615"});
  expect(with(R"("seed": 1e300)"), {"/seed: found 1e+300"});
  expect(with(R"("require": {"max_infer_seconds": 0})"),
         {"/require/max_infer_seconds: found 0; expected a number above 0"});
}
TEST_F(BadConfig, BadSize) {
  for (const char* size : {R"("8 gigabytes")", R"("GB")", R"("-1GB")", R"("1e3GB")", R"(".5GB")",
                           R"("1.GB")", R"("99999999TB")", R"("inf B")", R"("0GB")", "0", "1.5"}) {
    expect(with(std::string(R"("memory_limit": )") + size),
           {"/memory_limit: found", "a size such as \"8GB\""});
  }
}
TEST_F(BadConfig, UnknownWord) {
  expect(with(R"("strategy": "task_stealling")"),
         {"/strategy: found the string \"task_stealling\"; expected 'auto', 'data'",
          "did you mean 'task_stealing'?"});
}
TEST_F(BadConfig, NotAvailable) {
  expect(with(R"("precision": "fp8")"), {"/precision", "\"fp8\"", "'bf16'"});
  expect(with(R"("job": "train")"), {"/model: has no layers"});
  expect(with(R"("train": {})"), {"/train: goes with job 'train'"});
}
TEST_F(BadConfig, UnknownPass) {
  expect(with(R"("compile": "fast")"), {"/compile: found the string \"fast\"; expected 'off'"});
  expect(with(R"("compile_seconds": 0)"), {"/compile_seconds: found 0"});
  expect(with(R"("compile_cache": "always")"), {"/compile_cache: found the string \"always\""});
  expect(with(R"("compile": [])"), {"/compile: found an empty list"});
  expect(with(R"("compile": ["fold", "unreed"])"), {"/compile/1:", "did you mean 'unread'?"});
}
TEST_F(BadConfig, LongValueIsCut) {
  EXPECT_LT(refusal(with("\"batch\": \"" + std::string(10'000, 'x') + "\"")).size(), 400U);
}
TEST_F(BadConfig, ManyProblemsAreListedUpToTen) {
  std::string keys = R"("k0": 1)";
  for (int i = 1; i < 15; ++i) keys += ",\n\"k" + std::to_string(i) + "\": 1";
  expect(with(keys), {"c.json:2: /k0:", "c.json:11: /k9:", "and 5 more"});
}

TEST_F(BadConfig, TwoModels) {
  expect(R"({"model": {"graph_challenge": {"neurons": 1024, "layers": 1},
             "radixnet": {"neurons": 1024, "layers": 6}}, "input": {"digits": {}}})",
         {"c.json:1: /model: has both 'graph_challenge' and 'radixnet'; keep one"});
}
TEST_F(BadConfig, KeyWithoutItsPartner) {
  expect(R"({"model": {"radixnet": {"neurons": 1024, "layers": 6}, "bias": 1},
             "input": {"digits": {}, "images": 3}})",
         {"/model/bias: goes with 'path', which is not there", "/input/images: goes with 'path'"});
}
TEST_F(BadConfig, MissingRequiredKey) {
  expect(R"({"model": {"graph_challenge": {"neurons": 1024}}, "input": {"digits": {}}})",
         {"/model/graph_challenge/layers: missing"});
}
TEST_F(BadConfig, BiasMissingForAnUnofficialSize) {
  expect(
      R"({"model": {"graph_challenge": {"neurons": 2048, "layers": 1}}, "input": {"digits": {}}})",
      {"/model/graph_challenge/bias: missing", "not for 2048"});
  expect(R"({"model": {"radixnet": {"neurons": 2048, "layers": 1}}, "input": {"digits": {}}})",
         {"/model/radixnet/bias: missing"});
}
TEST_F(BadConfig, RadixNetThatCannotBeBuilt) {
  expect(
      R"({"model": {"radixnet": {"neurons": 1000, "layers": 1, "bias": 0}}, "input": {"digits": {}}})",
      {"c.json:1: /model/radixnet: "});
}
TEST_F(BadConfig, BadDevices) {
  expect(with(R"("devices": [])"),
         {"/devices: found an empty list; expected 'auto', or a list of"});
  expect(with(R"("devices": [{}])"), {"/devices/0: needs one of: cuda, cpu"});
  expect(with(R"("devices": [{"cpu": {}}, {"cuda": 0, "cpu": {}}])"),
         {"/devices/1: has both 'cuda' and 'cpu'"});
  expect(with(R"("devices": [{"gpu": 0}])"), {"/devices/0/gpu: unknown key", "allowed: cuda"});
  expect(with(R"("devices": [{"cuda": -1}])"), {"/devices/0/cuda: found -1"});
  expect(with(R"("devices": [{"cpu": {"threads": 0}}])"), {"/devices/0/cpu/threads: found 0"});
  expect(with(R"("devices": [{"cpu": {"slowdown": 0.5}}])"),
         {"/devices/0/cpu/slowdown: found 0.5"});
  const auto slowed = [&](const std::string& changes) {
    return with(R"("devices": [{"cpu": {"slowdown_by": "seconds", "slowdown": )" + changes + "}}]");
  };
  expect(slowed("[[1]]"),
         {"/devices/0/cpu/slowdown/0: found a list; expected a list of at least 2"});
  expect(slowed("[[1, 2, 3]]"), {"/devices/0/cpu/slowdown/0: has 3 numbers"});
  expect(slowed("[[5, 2], [5, 3]]"), {"/devices/0/cpu/slowdown/1: does not come after"});
  expect(slowed("[[5, 0.5]]"), {"makes the device 0.5 times slower; expected at least 1"});
  expect(with(R"("devices": [{"cpu": {"slowdown": [[5, 2]]}}])"),
         {"/devices/0/cpu/slowdown: changes at steps", "slowdown_by to 'seconds'"});
  expect(with(R"("devices": [{"cpu": {}, "sms": 8}])"), {"/devices/0/sms: goes with 'cuda'"});
  expect(with(R"("devices": [{"cuda": 0, "sms": 0}])"), {"/devices/0/sms: found 0"});
  expect(with(R"("devices": [{"cuda": 0, "sms": 8}, {"cuda": 1}, {"cuda": 0}])"),
         {"/devices/2: takes all of GPU 0, of which another rank has a part; give it `sms` too"});
  expect(with(R"("devices": [{"cpu": {}, "slowdown": 2}])"),
         {"/devices/0/slowdown: goes with 'cuda'"});
  expect(with(R"("devices": [{"cpu": {"cores": [1, 2]}}])"),
         {"/devices/0/cpu/cores: names 2 cores for 1 threads"});
  expect(with(R"("devices": [{"cpu": {"threads": 2, "cores": [1, 1]}}])"), {"names a core twice"});
}
TEST_F(BadConfig, BadRatios) {
  expect(with(R"("split": [0, 0])"), {"/split: all ratios are 0"});
  expect(with(R"("split": [1, -1])"), {"/split/1: found -1"});
  expect(with(R"("split": [1, 2], "devices": [{"cpu": {}}])"), {"/split: has 2 ratios for 1 dev"});
}
TEST_F(BadConfig, MissingDataFile) {
  expect(R"({"model": {"path": "net.spdnn"}, "input": {"digits": {}}})",
         {"c.json:1: /model/path: no file", "net.spdnn", "--data-dir"});
  expect(with(R"("verify": {"truth": "/nowhere/t.tsv"})"),
         {"/verify/truth: no file /nowhere/t.tsv"});
  expect(with(R"("verify": {"truth": "t.tsv", "categories": false})"), {"/verify/truth: is given"});
}
TEST_F(BadConfig, MissingDataFolder) {
  ConfigOverrides overrides;
  overrides.data_dir = folder_ / "nowhere";
  EXPECT_THROW(static_cast<void>(load_config(write("c.json", with("")), overrides)), InputError);
}

TEST_F(BadConfig, SetIsNamed) {
  expect(with(""), {"--set /bacth=1: /bacth: unknown key; did you mean 'batch'?"}, {"/bacth=1"});
  expect(with(""), {"--set /=1: /: unknown key; allowed: "}, {"/=1"});
  expect(with(R"("batch": 1)"), {"--set /batch=0: /batch: found 0"}, {"/batch=0"});
}
TEST_F(BadConfig, SetReplacesWhatWasInside) {
  expect(with(R"("require": {"verified": true})"),
         {"--set /require={\"verified\": 1}: /require/verified: found 1"},
         {"/require={\"verified\": 1}"});
}
TEST_F(BadConfig, SetThatIsNotOne) {
  for (const char* argument : {"batch=1", "/batch", "", "=1"}) {
    expect(with(""), {"--set", "expected /json/pointer=value"}, {argument});
  }
}
TEST_F(BadConfig, SetWithBrokenJson) {
  expect(with(""), {"--set /split=[1,: column 4"}, {"/split=[1,"});
  expect(with(""), {"--set /kernel=: column"}, {"/kernel="});
  expect(with(""), {"the key is already there"},
         {R"(/require={"verified": true, "verified": true})"});
}
TEST_F(BadConfig, SetThroughAScalar) {
  expect(with(R"("batch": 3)"), {"--set /batch/x=1: /batch is 3, which has no 'x' inside"},
         {"/batch/x=1"});
}
TEST_F(BadConfig, SetPastAList) {
  expect(with(R"("split": [1])"), {"--set /split/5=1: /split is a list of 1"}, {"/split/5=1"});
  expect(with(R"("split": [1])"), {"/split is a list of 1"}, {"/split/x=1"});
}
TEST_F(BadConfig, SetWithABadEscape) { expect(with(""), {"'~' is written ~0"}, {"/a~2=1"}); }

}  // namespace
}  // namespace spdnn
