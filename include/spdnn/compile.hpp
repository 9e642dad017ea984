// The network compiler: exact rewrites that make a network smaller before it runs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spdnn/model.hpp"

namespace spdnn {

/// A rewrite by name. An exact one keeps every output of a canonical kernel bit for bit, the sign
/// of a zero aside. The others are exact in real arithmetic, but sum in another order or round a
/// weight once.
struct CompilePass {
  std::string_view name;
  bool exact = false;
  std::string_view about;
  bool only_named = false;  ///< runs where it is named, and is no part of "safe" and "full"
};
/// Every pass there is, in the order they are tried.
[[nodiscard]] std::span<const CompilePass> compile_passes();

/// The passes that a word stands for: "off" none, "safe" the exact ones, "full" all, but for those
/// that run only where they are named; else names of passes with commas between. Throws
/// `InputError` for a name that is none.
[[nodiscard]] std::vector<std::string> passes_for(std::string_view setting);

/// What one image costs to run, as measured on the devices of a run (`measure_cost`). The defaults
/// are in units of an entry that shares its value, and good for comparisons alone.
struct CostModel {
  double shared_entry = 1.0;  ///< seconds an entry of a matrix with one value for all
  double own_entry = 1.25;    ///< seconds an entry with a value of its own
  double row = 6.0;           ///< seconds a row: its bias, clamp and store
};
[[nodiscard]] double seconds_per_image(const CostModel& cost, const Model& model);

struct CompileRequest {
  std::vector<std::string> passes;  ///< their names, in any order
  /// Every input of every image lies in here.
  float lowest_input = 0.0F;
  float highest_input = 1.0F;
  /// A network that passes would make cheaper by less than this part of its work stays as it is.
  double least_gain = 0.05;
  std::int64_t memory_limit = 0;  ///< bytes that rewritten layers may take; 0 for any number
  CostModel cost;                 ///< a pass after which an image would cost more is undone
  double most_seconds = 0.0;      ///< after which passes stop where they are; 0 for any number
  int threads = 1;                ///< most that compile, the caller among them
  bool release_pages = false;     ///< give a layer's pages back once it has been read
};

/// How large a network is.
struct NetworkSize {
  std::int64_t rows = 0;      ///< outputs of all layers
  std::int64_t nonzeros = 0;  ///< weights: edges of one image
  std::int64_t bytes = 0;     ///< of the weights as stored
  friend bool operator==(const NetworkSize&, const NetworkSize&) = default;
};
[[nodiscard]] NetworkSize network_size(const Model& model);

/// What one pass did, in all of its sweeps that count.
struct PassReport {
  std::string name;
  std::int64_t layers = 0;  ///< rewritten, counted once a sweep
  NetworkSize before, after;
  double seconds = 0.0;
  bool stopped = false;  ///< the time for compiling was up before it was through
};

struct CompileReport {
  std::vector<PassReport> passes;  ///< empty where nothing was asked for
  NetworkSize before, after;       ///< of the network given, and of the one to run
  bool exact = true;  ///< the network to run has the outputs of the one given, bit for bit
  double seconds = 0.0;
  int threads = 1;                 ///< that compiled, of those allowed
  bool from_cache = false;         ///< taken from an earlier run; the passes are as they were then
  std::vector<std::string> notes;  ///< why a network, or a pass's work, was left as it was
};

struct CompiledModel {
  /// Where nothing was found, the very matrices of the network given.
  Model model;
  /// For each output of the network given, which output of `model` equals it; −1 for one that is
  /// always 0. Empty where all are the same.
  std::vector<std::int64_t> outputs;
  /// For each layer of `model`, the layers of the network given that it stands for.
  std::vector<Range> layers;
  CompileReport report;
};

/// Rewrites `model` with the passes asked for until none finds more. Inputs keep their numbers. An
/// image has a nonzero output in the compiled network exactly when it has one in the network given,
/// but for the rounding of passes that are not exact. Throws `InputError` for a pass there is not.
[[nodiscard]] CompiledModel compile(const Model& model, const CompileRequest& request);

/// The outputs of the network given, from those of the compiled one.
[[nodiscard]] std::vector<float> expand_outputs(const CompiledModel& compiled,
                                                const std::vector<float>& outputs);

}  // namespace spdnn
