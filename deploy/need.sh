# Functions for deploy/quickstart and tests/run: they list the packages that are missing on this machine, ask whether to install
# them, and install them on Debian and Ubuntu. On other systems, the functions print the list and stop. They start no service.
# shellcheck shell=bash

packages=()   # Debian packages that are missing
downloads=()  # descriptions of other downloads

# need PACKAGE COMMAND...: adds PACKAGE to the missing packages unless COMMAND succeeds.
need() { local package=$1; shift; "$@" >/dev/null 2>&1 || packages+=("$package"); }

# Checks for the Rust toolchain and the packages that `cargo build` needs. The build compiles librdkafka, zstd and zlib from C
# code, and links OpenSSL.
need_to_build() {
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || true
  if [ "$(printf '%s\n' "$wanted" "${found:-0}" | sort -V | head -n 1)" != "$wanted" ]; then
    echo "Rust toolchain: expected version $wanted or newer, found ${found:-none}; install one with rustup" >&2
    exit 2
  fi
  need gcc cc --version
  need g++ c++ --version
  need make make --version
  need pkg-config pkg-config --version
  need libssl-dev pkg-config --exists openssl
  need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
}

# Prints the missing packages and the other downloads. Asks whether to install them, unless $1 is yes, CI is true or stdin is
# not a terminal.
agree() {
  [ ${#packages[@]} -gt 0 ] || [ ${#downloads[@]} -gt 0 ] || { echo "nothing is missing"; return; }
  echo "missing on this machine:"
  [ ${#packages[@]} -eq 0 ] || echo "  Debian packages: ${packages[*]}"
  [ ${#downloads[@]} -eq 0 ] || printf '  %s\n' "${downloads[@]}"
  [ "$1" != yes ] && [ "${CI:-}" != true ] || return 0
  [ -t 0 ] || { echo "installing them without a question, because standard input is not a terminal"; return 0; }
  read -r -p "install now? [Y/n] " answer
  case $answer in [nN]*) echo "stopped; nothing was installed"; exit 2 ;; esac
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else echo "expected root or sudo, found neither; run as root: $*" >&2; exit 2; fi
}

# Runs apt-get as root. Without NEEDRESTART_SUSPEND, an installation on Ubuntu restarts running services.
apt() { as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q "$@"; }

install_packages() {
  [ ${#packages[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || { echo "expected apt-get, found none; install the equivalents of these Debian packages: ${packages[*]}" >&2; exit 2; }
  apt update
  apt install -y --no-install-recommends "${packages[@]}"
}
