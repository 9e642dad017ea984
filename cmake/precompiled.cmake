# Headers that most files read, parsed once: half of the time a build takes. Sources still include
# what they use; -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON builds without.
set(spdnn_common_headers <algorithm> <atomic> <chrono> <cmath> <cstdint> <cstring> <filesystem> <fstream>
  <functional> <map> <memory> <mutex> <numeric> <optional> <random> <set> <span> <sstream> <string>
  <thread> <unordered_map> <variant> <vector> <fmt/format.h>)

# Code that is never hot, command lines and tests: -O1 compiles in about two thirds of the time.
add_library(spdnn_cold_flags INTERFACE)
if(SPDNN_SANITIZE MATCHES address)  # what it adds takes longer to optimise than to run
  target_compile_options(spdnn_cold_flags INTERFACE -O0)
else()
  target_compile_options(spdnn_cold_flags INTERFACE $<$<CONFIG:Release>:-O1>)
endif()
target_link_libraries(spdnn_cold_flags INTERFACE spdnn_flags)

# spdnn_precompiled(NAME HEADERS <header>… LINK LIBRARY…): a target whose headers others reuse.
function(spdnn_precompiled name)
  cmake_parse_arguments(arg "" "" "HEADERS;LINK" ${ARGN})
  set(source ${PROJECT_BINARY_DIR}/${name}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "")
  add_library(${name} OBJECT ${source})
  target_link_libraries(${name} PRIVATE spdnn_flags ${arg_LINK})
  target_precompile_headers(${name} PRIVATE ${spdnn_common_headers} ${arg_HEADERS})
endfunction()
