# SPDX-License-Identifier: BSD-3-Clause
# For scripts that install packages in a root directory of their own.

# The way to the package archive is this machine's; what a package of this machine has put there is not.
copy_way_to_archive() {
    local f
    for f in /etc/resolv.conf /etc/apt/apt.conf.d/*; do
        [ ! -e "$f" ] || dpkg -S "$f" >/dev/null 2>&1 || cp -aL "$f" "$1$(dirname "$f")/"
    done
}
