# Version and commit, known to src/report/version.cpp alone so that a commit rebuilds one file.
execute_process(COMMAND git rev-parse --short=12 HEAD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  OUTPUT_VARIABLE SPDNN_COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
execute_process(COMMAND git status --porcelain --untracked-files=no
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE spdnn_changes ERROR_QUIET)
set(SPDNN_DIRTY 0)
if(spdnn_changes)
  set(SPDNN_DIRTY 1)
endif()
