# The flags every target of the project is built with: `spdnn_flags` is linked by all of them.
add_library(spdnn_flags INTERFACE)
target_compile_options(spdnn_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
    -Wnon-virtual-dtor -Woverloaded-virtual -Werror -fno-math-errno -ffp-contract=off>)
# GCC 12 sees overlaps and overflows in std::string that are not there (its bug 105651).
target_compile_options(spdnn_flags INTERFACE
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-restrict
    -Wno-stringop-overflow -Wno-array-bounds>)
target_include_directories(spdnn_flags INTERFACE ${PROJECT_SOURCE_DIR}/include)
if(SPDNN_SANITIZE)
  target_compile_options(spdnn_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SPDNN_SANITIZE} -fno-sanitize-recover=all
      -fno-omit-frame-pointer -g1>)
  target_link_options(spdnn_flags INTERFACE -fsanitize=${SPDNN_SANITIZE})
  if(SPDNN_SANITIZE MATCHES undefined)
    # These look at every access, which doubles the time to compile. A null pointer or the end of an
    # object is found by the address sanitizer as well; alignment is checked where memory that came
    # from a file or another rank is read.
    target_compile_options(spdnn_flags INTERFACE -fno-sanitize=null,object-size
      $<$<NOT:$<IN_LIST:$<TARGET_PROPERTY:NAME>,spdnn_core$<SEMICOLON>spdnn_io$<SEMICOLON>spdnn_comm>>:-fno-sanitize=alignment>)
  endif()
endif()
