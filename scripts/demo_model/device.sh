#!/bin/bash
# Lays out what a bare machine lacks: wheels from .whl, and the GL libraries that skia links to from .gpu/gl.
set -e
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl
mkdir -p /tmp/gl && for f in .gpu/gl/*.deb; do dpkg -x "$f" /tmp/gl; done
