#!/bin/sh
# Build both wheels and the sdist, and use the wheels as someone who has nothing else.
#
#   sh tests/wheel-test.sh [3.11 3.12 3.13]     which Pythons; those that are not here are skipped
#
# What is built lies in dist/; each Python has a clean environment in dist/pythonX.Y, which needs
# 6 GB while it stands.
set -eu
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
constraints=$PWD/constraints.txt
quiet="--quiet --disable-pip-version-check"

rm -rf dist
"$bin/pip" wheel $quiet --no-deps --wheel-dir dist .
RAL_ENV_PURE=1 "$bin/pip" wheel $quiet --no-deps --wheel-dir dist .
"$bin/python" -m hatchling build -t sdist >/dev/null
ls -l dist
pure=$(echo "$PWD"/dist/*-py3-none-any.whl)
native=$(ls "$PWD"/dist/*linux_x86_64.whl 2>/dev/null || true)
[ "$native" ] || echo "no compiler, or no Linux on x86-64: the pure wheel alone is tried"

# An interpreter of version $1: on the path, or of pyenv.
interpreter() {
  for python in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python; do
    if "$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
      echo "$python"
      return
    fi
  done
}

# In an empty folder outside the repository, with what is installed and nothing else.
use() {
  (
    cd "$(mktemp -d)"
    unset PYTHONPATH
    export RAL_ENV_HOME=$PWD/home
    "$1/ral" --version && "$1/python" -m ral_env >/dev/null && "$1/ral" envs >/dev/null
    "$1/python" -c "from ral_env.nets import native; print('sampler:', *native.instruction_sets())"
    "$1/python" -c "
import gymnasium, warnings
import ral_env
warnings.simplefilter('ignore')
for id in ral_env.TASKS:
    gymnasium.make(id).reset(seed=0)
print(len(ral_env.TASKS), 'ids work')"
    "$1/ral" sample --env RALFaces32-v0 --count 4
    "$1/ral" demo --env RALDigits-v0 --seconds 3 --jobs 1 --out demo
    "$1/ral" train --env RALFaces32-v0 --preset small --iterations 2 --out run
    "$1/python" -c "
import gymnasium
gymnasium.make('ral_env:RALFaces32-v0', bundle='run/bundle').reset()"
    rm -rf "$PWD"
  )
}

tried=
for version in ${*:-3.11 3.12 3.13}; do
  python=$(interpreter "$version")
  if [ -z "$python" ]; then
    echo "== Python $version: there is none here, skipped"
    continue
  fi
  echo "== Python $version: $python"
  tried=yes
  home=$PWD/dist/python$version
  "$python" -m venv "$home"
  "$home/bin/pip" install $quiet -c "$constraints" "${native:-$pure}"
  use "$home/bin"
  if [ "$native" ]; then
    echo "== Python $version, the pure wheel"
    "$home/bin/pip" install $quiet --force-reinstall --no-deps "$pure"
    use "$home/bin"
  fi
  rm -rf "$home"
done
[ "$tried" ] || { echo "no Python of these versions is here" >&2; exit 1; }
