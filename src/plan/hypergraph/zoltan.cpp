// Zoltan's PHG (Devine et al., IPDPS 2006) as an engine. It balances one weight, so that layers are
// partitioned one after another, each with the owners of the layer before it as fixed vertices.
#include <fmt/format.h>
#include <mpi.h>
#include <zoltan.h>

#include <numeric>

#include "engine.hpp"
#include "refine.hpp"

namespace spdnn {
namespace hypergraph {
namespace {

/// MPI, which Zoltan needs, where nobody else has it running.
void start_mpi() {
  struct Session {
    Session() { MPI_Init(nullptr, nullptr); }
    ~Session() {
      int over = 0;
      MPI_Finalized(&over);
      if (over == 0) MPI_Finalize();
    }
  };
  int running = 0;
  MPI_Initialized(&running);
  if (running == 0) static const Session session;
  float version = 0.0F;
  if (Zoltan_Initialize(0, nullptr, &version) != ZOLTAN_OK) throw SystemError("Zoltan won't start");
}

/// A layer as Zoltan asks for it. Without `producers` nets have only the rows that read them.
struct Problem {
  const Hypergraph& graph;
  bool producers;
  [[nodiscard]] std::span<const std::uint32_t> pins_of(std::int64_t net) const {
    const auto pins = graph.pins_of(net);  // the producer is the first: fixed vertices are
    return producers ? pins : pins.subspan(1);
  }
  [[nodiscard]] std::int64_t hidden() const { return producers ? 0 : graph.fixed; }
};

const Problem& problem(void* data) { return *static_cast<const Problem*>(data); }

int count_objects(void* data, int* error) {
  *error = ZOLTAN_OK;
  return static_cast<int>(problem(data).graph.vertices() - problem(data).hidden());
}

void list_objects(void* data, int, int, ZOLTAN_ID_PTR ids, ZOLTAN_ID_PTR, int, float* weights,
                  int* error) {
  const Problem& p = problem(data);
  for (std::int64_t v = p.hidden(); v < p.graph.vertices(); ++v) {
    *ids++ = static_cast<ZOLTAN_ID_TYPE>(v);
    const auto own = p.graph.weights_of(v);
    *weights++ = own.empty() ? 0.0F : static_cast<float>(own.front().nonzeros);
  }
  *error = ZOLTAN_OK;
}

void size_nets(void* data, int* nets, int* pins, int* format, int* error) {
  const Problem& p = problem(data);
  *nets = static_cast<int>(p.graph.nets());
  *pins = static_cast<int>(std::ssize(p.graph.pins) - (p.producers ? 0 : p.graph.nets()));
  *format = ZOLTAN_COMPRESSED_EDGE;
  *error = ZOLTAN_OK;
}

void list_nets(void* data, int, int, int, int, ZOLTAN_ID_PTR nets, int* offsets, ZOLTAN_ID_PTR pins,
               int* error) {
  const Problem& p = problem(data);
  int offset = 0;
  for (std::int64_t net = 0; net < p.graph.nets(); ++net) {
    nets[net] = static_cast<ZOLTAN_ID_TYPE>(net);
    offsets[net] = offset;
    for (const std::uint32_t v : p.pins_of(net)) pins[offset++] = v;
  }
  *error = ZOLTAN_OK;
}

int count_fixed(void* data, int* error) {
  *error = ZOLTAN_OK;
  return static_cast<int>(problem(data).graph.fixed - problem(data).hidden());
}

void list_fixed(void* data, int count, int, ZOLTAN_ID_PTR ids, int* parts, int* error) {
  static_cast<void>(data);
  for (int v = 0; v < count; ++v) {
    ids[v] = static_cast<ZOLTAN_ID_TYPE>(v);
    parts[v] = v;
  }
  *error = ZOLTAN_OK;
}

/// Zoltan's objects, freed with the scope.
struct Session {
  Zoltan_Struct* zoltan = Zoltan_Create(MPI_COMM_SELF);
  int imported = 0;
  int exported = 0;
  ZOLTAN_ID_PTR import_ids = nullptr, import_local = nullptr;
  ZOLTAN_ID_PTR export_ids = nullptr, export_local = nullptr;
  int *import_from = nullptr, *import_to = nullptr, *export_to = nullptr, *export_parts = nullptr;
  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() {
    Zoltan_LB_Free_Part(&import_ids, &import_local, &import_from, &import_to);
    Zoltan_LB_Free_Part(&export_ids, &export_local, &export_to, &export_parts);
    Zoltan_Destroy(&zoltan);
  }
};

void configure(Zoltan_Struct* zoltan, const Problem& p, const HypergraphRequest& request) {
  const auto set = [&](const char* name, const std::string& value) {
    if (Zoltan_Set_Param(zoltan, name, value.c_str()) != ZOLTAN_OK) {
      throw SystemError(fmt::format("Zoltan refuses {} = {}", name, value));
    }
  };
  set("DEBUG_LEVEL", "0");
  set("LB_METHOD", "HYPERGRAPH");
  set("HYPERGRAPH_PACKAGE", "PHG");
  set("LB_APPROACH", "PARTITION");
  set("PHG_CUT_OBJECTIVE", "CONNECTIVITY");
  set("NUM_GID_ENTRIES", "1");
  set("NUM_LID_ENTRIES", "0");
  set("OBJ_WEIGHT_DIM", "1");
  set("EDGE_WEIGHT_DIM", "0");
  set("RETURN_LISTS", "PARTS");
  set("NUM_GLOBAL_PARTS", std::to_string(request.speeds.size()));
  set("IMBALANCE_TOL", fmt::format("{}", 1.0 + request.imbalance));
  set("SEED", std::to_string(request.seed % 1'000'000 + 1));
  auto* data = const_cast<Problem*>(&p);
  Zoltan_Set_Num_Obj_Fn(zoltan, count_objects, data);
  Zoltan_Set_Obj_List_Fn(zoltan, list_objects, data);
  Zoltan_Set_HG_Size_CS_Fn(zoltan, size_nets, data);
  Zoltan_Set_HG_CS_Fn(zoltan, list_nets, data);
  if (p.producers) {
    Zoltan_Set_Num_Fixed_Obj_Fn(zoltan, count_fixed, data);
    Zoltan_Set_Fixed_Obj_List_Fn(zoltan, list_fixed, data);
  }
  std::vector<int> parts(request.speeds.size());
  std::iota(parts.begin(), parts.end(), 0);
  std::vector<float> shares(request.speeds.begin(), request.speeds.end());
  std::vector<int> weight_index(parts.size());
  Zoltan_LB_Set_Part_Sizes(zoltan, 1, static_cast<int>(parts.size()), parts.data(),
                           weight_index.data(), shares.data());
}

std::vector<std::uint32_t> parts_by_zoltan(const Problem& p, const HypergraphRequest& request) {
  Session session;
  if (session.zoltan == nullptr) throw std::bad_alloc();
  configure(session.zoltan, p, request);
  int changed = 0;
  int gids = 0;
  int lids = 0;
  const int status = Zoltan_LB_Partition(
      session.zoltan, &changed, &gids, &lids, &session.imported, &session.import_ids,
      &session.import_local, &session.import_from, &session.import_to, &session.exported,
      &session.export_ids, &session.export_local, &session.export_to, &session.export_parts);
  if (status != ZOLTAN_OK && status != ZOLTAN_WARN) {
    throw SystemError(fmt::format("Zoltan fails with status {}", status));
  }
  std::vector<std::uint32_t> parts(static_cast<std::size_t>(p.graph.vertices()));
  std::iota(parts.begin(), parts.begin() + p.graph.fixed, 0U);
  for (int k = 0; k < session.exported; ++k) {
    parts[session.export_ids[k]] = static_cast<std::uint32_t>(session.export_parts[k]);
  }
  return parts;
}

}  // namespace
}  // namespace hypergraph

bool have_zoltan() { return true; }

Partition zoltan_partition(const Model& model, const HypergraphRequest& request) {
  hypergraph::check(request);
  const hypergraph::Limits limits = hypergraph::limits_of(model, request);
  const std::vector<CsrView> weights = partitioned_weights(model);
  hypergraph::start_mpi();
  std::vector<std::uint32_t> owners;
  std::vector<std::uint32_t> before;
  for (std::int64_t l = 0; l < std::ssize(weights); ++l) {
    // The inputs are everywhere, but rows that read the same ones belong together all the same.
    const bool first = l == 0;
    if (first) before.assign(static_cast<std::size_t>(weights[l].cols), 0);
    const auto graph =
        hypergraph::hypergraph_of(weights, {l, l + 1}, before, first ? 1 : limits.parts());
    hypergraph::Limits own(1, limits.parts());
    for (int p = 0; p < limits.parts(); ++p) own.most(0, p) = limits.most(l, p);
    hypergraph::Assignment assignment(graph, own,
                                      hypergraph::parts_by_zoltan({graph, !first}, request));
    hypergraph::repair(assignment, graph, limits.parts());
    before.assign(assignment.parts().begin() + graph.fixed, assignment.parts().end());
    owners.insert(owners.end(), before.begin(), before.end());
  }
  return hypergraph::partition_of(model, limits.parts(), owners);
}

}  // namespace spdnn
