// Local search on an assignment: moves and swaps at a falling temperature, and repair of balance.
#pragma once

#include "assignment.hpp"
#include "spdnn/random.hpp"

namespace spdnn::hypergraph {

/// How a search cools: from `hot` to `cold` words in `sweeps` steps of one proposal a vertex each.
struct Cooling {
  double hot = 1.0;
  double cold = 0.1;
  int sweeps = 10;
  /// Words that a vertex's worth of nonzeros above a limit counts as.
  double overload_words = 2.0;
};

/// Simulated annealing (Kirkpatrick, Gelatt and Vecchi, Science 1983) whose proposals take a vertex
/// to the part of one of its neighbours, in exchange for a vertex of the same layer there where
/// that part is full.
void anneal(Assignment& assignment, const Hypergraph& graph, const Cooling& cooling,
            Random& random);

/// Moves rows out of parts that are above a limit, those first that cost least, until none is or
/// none can be moved.
void repair(Assignment& assignment, const Hypergraph& graph, int parts);

}  // namespace spdnn::hypergraph
