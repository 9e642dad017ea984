// NCCL behind a table of functions, filled when first needed: the program starts on machines
// without it, builds without its header, and tests put other functions in its place.
//
// Types are those of the C interface of NCCL 2 (nccl.h), which keeps their layout and numbers from
// version to version; a newer library takes the configuration of an older version as what it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace spdnn::comm {

struct NcclComm;  ///< ncclComm_t points to it

/// ncclUniqueId: what the ranks of one group find each other by.
struct NcclUniqueId {
  char bytes[128] = {};
};

/// ncclResult_t, as far as they are told apart.
enum class NcclResult : int {
  success = 0,
  system_error = 2,
  invalid_usage = 5,
  remote_error = 6,
  in_progress = 7
};

/// ncclDataType_t
enum class NcclType : int { i8 = 0, u8 = 1, i32 = 2, u32 = 3, i64 = 4, f32 = 7, f64 = 8 };

/// ncclRedOp_t
enum class NcclOp : int { sum = 0, max = 2, min = 3 };

/// The lowest version with calls that do not block, as NCCL writes versions: 2.14.0.
inline constexpr int nccl_least_version = 21400;

/// ncclConfig_t of that version.
struct NcclConfig {
  std::size_t bytes = sizeof(NcclConfig);
  unsigned magic = 0xcafebeef;
  unsigned version = nccl_least_version;
  int blocking = 0;
};

/// Streams are `cudaStream_t`, counts are elements.
struct NcclFunctions {
  NcclResult (*get_version)(int* version) = nullptr;
  const char* (*error_string)(NcclResult) = nullptr;
  NcclResult (*get_unique_id)(NcclUniqueId*) = nullptr;
  NcclResult (*init_rank_config)(NcclComm**, int ranks, NcclUniqueId, int rank,
                                 NcclConfig*) = nullptr;
  NcclResult (*async_error)(NcclComm*, NcclResult*) = nullptr;
  NcclResult (*finalize)(NcclComm*) = nullptr;
  NcclResult (*destroy)(NcclComm*) = nullptr;
  NcclResult (*abort)(NcclComm*) = nullptr;
  NcclResult (*group_start)() = nullptr;
  NcclResult (*group_end)() = nullptr;
  NcclResult (*all_gather)(const void* send, void* receive, std::size_t count_each, NcclType,
                           NcclComm*, void* stream) = nullptr;
  NcclResult (*broadcast)(const void* send, void* receive, std::size_t count, NcclType, int root,
                          NcclComm*, void* stream) = nullptr;
  NcclResult (*all_reduce)(const void* send, void* receive, std::size_t count, NcclType, NcclOp,
                           NcclComm*, void* stream) = nullptr;
  NcclResult (*reduce_scatter)(const void* send, void* receive, std::size_t count_each, NcclType,
                               NcclOp, NcclComm*, void* stream) = nullptr;
  NcclResult (*reduce)(const void* send, void* receive, std::size_t count, NcclType, NcclOp,
                       int root, NcclComm*, void* stream) = nullptr;
  NcclResult (*send)(const void* data, std::size_t count, NcclType, int peer, NcclComm*,
                     void* stream) = nullptr;
  NcclResult (*receive)(void* data, std::size_t count, NcclType, int peer, NcclComm*,
                        void* stream) = nullptr;
};

/// The functions of the libnccl.so.2 that the loader finds, or null with what to do about it in
/// `why`. Loads once; thread-safe.
[[nodiscard]] const NcclFunctions* nccl_functions(std::string& why);

}  // namespace spdnn::comm
