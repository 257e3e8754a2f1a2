#!/bin/sh
# Makes this machine a device of a Pinion: fetches the daemon from the server, checks it, enrols, has it start by itself.
#   curl -fsS {{server}}/install.sh | sh -s -- JOIN_CODE [--label NAME] [--bin-dir DIR] [--no-service] [--start]
# Run again it brings the daemon up to date; a machine that is a device already stays the device that it is.
set -eu

server='{{server}}'

say() { printf '%s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '  -> %s\n' "$line" >&2; done
  exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

fetch() {
  # $1 a path of the server, $2 where to write it
  if has curl; then curl -fsS --retry 3 -o "$2" "$server$1"
  elif has wget; then wget -q -O "$2" "$server$1"
  else fail "neither curl nor wget is here" "install one of them"
  fi
}

digest() {
  if has sha256sum; then sha256sum "$1" | cut -d ' ' -f 1
  elif has shasum; then shasum -a 256 "$1" | cut -d ' ' -f 1
  elif has openssl; then openssl dgst -sha256 -r "$1" | cut -d ' ' -f 1
  else fail "nothing here computes SHA-256, so the download cannot be checked" "install sha256sum, shasum or openssl"
  fi
}

system_name() {
  case "$(uname -s)" in
    Linux) os=linux ;;
    Darwin) os=darwin ;;
    *) fail "there is no program for $(uname -s)" "on Windows use install.ps1" ;;
  esac
  case "$(uname -m)" in
    x86_64 | amd64) arch=x64 ;;
    aarch64 | arm64) arch=arm64 ;;
    *) fail "there is no program for $(uname -m)" "there are some for x86_64 and aarch64" ;;
  esac
  say "$os-$arch"
}

# The digest and the file of a program in the list, whose lines are "digest program system file"; nothing if it is not there.
listed() {
  # $1 the list, $2 the program, $3 the system
  while read -r sum name target file; do
    if [ "$name" = "$2" ] && [ "$target" = "$3" ]; then
      say "$sum $file"
      return
    fi
  done <"$1"
}

nothing_for() {
  package=$(listed "$2" npm any)
  package=${package#* }
  if [ -n "$package" ]; then
    fail "$server has no program for $1" \
      "with Node 24 and npm: npm install -g $server/downloads/$package" \
      "then: pinion device enroll --url $server --join-code ${3:-CODE} && pinion device install"
  fi
  fail "$server has no program for $1" \
    "its operator makes them in a checkout with 'npm run build:executables', and names their folder with PINION_DOWNLOADS"
}

has_systemd() {
  has systemctl || return 1
  if [ "$(id -u)" = 0 ]; then [ -d /run/systemd/system ]
  else systemctl --user show-environment >/dev/null 2>&1
  fi
}

main() {
  code='' label='' bin='' service=yes start=no
  while [ $# -gt 0 ]; do
    case "$1" in
      --label) label=${2:?"--label wants a name"}; shift ;;
      --bin-dir) bin=${2:?"--bin-dir wants a directory"}; shift ;;
      --no-service) service=no ;;
      --start) start=yes ;;
      -*) fail "there is no option $1" "there are --label, --bin-dir, --no-service and --start" ;;
      *) code=$1 ;;
    esac
    shift
  done
  if [ -z "$bin" ]; then
    if [ "$(id -u)" = 0 ]; then bin=/usr/local/bin; else bin=${HOME:?"HOME is not set"}/.local/bin; fi
  fi
  state=${PINION_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/pinion/device}
  if [ -z "$code" ] && [ ! -f "$state/identity.json" ]; then
    fail "a join code is missing" "make one with 'pinion devices join-code', or on the page: Devices, Add a device"
  fi

  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM
  system=$(system_name)
  fetch /downloads/manifest.txt "$work/list" || fail "$server does not answer" "is it reached from this machine?"
  # The daemon alone, or else the whole command.
  program=piniond
  line=$(listed "$work/list" piniond "$system")
  if [ -z "$line" ]; then
    program=pinion
    line=$(listed "$work/list" pinion "$system")
  fi
  [ -n "$line" ] || nothing_for "$system" "$work/list" "$code"
  sum=${line%% *} file=${line#* }

  fetch "/downloads/$file" "$work/file" || fail "$server/downloads/$file cannot be fetched"
  found=$(digest "$work/file")
  [ "$found" = "$sum" ] || fail "what came is not what the server lists: SHA-256 $found instead of $sum" \
    "try again; if it stays so, somebody changes it on the way"
  mkdir -p "$bin"
  case "$file" in
    *.gz) gzip -dc <"$work/file" >"$bin/.$program.new" ;;
    *) cp "$work/file" "$bin/.$program.new" ;;
  esac
  chmod 755 "$bin/.$program.new"
  "$bin/.$program.new" --version >"$work/version" 2>"$work/problem" ||
    { rm -f "$bin/.$program.new"; fail "the program does not run here: $(head -n 1 "$work/problem")"; }
  mv -f "$bin/.$program.new" "$bin/$program"
  say "installed $bin/$program $(cat "$work/version"), checked by SHA-256"

  if [ -f "$state/identity.json" ]; then
    say "this machine is a device already, and stays the one that it is"
  else
    "$bin/$program" device enroll --url "$server" --join-code "$code" ${label:+--label "$label"}
  fi

  if [ "$service" = yes ] && [ "$(uname -s)" = Darwin ]; then
    "$bin/$program" device install
  elif [ "$service" = yes ] && has_systemd; then
    if [ "$(id -u)" = 0 ]; then "$bin/$program" device install --system; else "$bin/$program" device install; fi
  elif [ "$start" = yes ]; then
    mkdir -p "$state"
    nohup "$bin/$program" device run --json >>"$state/daemon.log" 2>&1 </dev/null &
    say "the daemon runs in the background (process $!); it says what it does in $state/daemon.log"
  else
    [ "$service" = no ] || say "there is no systemd for this user here, so nothing starts the daemon by itself"
    say "start it:"
    say "  $bin/$program device run"
  fi
  case ":$PATH:" in
    *":$bin:"*) ;;
    *) say "$bin is not in your PATH" ;;
  esac
}

# The last line: what was cut off on its way does nothing.
main "$@"
