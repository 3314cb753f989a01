# SPDX-License-Identifier: BSD-3-Clause
# bash completion for qluks-info(1)
_qluks_info() {
    local cur=${COMP_WORDS[COMP_CWORD]}
    case $cur in
        -*) mapfile -t COMPREPLY < <(compgen -W '--json --help --version' -- "$cur") ;;
        *) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    esac
}
complete -F _qluks_info qluks-info
