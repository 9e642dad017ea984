# What the scripts of this folder share. Sourced by bash, never run.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=$(nproc)

say() { printf '%s\n' "$*" >&2; }

# Prints the path of an nvcc of CUDA 12.4 or later, or nothing.
find_nvcc() {
  local nvcc version
  for nvcc in "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc; do
    [[ -x $nvcc ]] || continue
    version=$("$nvcc" --version | sed -n 's/.*release \([0-9]*\.[0-9]*\).*/\1/p')
    if [[ $(printf '%s\n' 12.4 "$version" | sort -V | head -n 1) == 12.4 ]]; then
      printf '%s\n' "$nvcc"
      return
    fi
  done
}

# Sets `preset` to SPDNN_PRESET, else to cuda where a toolkit is there, else to cpu, and says in one
# line how to get the other.
choose_preset() {
  local nvcc
  nvcc=$(find_nvcc)
  if [[ -n $nvcc ]]; then
    export CUDACXX=${CUDACXX:-$nvcc}
    preset=${SPDNN_PRESET:-cuda}
  else
    preset=${SPDNN_PRESET:-cpu}
  fi
  case $preset in
    cpu)
      if [[ -n $nvcc ]]; then
        say "CPU build, as SPDNN_PRESET asks. For the CUDA backend: unset it ($nvcc is there)."
      else
        say "CPU build. For the CUDA backend: install the CUDA Toolkit 12.4 or later and run this again."
      fi ;;
    *) say "Build \`$preset\` with ${CUDACXX:-nvcc}. For the CPU build alone: SPDNN_PRESET=cpu." ;;
  esac
}

# Copies build output from stdin to the log $1. On a terminal, one line $2 shows how far it is.
follow() {
  local log=$1 label=$2 line
  if [[ ! -t 2 ]]; then
    cat >>"$log"
    return
  fi
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$log"
    [[ $line =~ ^\[[0-9]+/[0-9]+\] ]] && printf '\r\033[K%s %s' "$label" "${BASH_REMATCH[0]}" >&2
  done
  printf '\r\033[K' >&2
}

# build DIR LABEL CONFIGURE-ARGS… -- BUILD-ARGS…: configures where that is needed and builds, with
# all output in DIR/log. Of a failure it shows the errors and returns 1.
build() {
  local dir=$1 label=$2 log=$1/log configure=() start=$SECONDS
  shift 2
  while [[ $1 != -- ]]; do configure+=("$1"); shift; done
  shift
  mkdir -p "$dir"
  : >"$log"
  exec 9>"$dir/lock"
  flock 9  # two calls at once build one after the other
  local failed=
  if [[ ! -e $dir/build.ninja || $(cat "$dir/configured-as" 2>/dev/null) != "${configure[*]}" ]]; then
    say "$label: configuring"
    if (cd "$root" && cmake "${configure[@]}" 9>&-) >>"$log" 2>&1; then
      printf '%s\n' "${configure[*]}" >"$dir/configured-as"
    else
      failed=configuring
    fi
  fi
  if [[ -z $failed ]]; then
    if ! ninja -C "$dir" -n "$@" 2>/dev/null | grep -q 'no work to do'; then
      say "$label: building in ${dir#"$root"/} with $jobs jobs"
    fi
    ninja -C "$dir" -j "$jobs" "$@" 2>&1 9>&- | follow "$log" "$label" || failed=building
  fi
  exec 9>&-
  if [[ -n $failed ]]; then
    say "$label: $failed failed:"
    # From the first error on, where there is one.
    { grep -A 40 -m 1 -E '^(FAILED:|CMake Error)' "$log" || tail -n 40 "$log"; } >&2
    say "$label: $failed failed. All of its output is in ${log#"$root"/}"
    return 1
  fi
  if (( SECONDS - start > 2 )); then say "$label: done after $((SECONDS - start)) s"; fi
}
