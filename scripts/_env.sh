# Sourced by the other scripts: makes .venv in the repository the first time, renews it when pyproject.toml or the
# kernels' sources changed, and puts it on the PATH. Bash 3.2 is enough. INTAGLIO_VENV names another place for it.
# The kernels alone are compiled anew by `python scripts/backend/compile_kernels.py`.

set -eu
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=${INTAGLIO_VENV:-$root/.venv}
stamp=$venv/.intaglio-stamp

say() { printf '[set-up] %s\n' "$*" >&2; }

# The first interpreter that runs (a pyenv shim may exist and fail) and is 3.11 to 3.13.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    say "no Python 3.11, 3.12 or 3.13 with venv was found; install one (on Debian: python3 and python3-venv)"
    return 1
}

install_torch() {
    # First and alone: later requirements then find it and fetch no other build. The CPU build is preferred, since
    # the default build for Linux brings several gigabytes of CUDA libraries that nothing here uses.
    "$venv/bin/python" -c 'import torch' 2>/dev/null && return
    say "installing torch"
    pip_install 'torch==2.13.0+cpu' 2>/dev/null && return
    if [ "$(uname -s)" = Linux ]; then
        pip_install --retries 0 --timeout 20 --index-url https://download.pytorch.org/whl/cpu \
            'torch==2.13.0' 2>/dev/null && return
    fi
    pip_install 'torch==2.13.0' 2>/dev/null && return
    pip_install 'torch>=2.9'
}

pip_install() { "$venv/bin/python" -m pip install -qq --disable-pip-version-check "$@"; }

# What the environment was made from: another interpreter, other requirements or kernels make it stale.
fingerprint() {
    "$venv/bin/python" -V
    cat "$root/pyproject.toml" "$root"/scripts/backend/*.py "$root"/runtime/kernels/native/*.c \
        "$root"/runtime/kernels/native/*/* | cksum
    printf '%s\n' "$root"
}

set_up() {
    if ! "$venv/bin/python" -c '' 2>/dev/null; then
        local python
        python=$(find_python)
        say "making $venv with $("$python" -V) (once; a few minutes)"
        rm -rf "$venv"
        "$python" -m venv "$venv"
    fi
    if [ "$(cat "$stamp" 2>/dev/null)" != "$(fingerprint)" ]; then
        install_torch
        say "installing intaglio and what it needs"
        pip_install --editable "$root[dev]"
        fingerprint >"$stamp"
        say "done"
    fi
}

set_up
PATH=$venv/bin:$PATH
export PATH
cd "$root"
