#!/usr/bin/env bash
# The module in the official 3D Slicer for Linux; see Testing/application/README.md.
#   slicer.sh fetch VERSION FOLDER   VERSION: 5.10, ..., release (the newest) or preview
#   slicer.sh packages FOLDER        install what the worker needs, without changing what Slicer ships
#   slicer.sh check FOLDER           run checks and self-test under a virtual display
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
server=${SLICER_SERVER:-https://download.slicer.org/download}
limit_s=${SLICER_LIMIT_S:-1500}

fail() {
  echo "slicer.sh: $*" >&2
  exit 1
}

fetch() {
  local version=$1 folder=$2 query archive
  case $version in
    release) query='os=linux&stability=release' ;;
    preview) query='os=linux&stability=nightly' ;;
    [0-9]*) query="os=linux&stability=release&version=$version" ;;
    *) fail "version '$version': expected a number, release or preview" ;;
  esac
  [ ! -e "$folder" ] || fail "'$folder' is there already"
  archive=$(mktemp)
  curl --fail --silent --show-error --location --retry 5 --output "$archive" "$server?$query"
  mkdir -p "$folder"
  tar -xzf "$archive" --strip-components 1 -C "$folder" || fail "what $server gave is no archive of Slicer"
  rm "$archive"
  found=$(version_of "$folder")
  echo "3D Slicer $found"
  case $version in
    [0-9]*) [[ $found == "$version"* ]] || fail "asked for Slicer $version, got $found" ;;
  esac
}

version_of() {
  local screen=()
  [ -x "$1/Slicer" ] || fail "there is no Slicer in '$1'"
  # even the version needs a display
  if [ -z "${DISPLAY:-}${QT_QPA_PLATFORM:-}" ] && command -v xvfb-run >/dev/null; then screen=(xvfb-run --auto-servernum); fi
  "${screen[@]}" "$1/Slicer" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+(\.[0-9]+)?' | head -n 1 || fail "'$1/Slicer' does not start"
}

packages() {
  local python=$1/bin/PythonSlicer shipped
  [ -x "$python" ] || fail "there is no $python"
  shipped=$(mktemp)
  "$python" -m pip list --format=freeze >"$shipped"
  "$python" -m pip install --quiet --only-binary :all: torch --index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" --extra-index-url "${PIP_INDEX_URL:-https://pypi.org/simple}" -c "$shipped"
  "$python" -m pip install --quiet --only-binary :all: -r "$root/ChangeMapJoint/Resources/requirements.txt" -c "$shipped"
  rm "$shipped"
}

check() {
  local folder=$1 log status=0 screen=()
  version_of "$folder" >/dev/null
  log=$(mktemp)
  if command -v xvfb-run >/dev/null; then
    screen=(xvfb-run --auto-servernum --server-args='-screen 0 1920x1080x24')
  elif [ -z "${DISPLAY:-}" ] && [ -z "${QT_QPA_PLATFORM:-}" ]; then
    fail "there is no display, and no xvfb-run"
  fi
  LIBGL_ALWAYS_SOFTWARE=1 timeout --kill-after=30 "$limit_s" "${screen[@]}" "$folder/Slicer" \
    --no-splash --testing --disable-settings --ignore-slicerrc \
    --additional-module-paths "$root/ChangeMapJoint" \
    --python-script "$root/Testing/application/run_checks.py" >"$log" 2>&1 || status=$?
  cat "$log"
  # each of the three may lie: a crash while quitting, an error in a slot, a script that never ran
  [ "$status" -ne 124 ] && [ "$status" -ne 137 ] || fail "stopped after $limit_s s"
  [ "$status" -eq 0 ] || fail "Slicer ended with status $status"
  grep -qx 'changemap checks: PASSED' "$log" || fail "the checks did not say that they passed"
  ! grep -q '^Traceback (most recent call last)' "$log" || fail "an error was printed"
  rm "$log"
}

case ${1:-} in
  fetch) [ $# -eq 3 ] || fail "fetch VERSION FOLDER" ;;
  packages | check) [ $# -eq 2 ] || fail "$1 FOLDER" ;;
  *) fail "expected fetch, packages or check" ;;
esac
"$@"
