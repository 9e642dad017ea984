// Parts of a GPU, from a driver that only keeps accounts.
#include "green_context.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "spdnn/error.hpp"

namespace spdnn {
namespace {

/// A GPU of 132 multiprocessors that parts itself by 8; their order stands in a resource's first
/// reserved byte.
struct Driver {
  static constexpr unsigned kAll = 132, kGroup = 8;
  static inline std::vector<int> given;  ///< first of each group of the last description
  static inline unsigned multiprocessors = 0;
  static inline int contexts = 0, streams = 0;
  static inline bool refuses = false;

  static CUresult device(CUdevice* found, int index) {
    *found = index + 40;  // a handle is no index
    return CUDA_SUCCESS;
  }
  static CUresult resource(CUdevice device, CUdevResource* all, CUdevResourceType type) {
    if (device != 42 || type != CU_DEV_RESOURCE_TYPE_SM) return CUDA_ERROR_INVALID_VALUE;
    all->type = type;
    all->sm.smCount = kAll;
    return CUDA_SUCCESS;
  }
  static CUresult split(CUdevResource* groups, unsigned* count, const CUdevResource* all,
                        CUdevResource* rest, unsigned /*flags*/, unsigned least) {
    const unsigned size = (least + kGroup - 1) / kGroup * kGroup;
    const unsigned most = all->sm.smCount / size;
    if (groups == nullptr) {
      *count = most;
      return CUDA_SUCCESS;
    }
    *count = std::min(*count, most);
    for (unsigned g = 0; g < *count; ++g) {
      groups[g].type = CU_DEV_RESOURCE_TYPE_SM;
      groups[g].sm.smCount = size;
      groups[g]._internal_padding[0] = static_cast<unsigned char>(g * size);
    }
    rest->type = CU_DEV_RESOURCE_TYPE_SM;
    rest->sm.smCount = all->sm.smCount - *count * size;
    rest->_internal_padding[0] = static_cast<unsigned char>(*count * size);
    return CUDA_SUCCESS;
  }
  static CUresult describe(CUdevResourceDesc* description, CUdevResource* groups, unsigned count) {
    given.clear();
    multiprocessors = 0;
    for (unsigned g = 0; g < count; ++g) {
      given.push_back(groups[g]._internal_padding[0]);
      multiprocessors += groups[g].sm.smCount;
    }
    *description = reinterpret_cast<CUdevResourceDesc>(&given);
    return CUDA_SUCCESS;
  }
  static CUresult create(CUgreenCtx* context, CUdevResourceDesc /*description*/, CUdevice device,
                         unsigned flags) {
    if (refuses || device != 42 || flags != CU_GREEN_CTX_DEFAULT_STREAM) {
      return CUDA_ERROR_NOT_SUPPORTED;
    }
    ++contexts;
    *context = reinterpret_cast<CUgreenCtx>(&contexts);
    return CUDA_SUCCESS;
  }
  static CUresult create_stream(CUstream* stream, CUgreenCtx /*context*/, unsigned flags,
                                int /*priority*/) {
    if (flags != CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
    ++streams;
    *stream = reinterpret_cast<CUstream>(&streams);
    return CUDA_SUCCESS;
  }
  static CUresult destroy(CUgreenCtx /*context*/) {
    --contexts;
    return CUDA_SUCCESS;
  }
  static CUresult text(CUresult /*status*/, const char** text) {
    *text = "made up";
    return CUDA_SUCCESS;
  }
};

const GreenFunctions kDriver = {Driver::device,   Driver::resource, Driver::split,
                                Driver::describe, Driver::create,   Driver::create_stream,
                                Driver::destroy,  Driver::text};

std::string error_of(int before, int own) {
  try {
    const GreenContext context(kDriver, 2, before, own);
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "";
}

TEST(GreenContext, RanksDivideAGpu) {
  for (const auto& [before, own] : {std::pair(0, 88), {88, 44}, {0, 132}, {24, 8}, {128, 4}}) {
    const GreenContext context(kDriver, 2, before, own);
    EXPECT_EQ(Driver::multiprocessors, static_cast<unsigned>(own));
    ASSERT_FALSE(Driver::given.empty());
    for (std::size_t g = 0; g < Driver::given.size(); ++g) {
      EXPECT_EQ(Driver::given[g], before + static_cast<int>(g * Driver::kGroup));
    }
    EXPECT_EQ(Driver::contexts, 1);
    EXPECT_NE(context.make_stream(), nullptr);
  }
  EXPECT_EQ(Driver::contexts, 0);
  EXPECT_EQ(Driver::streams, 5);
}

TEST(GreenContext, PartsThatDoNotFitAreRefused) {
  for (const auto& [before, own] : {std::pair(0, 90), {88, 40 + 2}, {4, 8}, {0, 1}}) {
    EXPECT_NE(error_of(before, own).find("by 8"), std::string::npos) << before << " and " << own;
  }
  EXPECT_NE(error_of(88, 48).find("has 132 multiprocessors, and its ranks ask for 136"),
            std::string::npos);
  Driver::refuses = true;
  EXPECT_EQ(error_of(0, 8), "cuGreenCtxCreate failed: made up");
  Driver::refuses = false;
  EXPECT_EQ(Driver::contexts, 0);
}

}  // namespace
}  // namespace spdnn
