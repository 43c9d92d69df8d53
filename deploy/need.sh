# Sourced by deploy/quickstart and tests/run: says what is missing on this machine, asks, installs. Debian and Ubuntu only;
# elsewhere it names what to install and stops. Starts no service.
# shellcheck shell=bash

packages=()   # Debian packages that are missing
also=()       # what else will be fetched, in words

# need PACKAGE COMMAND...: PACKAGE is missing unless COMMAND succeeds
need() { local package=$1; shift; "$@" >/dev/null 2>&1 || packages+=("$package"); }

# What `cargo build` needs: librdkafka, zstd and zlib are compiled from C, OpenSSL is linked.
need_to_build() {
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || true
  if [ "$(printf '%s\n' "$wanted" "${found:-0}" | sort -V | head -n 1)" != "$wanted" ]; then
    echo "needs a Rust toolchain, version $wanted or newer (here: ${found:-none}); rustup installs one" >&2
    exit 2
  fi
  need gcc cc --version
  need g++ c++ --version
  need make make --version
  need pkg-config pkg-config --version
  need libssl-dev pkg-config --exists openssl
  need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
}

# Lists what is missing and asks whether to install it; $1 = yes: does not ask.
agree() {
  [ ${#packages[@]} -gt 0 ] || [ ${#also[@]} -gt 0 ] || { echo "nothing is missing"; return; }
  echo "missing on this machine:"
  [ ${#packages[@]} -eq 0 ] || echo "  Debian packages: ${packages[*]}"
  [ ${#also[@]} -eq 0 ] || printf '  %s\n' "${also[@]}"
  [ "$1" != yes ] && [ "${CI:-}" != true ] && [ -t 0 ] || return 0
  read -r -p "install now? [Y/n] " answer
  case $answer in [nN]*) echo "stopped; nothing was installed"; exit 2 ;; esac
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else echo "not root, and there is no sudo; run as root: $*" >&2; exit 2; fi
}

# NEEDRESTART_SUSPEND: on Ubuntu an installation would otherwise restart running services.
apt() { as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q "$@"; }

install_packages() {
  [ ${#packages[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || { echo "no apt-get here: install what these Debian packages hold: ${packages[*]}" >&2; exit 2; }
  apt update
  apt install -y --no-install-recommends "${packages[@]}"
}
