// The keys of devices: which ranks there are, their threads and cores, and how they are slowed.
#include "forms.hpp"

namespace spdnn::config {

void add_devices(std::vector<Key>& t) {
  constexpr std::string_view change = "A change: when, and how many times slower from then on";
  constexpr std::string_view counted =
      "What changes of slowdown are counted in: steps of training, or seconds since the rank began";
  t.insert(t.end(),
           {
               {.pointer = "/devices",
                .forms = {words({"auto"}), list(1)},
                .fallback = R"("auto")",
                .about = "Devices to use, one rank each; auto takes every GPU, or without one a "
                         "rank for each usable core"},
               {.pointer = "/devices/*",
                .forms = {object()},
                .about = "One rank: exactly one of cuda and cpu",
                .one_of = {"cuda", "cpu"}},
               {.pointer = "/devices/*/cuda",
                .forms = {integer(0, 1023)},
                .about = "CUDA ordinal of a GPU; the same one may be listed more than once"},
               {.pointer = "/devices/*/sms",
                .forms = {integer(1, 1024)},
                .about = "Multiprocessors of the GPU that the rank may use, so that the ranks "
                         "listed for one GPU divide it; multiples of what the GPU parts itself by, "
                         "the last rank may take what is left. All by default; goes with cuda",
                .needs = "cuda"},
               {.pointer = "/devices/*/slowdown",
                .forms = {number(1.0, 1e6), list(1)},
                .fallback = "1",
                .about = "The rank works as if its GPU were so many times slower, or a list of "
                         "changes; goes with cuda",
                .needs = "cuda"},
               {.pointer = "/devices/*/slowdown/*", .forms = {list(2)}, .about = change},
               {.pointer = "/devices/*/slowdown/*/*",
                .forms = {number(0.0, 1e12)},
                .about = "When, or how many times slower"},
               {.pointer = "/devices/*/slowdown_by",
                .forms = {words({"steps", "seconds"})},
                .fallback = R"("steps")",
                .about = counted,
                .needs = "cuda"},
               {.pointer = "/devices/*/cpu", .forms = {object()}, .about = "Threads of the CPU"},
               {.pointer = "/devices/*/cpu/threads",
                .forms = {integer(1, 4096)},
                .fallback = "1",
                .about = "Threads of the rank"},
               {.pointer = "/devices/*/cpu/slowdown",
                .forms = {number(1.0, 1e6), list(1)},
                .fallback = "1",
                .about = "The rank works as if its cores were so many times slower, or a list of "
                         "changes"},
               {.pointer = "/devices/*/cpu/slowdown/*", .forms = {list(2)}, .about = change},
               {.pointer = "/devices/*/cpu/slowdown/*/*",
                .forms = {number(0.0, 1e12)},
                .about = "When, or how many times slower"},
               {.pointer = "/devices/*/cpu/slowdown_by",
                .forms = {words({"steps", "seconds"})},
                .fallback = R"("steps")",
                .about = counted},
               {.pointer = "/devices/*/cpu/cores",
                .forms = {list(1)},
                .about = "Cores to pin the threads to, one for each thread; left free by default"},
               {.pointer = "/devices/*/cpu/cores/*",
                .forms = {integer(0, 65535)},
                .about = "Number of a core"},
           });
}

}  // namespace spdnn::config
