#!/bin/sh
# Generates the secrets of compose.yaml in ./secrets, unless they exist. Replace secrets/stripe by the secret of your endpoint.
# The user of the image, 65532, and Prometheus read the files through the permission for all, so keep the directory private to
# this machine.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
[ -e secrets/admin ] || head -c 24 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' >secrets/admin
[ -e secrets/stripe ] || { printf whsec_; head -c 24 /dev/urandom | base64 | tr -d '\n'; } >secrets/stripe
chmod 644 secrets/admin secrets/stripe
echo "secrets/admin and secrets/stripe are there"
