// Keys of how a run is computed: strategy, kernels, compiler, precision, memory.
#include "forms.hpp"
#include "keys.hpp"
#include "spdnn/compile.hpp"

namespace spdnn::config {
namespace {

std::vector<std::string_view> pass_names() {
  std::vector<std::string_view> names;
  for (const CompilePass& pass : compile_passes()) names.push_back(pass.name);
  return names;
}

/// Who does what.
void add_sharing(std::vector<Key>& t) {
  t.insert(
      t.end(),
      {
          {.pointer = "/strategy",
           .forms = {words({"auto", "data", "model", "data_then_model", "task_manager",
                            "task_stealing", "grid"})},
           .fallback = R"("auto")",
           .about = "How ranks share the work; auto takes what is fastest by what was measured"},
          {.pointer = "/split",
           .forms = {words({"profiled", "even"}), list(1)},
           .fallback = R"("profiled")",
           .about = "How shares are sized: by measured speed, evenly, or by ratios, one a rank"},
          {.pointer = "/split/*",
           .forms = {number(0.0, 1e9)},
           .about = "Share of one rank relative to the others"},
          {.pointer = "/model_ranks",
           .forms = {integer(1, 65535)},
           .fallback = "2",
           .about = "With strategy grid: ranks that share the rows of one network; so many groups "
                    "of them as there are share the images"},
          {.pointer = "/partition",
           .forms = {text()},
           .fallback = R"("auto")",
           .about = "Who owns which rows under 'model' and 'grid': auto divides them by speed; "
                    "block, cyclic, random, hypergraph (which sends little) or zoltan; or a file "
                    "that spdnn-gpu partition --save wrote"},
      });
}

/// What computes, and on which network.
void add_kernels(std::vector<Key>& t) {
  t.insert(
      t.end(),
      {
          {.pointer = "/kernel",
           .forms = {text()},
           .fallback = R"("auto")",
           .about =
               "Kernel of every layer by name (see spdnn-gpu profile); auto takes the fastest"},
          {.pointer = "/chains",
           .forms = {boolean()},
           .fallback = "true",
           .about = "Run several layers as one, activations kept on chip, where that is faster"},
          {.pointer = "/cuda_graphs",
           .forms = {boolean()},
           .fallback = "true",
           .about = "On a GPU, queue the layers of later batches, or steps, as CUDA graphs"},
          {.pointer = "/compile",
           .forms = {words({"off", "safe", "full"}), list(1)},
           .fallback = R"("off")",
           .about = "Rewrites that make the network smaller before it runs: none, those that keep "
                    "every bit, all, or a list of passes"},
          {.pointer = "/compile/*",
           .forms = {words(pass_names())},
           .about = "A pass: fold makes equal neurons one; constants and zeros leave out what is "
                    "always the same, or always 0; unread leaves out what nobody reads; identity "
                    "leaves out layers that only pass values on; reorder, which runs only where it "
                    "is named, brings neurons together that are read together"},
          {.pointer = "/compile_seconds",
           .forms = {words({"auto"}), above(0.0, 1e9)},
           .fallback = R"("auto")",
           .about = "Most time for compiling; passes stop where they are when it is up. auto is "
                    "what running the network as given would take, and 1 s at least"},
          {.pointer = "/compile_cache",
           .forms = {words({"auto"}), boolean()},
           .fallback = R"("auto")",
           .about = "Keep compiled networks on disk, and use them: always, never, or where "
                    "compiling took long. Only networks read from binary caches are kept"},
      });
}

/// Which images are computed, how exactly, and in how much memory.
void add_images(std::vector<Key>& t) {
  t.insert(
      t.end(),
      {
          {.pointer = "/deduplicate_images",
           .forms = {boolean()},
           .fallback = "true",
           .about = "Run equal images once; false for benchmarks on repeated images"},
          {.pointer = "/merge_images",
           .forms = {words({"auto"}), boolean()},
           .fallback = R"("auto")",
           .about = "Run images once that have become equal between two layers; auto is as "
                    "deduplicate_images"},
          {.pointer = "/skip_fixed_points",
           .forms = {words({"auto"}), boolean()},
           .fallback = R"("auto")",
           .about = "Leave out the layers that would not change an image any more, where all that "
                    "follow are alike; auto is as deduplicate_images"},
          {.pointer = "/precision",
           .forms = {words({"fp32", "fp16", "tf32", "bf16"})},
           .fallback = R"("fp32")",
           .about =
               "What weights and inputs may be rounded to before they are multiplied, where "
               "that is faster: not at all, to two halves of 22 bits together (inputs up to "
               "65504), to 11 or to 8 bits. Sums are fp32. Training on GPUs stores activations, "
               "their gradients and a copy of the weights so: fp32, fp16 or bf16"},
          {.pointer = "/batch",
           .forms = {words({"auto"}), integer(1, max_images)},
           .fallback = R"("auto")",
           .about = "Most images a rank has on its device at once; auto fits them into memory"},
          {.pointer = "/memory_limit",
           .forms = {words({"auto"}), bytes()},
           .fallback = R"("auto")",
           .about = "Memory of the whole run on the host, and of each GPU"},
          {.pointer = "/seed",
           .forms = {integer(0, max_seed)},
           .fallback = "1",
           .about = "Seed of everything random: drawn digits, sampled images"},
      });
}

}  // namespace

void add_plan(std::vector<Key>& t) {
  add_sharing(t);
  add_kernels(t);
  add_images(t);
}

}  // namespace spdnn::config
